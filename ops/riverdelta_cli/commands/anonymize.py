"""``riverdelta pipe --anonymize``: prints a recording without what it says."""

from __future__ import annotations

import os
import sys

from riverdelta.core.anonymize import Anonymizer
from riverdelta_cli.errors import DONE
from riverdelta_cli.input.lines import open_input


def anonymize(file: str, source: str | None) -> int:
    """
    Print the input line by line, each as long as before; returns the exit code.

    Raises:
        CliError: The input cannot be read.
    """
    made = Anonymizer(source)
    with os.fdopen(open_input(file), "rb") as recording:
        for line in recording.read().splitlines(keepends=True):
            sys.stdout.buffer.write(made.line(line))
    sys.stdout.buffer.flush()
    return DONE
