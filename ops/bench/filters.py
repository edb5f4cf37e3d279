"""
What filters of text cost on clean 4-character deltas, against one bare search of their patterns per delta.

`Redact`, for prose and for texts that are harder on it, and `Sections`. Run as a script, or as one of
run.py's measurements. Figures are of CPU time, in one process, in turns; what was held back on average
after each delta stands below.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Final

import regex

if __name__ == "__main__":  # as run.py, which finds its siblings through its own folder
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.result import Row, row, table
from riverdelta.core.filters import DEFAULT_SECTIONS
from riverdelta_workers.filters import SHIPPED, Redact, Sections

_DELTA: Final = 4
_ROUNDS: Final = 41
_DELTAS: Final = 4_000
_BAR: Final = 3.0

TEXTS: Final = {
    "prose": (
        "The quick brown fox jumps over the lazy dog, and nobody in the village minds. It's a fine day; "
        "people talk about the weather, the harvest and (sometimes) the price of bread. What else is "
        "there to say? Every reader still sees every word once, in order, and the reply is never lost. "
    ),
    "report": (
        "Revenue grew by 12% in Q3 2024, to $4.2 million. Three well-known reasons:\n\n"
        "1. **New customers** - 340 of them, up from 275.\n2. A lower churn rate (2.1%).\n"
        "3. The price change of 1 July.\n\nSee the follow-up report for details.\n"
    ),
    "code": (
        "def load_users(path: str, *, max_age: int = 30) -> list[User]:\n"
        '    rows = read_csv(path, sep=";")\n    return [User(**row) for row in rows if row["age"] < 99]\n'
        "# see https://docs.example.com/en/latest/users.html#loading-many-users-at-once\n"
    ),
    "Chinese": "每个读者都会按顺序看到每一个字。而且只看到一次。即使工作进程中途退出。回复也不会丢失。",
}


def measure(_server: object = None, *, quick: bool = False) -> tuple[list[Row], list[str]]:
    """Measure both filters on each text."""
    rounds = 3 if quick else _ROUNDS
    secrets = regex.compile("|".join(f"(?:{pattern.expression})" for pattern in SHIPPED))
    markers = regex.compile("|".join(f"(?m:{rule.start})" for rule in DEFAULT_SECTIONS))
    rows, notes = [], []
    for name, text in TEXTS.items():
        deltas = deltas_of(text)
        pairs = [
            (_us_each(Redact().feed, deltas), _us_each(secrets.search, deltas))
            for _ in range(rounds)
        ]
        bar = _BAR if name == "prose" else None
        what = f"redact, clean {name}, {_DELTA}-character deltas"
        rows.append(row(what, "one bare search of its patterns", "us/delta", pairs, at_most=bar))
        held, at_word_ends = _held(deltas)
        notes.append(
            f"redact, {name}: held back {held:.2f} characters, {at_word_ends:.2f} at word ends"
        )
    deltas = deltas_of(TEXTS["prose"])
    pairs = [
        (_us_each(Sections().feed, deltas), _us_each(markers.search, deltas)) for _ in range(rounds)
    ]
    what = f"sections, prose, {_DELTA}-character deltas"
    rows.append(row(what, "one bare search of their starts", "us/delta", pairs))
    return rows, notes


def deltas_of(text: str) -> list[str]:
    """Cut *text*, over and over, into deltas."""
    size = _DELTA * _DELTAS
    text = (text * (size // len(text) + 1))[:size]
    return [text[at : at + _DELTA] for at in range(0, size, _DELTA)]


def _us_each(take: Callable[[str], object], deltas: list[str]) -> float:
    begun = time.process_time()
    for delta in deltas:
        take(delta)
    return (time.process_time() - begun) / len(deltas) * 1e6


def _held(deltas: list[str]) -> tuple[float, float]:
    """Average hold-back after each delta, and after those that end with a space."""
    redact = Redact()
    after: list[int] = []
    at_word_ends: list[int] = [0]
    out = []
    for delta in deltas:
        out.append(redact.feed(delta))
        after.append(redact.held)
        if delta[-1].isspace():
            at_word_ends.append(redact.held)
    if "".join([*out, redact.finish()]) != "".join(deltas):
        raise AssertionError("clean text was changed")
    return mean(after), mean(at_word_ends)


if __name__ == "__main__":
    found_rows, found_notes = measure(quick="--quick" in sys.argv)
    print(table(found_rows))
    print()
    for note in found_notes:
        print(note)
