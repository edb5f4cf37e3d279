"""Positions on a chat's log. Opaque to clients; never compared as text."""

from __future__ import annotations

import re
from typing import NamedTuple

from riverdelta.core.errors import InvalidPositionError

NO_EPOCH = "00000000"
"""Epoch of a chat that no worker has claimed yet. No log has it, so such a position is always void."""

_POSITION = re.compile(r"([A-Za-z0-9]{1,64}):([0-9]{1,18})")


class Position(NamedTuple):
    """The position of an event: the random id of the log, and the number of the event in it."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        """Encode it for readers: ``epoch:seq``."""
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """
        Decode a position.

        Raises:
            InvalidPositionError: (a ``ValueError``) the text is not a position; a caller bug. A position
                that is only old, void or in the future is valid, and gives its reader a snapshot.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            message = f"{text!r} is not a position (epoch:seq); leave it out to get a snapshot"
            raise InvalidPositionError(message)
        return cls(match[1], int(match[2]))
