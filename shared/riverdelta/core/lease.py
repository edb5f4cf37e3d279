"""Decides who is dead: a heartbeat counter that stood still for a lease, on the observer's own clock."""

from __future__ import annotations

from collections.abc import Mapping


class LeaseWatch:
    """
    Watches counters that living processes raise. Pure: the time comes in.

    A counter is judged only over the observer's own successful reads: after an outage (or a pause of
    the observer itself) every lease starts anew, so nobody is declared dead because *we* were away.

    Args:
        lease_ms: A counter unchanged for this long means dead.
        max_gap_ms: Reads further apart than this restart all leases.
    """

    def __init__(self, lease_ms: int, max_gap_ms: int) -> None:
        self._lease_ms = lease_ms
        self._max_gap_ms = max_gap_ms
        self._seen: dict[str, tuple[int, int]] = {}
        self._last_read_ms: int | None = None

    def observe(self, counters: Mapping[str, int], now_ms: int) -> dict[str, int]:
        """
        Take one successful read.

        Args:
            counters: Every member's counter as read.
            now_ms: The observer's monotonic clock, in milliseconds.

        Returns:
            The members found dead, each with the counter it was found dead at.
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
        """Give *members*, found dead, another lease: what their death asks for was begun."""
        self._seen.update((member, (counter, now_ms)) for member, counter in members.items())
