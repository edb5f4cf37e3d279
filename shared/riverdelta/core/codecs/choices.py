"""
Find the choice that is part of the answer, also where a provider numbers choices badly.

One answer is read: that of the first choice. With several answers asked for (`n`), the others are
dropped. But a choice with another index need not be another answer: some servers number every
chunk, or begin at 1. So what comes under another index is held until it is clear what it is:

- the first index comes again, or two indexes stand in one chunk: other answers, dropped;
- the first index said nothing, and the other comes again: it is the answer;
- each index comes only once, for `_COUNTS_UP` chunks or to the end: the chunks are numbered.
"""

from __future__ import annotations

from typing import Any, Literal

Verdict = Literal["read", "hold", "drop"]

_COUNTS_UP = 8
"""Chunks with an index each after which they are taken to be numbered: requests ask for fewer answers."""

_MOST_HELD = 64 * 1024
"""Characters that are held at most: past them, what is held is another answer."""


class Choices:
    """
    Decide which choices of one step are read.

    Attributes:
        index: Of the choice that is read. None: none has come.
    """

    def __init__(self) -> None:
        self.index: int | None = None
        self._first_again = False
        self._several = False
        self._counting = False
        self._held: list[tuple[int, str]] = []
        self._release = False
        self._dropped = 0

    @property
    def one(self) -> bool:
        """Whether the index that is read came more than once, and nothing is held."""
        return self._first_again and not self._held

    def reads(self, index: int | None) -> bool:
        """Whether one more choice of this index is read, and changes nothing."""
        if self._held or self._release:
            return False
        return index is None or (index == self.index and self._first_again)

    def see(self, choices: list[Any]) -> None:
        """Look at all choices of a chunk: two indexes in one chunk are two answers."""
        indexes = [choice.get("index") for choice in choices if type(choice) is dict]
        numbers = {index for index in indexes if type(index) is int}
        if len(numbers) > 1:
            self._several = True
            self._drop_held()

    def judge(self, index: int | None, *, said: bool, shown: bool) -> Verdict:
        """
        Decide about a choice.

        Args:
            index: Its index.
            said: It has content.
            shown: Readers have something of the step.
        """
        if index is None or self.index is None:
            self.index = index if self.index is None else self.index
            return "read"
        if index == self.index:
            self._first_again = True
            if self._held:
                self._several = True
                self._drop_held()
            return "read"
        if self._several:
            return "drop"
        if self._counting or (not shown and index < self.index and not self._held):
            self.index = index
            return "read"
        return self._judge_other(index, said=said, shown=shown)

    def _judge_other(self, index: int, *, said: bool, shown: bool) -> Verdict:
        before = [held for held, _ in self._held]
        if index in before and not shown and set(before) == {index}:
            self.index, self._release = index, True
            return "read"
        if index not in before and len(before) == len(set(before)) >= _COUNTS_UP:
            if self._first_again:
                self._several = True
                self._drop_held()
                return "drop"
            self.index, self._counting, self._release = index, True, True
            return "read"
        if not shown and not said and not before:
            self.index = index  # nothing came under either: whichever speaks first is the answer
            return "read"
        return "hold"

    def hold(self, index: int | None, choice: str, *, ends: bool) -> None:
        """Keep a choice (as JSON) until it is clear what it is; *ends*: the first one has a finish."""
        self._held.append((index or 0, choice))
        if ends or sum(len(held) for _, held in self._held) > _MOST_HELD:
            self._several = True
            self._drop_held()

    def decide(self, *, shown: bool, finished: bool) -> None:
        """
        Nothing more comes: decide about what is held.

        Args:
            shown: Readers have something of the first choice.
            finished: The first choice has a finish.
        """
        indexes = [index for index, _ in self._held]
        counted = len(set(indexes)) == len(indexes) and not self._first_again
        one = len(set(indexes)) == 1
        if self._held and not finished and (counted or one or not shown):
            self._release = True
        else:
            self._drop_held()

    def take_held(self) -> list[str]:
        """Give the held choices that are parts of the answer, in order, and forget them."""
        if not self._release:
            return []
        held, self._held, self._release = self._held, [], False
        return [choice for _, choice in held]

    def take_dropped(self) -> int:
        """Give how many held choices were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values."""
        held = [list(item) for item in self._held]
        return [self.index, self._first_again, self._several, self._counting, held]

    def load(self, state: list[Any]) -> None:
        """Go on where *state* was dumped."""
        self.index, self._first_again, self._several, self._counting, held = state
        self._held = [(index, choice) for index, choice in held]

    def _drop_held(self) -> None:
        self._dropped += len(self._held)
        self._held.clear()
