"""Entry point of the ``riverdelta`` command: says which extra is missing, if one is."""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import version


def main() -> None:
    """Run the command; never returns."""
    # While all the rest is imported Ctrl-C has nothing to end in order (`session.end_with` has).
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _prepare_streams()
    if sys.argv[1:] == ["--version"] and _print_version():
        sys.exit(0)
    from riverdelta_cli.extras import lacking, needed_by  # noqa: PLC0415  # see above

    if lacking("the command", ["cli"]):
        needed = needed_by(sys.argv[1:])
        print(f"riverdelta: {lacking('the command', needed)}", file=sys.stderr)
        sys.exit(2)
    from riverdelta_cli.session import exit_code_of  # noqa: PLC0415  # needs the extra

    # `riverdelta --help | head` ends as other programs do; commands change this (`session.end_with`).
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    code = exit_code_of(_run_app)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to end in order
    sys.exit(code)


def _print_version() -> bool:
    """Print the version without importing the command; False: the command reports why it cannot."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        print(f"riverdelta {version('riverdelta')}", flush=True)
    except OSError:
        return False
    return True


def _run_app() -> int:
    from riverdelta_cli.app import app  # noqa: PLC0415  # needs the extra

    try:
        app(prog_name="riverdelta")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0


def _prepare_streams() -> None:
    """
    Have a stdout and a stderr that take every text.

    A process that was started without one (``>&-``) gets one that goes nowhere; what a terminal's
    encoding cannot show is a question mark on it, and no reason to stop.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8"))
        else:
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
