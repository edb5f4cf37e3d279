"""Print notes on stderr, beside a command's output."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap


def say(text: str) -> None:
    """
    Print one line on stderr; a closed stderr is ignored.

    On a terminal it breaks between words. Elsewhere it stays one line, so that it can be searched.
    """
    lines = f"riverdelta: {text}".split("\n")
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        lines = [
            textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
            for line in lines
        ]
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr.fileno())


def silence(descriptor: int) -> None:
    """Redirect a descriptor without a reader to the null device, so that Python's flush does not fail."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
