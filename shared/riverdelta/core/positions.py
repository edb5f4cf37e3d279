"""Positions: where a reader is on a chat's log. Opaque to clients; never compared as text."""

from __future__ import annotations

import re
from typing import NamedTuple

from riverdelta.core.errors import InvalidPositionError

NO_EPOCH = "00000000"
"""The epoch of a chat that no worker has claimed yet: no log has it, so it can only be void."""

_POSITION = re.compile(r"([A-Za-z0-9]{1,64}):([0-9]{1,18})")


class Position(NamedTuple):
    """An event's place: the random id of the log, and the event's number in it."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        """Spell it as readers keep it: ``epoch:seq``."""
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """
        Read what `__str__` wrote.

        Raises:
            InvalidPositionError: (a ``ValueError``) the text is no position; a caller bug. A position
                that is merely old, void or of the future parses, and gives its reader a snapshot.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            message = f"{text!r} is not a position (epoch:seq); leave it out to get a snapshot"
            raise InvalidPositionError(message)
        return cls(match[1], int(match[2]))
