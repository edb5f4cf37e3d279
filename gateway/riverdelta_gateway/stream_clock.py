"""When an HTTP stream is due for a heartbeat, has stalled, or must end. Pure."""

from __future__ import annotations

from typing import Literal

Due = Literal["heartbeat", "stalled", "token_expired"]


class StreamClock:
    """
    Judges one stream by what went out, whatever comes in.

    Times are seconds of any clock that only goes forward.

    Args:
        now_s: When the stream begins.
        heartbeat_s: Longest time without output.
        stall_timeout_s: A client that takes no byte for this long, though some are unsent, has stalled.
        ends_at_s: When the token expires; None: it does not.
    """

    def __init__(
        self,
        now_s: float,
        *,
        heartbeat_s: float,
        stall_timeout_s: float,
        ends_at_s: float | None = None,
    ) -> None:
        self._heartbeat_s = heartbeat_s
        self._stall_timeout_s = stall_timeout_s
        self._ends_at_s = float("inf") if ends_at_s is None else ends_at_s
        self._heartbeat_at_s = now_s + heartbeat_s
        self._progress_s = now_s
        self._unsent_bytes = 0

    def sent(self, now_s: float, unsent_bytes: int) -> None:
        """Note that output was written; *unsent_bytes*: what the connection holds now."""
        self._heartbeat_at_s = now_s + self._heartbeat_s
        self._unsent_bytes = unsent_bytes

    def judge(self, now_s: float, unsent_bytes: int, *, sending: bool) -> Due | None:
        """
        Decide what is due now; None: nothing.

        Args:
            now_s: Now.
            unsent_bytes: Bytes that the connection holds for the client.
            sending: Whether a write waits until the client has taken some of them; no heartbeat then.
        """
        if now_s >= self._ends_at_s:
            return "token_expired"
        if not unsent_bytes or unsent_bytes < self._unsent_bytes:
            self._progress_s = now_s
        self._unsent_bytes = unsent_bytes
        if now_s - self._progress_s >= self._stall_timeout_s:
            return "stalled"
        if now_s >= self._heartbeat_at_s and not sending:
            return "heartbeat"
        return None

    def wait_s(self, now_s: float, *, sending: bool) -> float:
        """Return how long to wait before judging again, if nothing else happens."""
        next_s = min(self._ends_at_s, now_s + self._stall_timeout_s / 4)
        if not sending:
            next_s = min(next_s, self._heartbeat_at_s)
        return max(0.0, next_s - now_s)
