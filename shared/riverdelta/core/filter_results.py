"""What filter agents say of raw chunks; the fold applies it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

Outcome = Literal["passed", "changed", "dropped", "failed_passed", "failed_blocked"]
"""What became of a chunk at one agent: it or its answer went on, or nothing did."""

_RANK: Final[Sequence[Outcome]] = (
    "passed",
    "changed",
    "failed_passed",
    "dropped",
    "failed_blocked",
)
"""The outcome of a chunk is the last of these among its calls: what a person has to know first."""


class Call(NamedTuple):
    """What one agent did with a chunk; *code* and *detail* where it failed."""

    agent: str
    outcome: Outcome
    code: str | None = None
    detail: str | None = None


class FilterResult(NamedTuple):
    """
    What the chain says of one chunk.

    Attributes:
        data: What goes on to the codec. None: nothing, the entry only moves the cursor.
        calls: Of every agent that was asked, in the order of the chain.
    """

    data: bytes | None
    calls: tuple[Call, ...]

    @property
    def outcome(self) -> Outcome:
        """The gravest of its calls."""
        return max((call.outcome for call in self.calls), key=_RANK.index)

    @property
    def failures(self) -> list[Call]:
        """The calls that failed, whatever the policy made of it."""
        return [call for call in self.calls if call.code is not None]
