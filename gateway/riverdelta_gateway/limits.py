"""What a user may do how often, and how much of it at the same time."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta_gateway.errors import RequestError

_MINUTE_S = 60.0


class PostLimit:
    """
    Limits a user's posts, over all processes: a token bucket in Redis.

    Args:
        client: The buckets are on the queue's Redis.
        max_per_minute: Posts of one user.
    """

    def __init__(self, client: Client, max_per_minute: int) -> None:
        self._client = client
        self._max_per_minute = max_per_minute

    async def take(self, user: str) -> None:
        """
        Count a post.

        Raises:
            RequestError: RATE_LIMITED: the user has posted too often; it says when to try again.
            BrokerUnavailable: Redis did not answer; try again.
        """
        wait_s = await scripts.take_token(
            self._client.queue,
            self._client.keys.user_bucket(user, "posts"),
            capacity=self._max_per_minute,
            per_s=self._max_per_minute / _MINUTE_S,
        )
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise RequestError(
                "RATE_LIMITED", f"Too many posts: try again in {seconds} s.", retry_after_s=seconds
            )


class ConnectionLimit:
    """
    Limits the sockets and HTTP streams that a user has open in this process.

    Args:
        max_per_user: Sockets and streams of one user.
    """

    def __init__(self, max_per_user: int) -> None:
        self._max_per_user = max_per_user
        self._open: Counter[str] = Counter()

    def take(self, user: str) -> None:
        """
        Count a connection that begins; call `release` when it ends.

        Raises:
            RequestError: RATE_LIMITED: the user has too many open.
        """
        if self._open[user] >= self._max_per_user:
            raise RequestError(
                "RATE_LIMITED", "You have too many sockets and streams open: close one first."
            )
        self._open[user] += 1

    @contextlib.contextmanager
    def place(self, user: str) -> Iterator[None]:
        """
        Count a connection for as long as the block lasts.

        Raises:
            RequestError: RATE_LIMITED: the user has too many open.
        """
        self.take(user)
        try:
            yield
        finally:
            self.release(user)

    def count(self, user: str) -> int:
        """Count the connections that a user has open."""
        return self._open[user]

    def release(self, user: str) -> None:
        """Count a connection that has ended."""
        self._open -= Counter((user,))  # keeps no zeros
