"""rich's console, but the command handles a broken pipe."""

from __future__ import annotations

import errno
import os

from rich.console import Console as RichConsole


class Console(RichConsole):
    """Raise BrokenPipeError as any file does; rich's own raises SystemExit in the task that writes."""

    def on_broken_pipe(self) -> None:
        """Handle a closed output; see `session.exit_code_of`."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
