"""Print lines of our own on stderr, beside a command's output."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap


def say(text: str) -> None:
    """
    Print one line of our own on stderr; a stderr that is gone is no reason to stop.

    On a terminal it breaks between words. Elsewhere it stays one line, for whoever searches.
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
    """Point a descriptor whose reader is gone at nothing, so that Python's own flush is quiet."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
