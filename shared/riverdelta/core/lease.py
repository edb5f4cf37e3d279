"""Decide which processes are dead: those whose heartbeat counter did not change for a lease."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

STANDBY_LEASES: Final = 5
"""A loop that did not turn for longer hangs: nothing may keep its process alive any more."""

_LATE_PERIODS: Final = 2


def stands_in(quiet_ms: int, *, period_ms: int, lease_ms: int) -> bool:
    """
    Decide whether a thread sends the heartbeat of a process in place of its event loop.

    Args:
        quiet_ms: Time since the loop's own last beat.
        period_ms: Time between two beats of the loop; at most a quarter of *lease_ms*.
        lease_ms: Time without a beat after which others declare the process dead.
    """
    return _LATE_PERIODS * period_ms < quiet_ms <= STANDBY_LEASES * lease_ms


class LeaseWatch:
    """
    Watches the heartbeat counters of processes. Pure: the caller passes the time.

    Only the observer's own successful reads count: after an outage (or a pause of the observer itself)
    every lease starts over, so that no process is declared dead because the *observer* was away.

    Args:
        lease_ms: A counter that is unchanged for this long means dead.
        max_gap_ms: Reads further apart than this restart all leases.
    """

    def __init__(self, lease_ms: int, max_gap_ms: int) -> None:
        self._lease_ms = lease_ms
        self._max_gap_ms = max_gap_ms
        self._seen: dict[str, tuple[int, int]] = {}
        self._last_read_ms: int | None = None

    def observe(self, counters: Mapping[str, int], now_ms: int) -> dict[str, int]:
        """
        Process one successful read.

        Args:
            counters: Counter of every member, as read.
            now_ms: The observer's monotonic clock, in milliseconds.

        Returns:
            The dead members, each with the counter value that did not change.
        """
        away = self._last_read_ms is not None and now_ms - self._last_read_ms > self._max_gap_ms
        self._last_read_ms = now_ms
        if away:
            self._seen.clear()
        seen: dict[str, tuple[int, int]] = {}
        for member, counter in counters.items():
            before = self._seen.get(member)
            since = before[1] if before is not None and before[0] == counter else now_ms
            seen[member] = (counter, since)
        self._seen = seen
        return {
            member: counter
            for member, (counter, since) in seen.items()
            if now_ms - since >= self._lease_ms
        }

    def renew(self, members: Mapping[str, int], now_ms: int) -> None:
        """Give dead *members* another lease, because the cleanup after their death has begun."""
        self._seen.update((member, (counter, now_ms)) for member, counter in members.items())
