"""
What `Redact` costs on clean text in 4-character deltas, against one bare search of its patterns per delta.

``python ops/bench/redact.py``: several rounds in turns, in CPU time; the median ratio and its quartiles,
for prose and for texts that are harder on it, with how much was held back on average after each delta.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import mean, median, quantiles
from typing import Final

import regex

from riverdelta_workers.filters import SHIPPED, Redact

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


def deltas_of(text: str) -> list[str]:
    """Cut *text*, over and over, into deltas."""
    size = _DELTA * _DELTAS
    text = (text * (size // len(text) + 1))[:size]
    return [text[at : at + _DELTA] for at in range(0, size, _DELTA)]


def main() -> None:
    """Measure and print."""
    expression = "|".join(f"(?:{pattern.expression})" for pattern in SHIPPED)
    bare = regex.compile(expression)
    print(f"{len(SHIPPED)} patterns, {_DELTA}-character deltas, {_ROUNDS} rounds in turns")
    for name, text in TEXTS.items():
        deltas = deltas_of(text)
        ratios, ours, theirs = [], [], []
        for _ in range(_ROUNDS):
            theirs.append(_us_each(bare.search, deltas))
            ours.append(_us_each(Redact().feed, deltas))
            ratios.append(ours[-1] / theirs[-1])
        low, middle, high = quantiles(ratios, n=4)
        bar = f" (bar: <= {_BAR:g})" if name == "prose" else ""
        held, at_word_ends = _held(deltas)
        print(
            f"{name:8} {middle:5.2f} x ({low:.2f} to {high:.2f}){bar}: "
            f"{median(ours):.2f} us against {median(theirs):.2f} us; "
            f"held back {held:.2f} characters, {at_word_ends:.2f} at word ends"
        )


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
    main()
