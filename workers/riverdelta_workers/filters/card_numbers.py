"""
Card numbers in text: 13 to 19 digits that pass the check of ISO/IEC 7812, alone or in groups.

The check counts every second digit from the right double (minus 9 above 9). Which digits these are depends
on where a number ends, and a number may begin and end at every group. So both sums are kept from the start
of a run of groups: the sum of a number is the difference of two, and every digit is read once.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import Final

CARD_EXPRESSION: Final = r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])"
"""Matches every card number, and digits that only look like one."""

_DIGITS_MIN: Final = 13
_DIGITS_MAX: Final = 19

_candidate: Final = re.compile(CARD_EXPRESSION).search
_group: Final = re.compile("[0-9]+").match
_group_behind: Final = re.compile("[ -](?=[0-9])").match
SUMMANDS: Final = {str(digit): (digit, 2 * digit - 9 * (digit > 4)) for digit in range(10)}
"""What a digit adds to a sum: as it is, and where it counts double."""


def find_card(text: str, at: int) -> tuple[int, int] | None:
    """
    Find the first card number from *at* on, and of those that begin there the longest.

    Returns:
        Its start and end; None: there is none.
    """
    found = _candidate(text, at)
    while found is not None:
        run = _Run(text, found.start())
        span = run.first_card()
        if span is not None:
            return span
        found = _candidate(text, run.at)
    return None


@dataclass(slots=True)
class _Start:
    """
    A group of digits with which a card number may begin.

    Attributes:
        at: Its offset.
        count: Digits before it.
        sums: Both sums of these digits.
        end: Offset of the end of the longest card number that begins here; 0: none so far.
    """

    at: int
    count: int
    sums: tuple[int, int]
    end: int = 0


class _Run:
    """
    Groups of digits with single blanks or dashes between them.

    Attributes:
        at: How far it was read.
    """

    __slots__ = ("_count", "_starts", "_sums", "_text", "at")

    def __init__(self, text: str, at: int) -> None:
        self.at = at
        self._text = text
        self._count = 0
        # With the digits at even places doubled, and with those at odd places.
        self._sums = (0, 0)
        self._starts: deque[_Start] = deque()

    def first_card(self) -> tuple[int, int] | None:
        """Read on until the first card number is certain. None: there is none; the whole run was read."""
        starts = self._starts
        while True:
            self._read_group()
            while starts and self._count - starts[0].count > _DIGITS_MAX:
                first = starts.popleft()
                if first.end:
                    return first.at, first.end
            self._check_ends()
            behind = _group_behind(self._text, self.at)
            if behind is None:
                break
            self.at = behind.end()
        return next(((start.at, start.end) for start in starts if start.end), None)

    def _read_group(self) -> None:
        self._starts.append(_Start(self.at, self._count, self._sums))
        even, odd = self._sums
        found = _group(self._text, self.at)
        digits = "" if found is None else found.group()
        for place, digit in enumerate(digits, self._count):
            single, double = SUMMANDS[digit]
            if place % 2:
                even, odd = even + single, odd + double
            else:
                even, odd = even + double, odd + single
        self._sums = even, odd
        self._count += len(digits)
        self.at += len(digits)

    def _check_ends(self) -> None:
        """Note a card number that ends here, for every group with which one may begin."""
        count, parity = self._count, self._count % 2
        here = self._sums[parity]
        for start in self._starts:
            if count - start.count < _DIGITS_MIN:
                break
            if (here - start.sums[parity]) % 10 == 0:
                start.end = self.at
