"""How long a takeover, a hand-over and the end of a dead producer's messages took. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from faults.oracle import Chat, Oracle, Sent, Violation

GOES_ON_S: Final = 0.5
"""A producer goes on pushing if Redis had something new of it so soon after the fault."""
TAKEOVER_S: Final = 3.0
HAND_OVER_S: Final = 1.0
PRODUCER_LOST_S: Final = 6.0
"""``producer_lease_s`` (5) and one second."""


@dataclass(slots=True)
class Injected:
    """
    A calm fault, to be measured when all is over.

    Attributes:
        at: When.
        chats: Of the target worker: chat → last seq (kill) or term (hand-over) at that time.
        messages: Open messages of the target producer.
    """

    kind: str
    at: float
    chats: Mapping[str, int] = field(default_factory=dict)
    messages: Sequence[Sent] = ()


@dataclass(slots=True)
class Measure:
    """Times of one sort, in seconds, and their limit; *faults*: faults that gave any."""

    name: str
    most_s: float
    times: list[tuple[float, str]] = field(default_factory=list)
    faults: int = 0

    @property
    def p50(self) -> float | None:
        """Median; None: nothing was measured."""
        return median(took for took, _ in self.times) if self.times else None

    @property
    def maximum(self) -> float | None:
        """The longest; None: nothing was measured."""
        return max((took for took, _ in self.times), default=None)

    def violations(self) -> list[Violation]:
        """What took too long."""
        return [
            Violation(f"slow {self.name}", where, f"{took:.2f} s")
            for took, where in self.times
            if took > self.most_s
        ]


def measure(oracle: Oracle, injected: Iterable[Injected], slack: float = 1.0) -> list[Measure]:
    """Measure every calm fault; *slack* times what is promised is let pass."""
    takeover = Measure("takeover", TAKEOVER_S * slack)
    hand_over = Measure("hand-over", HAND_OVER_S * slack)
    lost = Measure("producer_lost", PRODUCER_LOST_S * slack)
    for fault in injected:
        match fault.kind:
            case "worker.kill":
                times, into = _takeovers(oracle, fault), takeover
            case "worker.roll":
                times, into = _hand_overs(oracle, fault), hand_over
            case _:
                times, into = _losses(oracle, fault), lost
        into.times += times
        into.faults += bool(times)
    return [takeover, hand_over, lost]


def _takeovers(oracle: Oracle, fault: Injected) -> list[tuple[float, str]]:
    """From the kill to the next event, as readers got it."""
    times = []
    for chat_id, seq in fault.chats.items():
        chat = oracle.chats[chat_id]
        if _goes_on(chat, fault.at):
            next_at = _first_after(chat, seq)
            times.append((next_at - fault.at, chat_id))
    return times


def _hand_overs(oracle: Oracle, fault: Injected) -> list[tuple[float, str]]:
    """From SIGTERM to the claim of another, for chats whose replies went on all the time."""
    times = []
    for chat_id, term in fault.chats.items():
        chat = oracle.chats[chat_id]
        if any(
            _open_through(sent, fault.at, fault.at + HAND_OVER_S) for sent in chat.messages.values()
        ):
            claimed = min(
                (claim.at for claim in chat.claims if claim.term > term), default=float("inf")
            )
            times.append((claimed - fault.at, chat_id))
    return times


def _losses(oracle: Oracle, fault: Injected) -> list[tuple[float, str]]:
    """From the kill to ``message.failed``, as readers got it."""
    times = []
    for sent in fault.messages:
        chat = oracle.chats[sent.plan.chat]
        ended = min(
            (
                at
                for run in chat.runs
                for at, raw in run.events
                if at > fault.at and _is_failure(raw, sent.plan.message)
            ),
            default=None,
        )
        if ended is not None:
            times.append((ended - fault.at, f"{sent.plan.chat}/{sent.plan.message}"))
    return times


def _is_failure(raw: str, message: str) -> bool:
    if '"message.failed"' not in raw:
        return False
    return bool(json.loads(raw)["message"] == message)


def _goes_on(chat: Chat, at: float) -> bool:
    return any(
        at < acked <= at + GOES_ON_S for sent in chat.messages.values() for acked in sent.acked
    )


def _open_through(sent: Sent, begin: float, end: float) -> bool:
    opened = sent.opened_at is not None and sent.opened_at < begin
    return opened and bool(sent.outcome) and sent.outcome_at > end


def _first_after(chat: Chat, seq: int) -> float:
    return min(
        (at for run in chat.runs for at, raw in run.events if json.loads(raw)["seq"] > seq),
        default=float("inf"),
    )
