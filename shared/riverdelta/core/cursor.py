"""A reader's place on a chat's log, and what the next event means from there. Pure."""

from __future__ import annotations

from enum import Enum

from riverdelta.core.events import Event
from riverdelta.core.positions import NO_EPOCH, Position


class Verdict(Enum):
    """What to do with an event that arrived."""

    DELIVER = "deliver"
    """It is the next one."""
    SKIP = "skip"
    """It was delivered before."""
    READ_LOG = "read_log"
    """Events in between are missing: read them from the log."""
    SNAPSHOT = "snapshot"
    """The place is void (another epoch): only a snapshot helps."""


class ReaderCursor:
    """
    Follows what a reader has seen, so that it gets a contiguous run: no gap, no repeat, no reordering.

    Args:
        position: The last event the reader has.
    """

    def __init__(self, position: Position) -> None:
        self.position = position

    def judge(self, event: Event) -> Verdict:
        """Say what *event* (from the channel, in any order and number) means; moves on if DELIVER."""
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
        """Say what *event*, the log's first behind the position, means; moves on if DELIVER."""
        verdict = self.judge(event)
        # The log itself has a hole before the event: it was trimmed past the position.
        return Verdict.SNAPSHOT if verdict is Verdict.READ_LOG else verdict

    def judge_head(self, head: Position | None) -> Verdict:
        """
        Compare with the log's end, as the head tells it (None: there is no log).

        SKIP: nothing is missing. Never DELIVER.
        """
        epoch, seq = self.position
        if head is None or head == self.position:
            return Verdict.SKIP
        if head.epoch == epoch:
            return Verdict.READ_LOG if head.seq > seq else Verdict.SNAPSHOT
        return Verdict.READ_LOG if epoch == NO_EPOCH and seq == 0 else Verdict.SNAPSHOT

    def restart(self, snapshot: Event) -> None:
        """Go on behind *snapshot*."""
        self.position = Position(snapshot.epoch, snapshot.seq)
