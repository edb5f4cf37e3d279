"""Entry point of the ``riverdelta`` command: says which extra is missing, if one is."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from riverdelta_cli.extras import lacking, needed_by


def main() -> None:
    """Run the command; never returns."""
    _open_what_is_closed()
    if lacking("the command", ["cli"]):
        needed = needed_by(sys.argv[1:])
        print(f"riverdelta: {lacking('the command', needed)}", file=sys.stderr)
        sys.exit(2)
    from riverdelta_cli.session import exit_code_of  # noqa: PLC0415  # needs the extra

    # `riverdelta --help | head` ends as other programs do; commands change this (`session.end_with`).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(exit_code_of(_run_app))


def _run_app() -> int:
    from riverdelta_cli.app import app  # noqa: PLC0415  # needs the extra

    try:
        app(prog_name="riverdelta")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _open_what_is_closed() -> None:
    """Give a process that was started without stdout or stderr (``>&-``) one that goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # for good


if __name__ == "__main__":
    main()
