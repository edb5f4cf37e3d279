"""Results of filter agents for raw chunks; the fold applies them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

Outcome = Literal["passed", "changed", "dropped", "failed_passed", "failed_blocked"]
"""The result of one agent for a chunk."""

_RANK: Final[Sequence[Outcome]] = (
    "passed",
    "changed",
    "failed_passed",
    "dropped",
    "failed_blocked",
)
"""From mild to grave. The outcome of a chunk is the gravest outcome of its calls."""


class Call(NamedTuple):
    """What one agent did with a chunk; *code* and *detail* say why it failed."""

    agent: str
    outcome: Outcome
    code: str | None = None
    detail: str | None = None


class FilterResult(NamedTuple):
    """
    What the chain of agents decided about one chunk.

    Attributes:
        data: What goes on to the codec. None: nothing, the entry only advances the cursor.
        calls: One for every agent that was called, in the order of the chain.
    """

    data: bytes | None
    calls: tuple[Call, ...]

    @property
    def outcome(self) -> Outcome:
        """The gravest outcome of the calls."""
        return max((call.outcome for call in self.calls), key=_RANK.index)

    @property
    def failures(self) -> list[Call]:
        """The calls that failed, whatever the policy did about it."""
        return [call for call in self.calls if call.code is not None]
