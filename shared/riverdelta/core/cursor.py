"""A reader's position on a chat's log, and what the next event means there. Pure."""

from __future__ import annotations

from enum import Enum

from riverdelta.core.events import Event
from riverdelta.core.positions import NO_EPOCH, Position


class Verdict(Enum):
    """What to do with an event that arrived."""

    DELIVER = "deliver"
    """It is the next event."""
    SKIP = "skip"
    """It was delivered before."""
    READ_LOG = "read_log"
    """Events in between are missing: read them from the log."""
    SNAPSHOT = "snapshot"
    """The position is void (another epoch): the reader needs a snapshot."""


class ReaderCursor:
    """
    Tracks a reader's position, so that the reader gets a contiguous run: no gap, no repeat, no reordering.

    Args:
        position: Position of the last event that the reader has.
    """

    def __init__(self, position: Position) -> None:
        self.position = position

    def judge(self, event: Event) -> Verdict:
        """Judge an event from the channel, in any order, perhaps repeated. DELIVER moves the cursor."""
        epoch, seq = self.position
        if event.epoch != epoch:
            if epoch != NO_EPOCH:
                return Verdict.SNAPSHOT
            if event.seq > 1:
                return Verdict.READ_LOG
        elif event.seq <= seq:
            return Verdict.SKIP
        elif event.seq > seq + 1:
            return Verdict.READ_LOG
        self.position = Position(event.epoch, event.seq)
        return Verdict.DELIVER

    def judge_logged(self, event: Event) -> Verdict:
        """Judge *event*, the log's first event behind the position. DELIVER moves the cursor."""
        verdict = self.judge(event)
        # The log was trimmed past the position: events before this one are gone.
        return Verdict.SNAPSHOT if verdict is Verdict.READ_LOG else verdict

    def judge_head(self, head: Position | None) -> Verdict:
        """
        Judge the position against the head, the end of the log (None: there is no log).

        SKIP: nothing is missing. Never returns DELIVER.
        """
        epoch, seq = self.position
        if head is None or head == self.position:
            return Verdict.SKIP
        if head.epoch == epoch:
            return Verdict.READ_LOG if head.seq > seq else Verdict.SNAPSHOT
        return Verdict.READ_LOG if epoch == NO_EPOCH and seq == 0 else Verdict.SNAPSHOT

    def restart(self, snapshot: Event) -> None:
        """Continue behind *snapshot*."""
        self.position = Position(snapshot.epoch, snapshot.seq)
