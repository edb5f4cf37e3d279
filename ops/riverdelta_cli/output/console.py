"""rich's console, which leaves it to the command what a broken pipe means."""

from __future__ import annotations

import errno
import os

from rich.console import Console as RichConsole


class Console(RichConsole):
    """Raises BrokenPipeError as any file does; rich's own raises SystemExit inside the task that writes."""

    def on_broken_pipe(self) -> None:
        """Whoever read our output went away; see `session.exit_code_of`."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
