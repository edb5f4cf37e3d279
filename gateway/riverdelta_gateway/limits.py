"""How often a user may do what: token buckets in Redis, so that it holds over all processes."""

from __future__ import annotations

import math

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.settings import GatewaySettings

_MINUTE_S = 60.0


class Limits:
    """
    The limits that are counted; those of size and number are checked where they are met.

    Args:
        client: The buckets are on the queue's Redis.
        settings: How much.
    """

    def __init__(self, client: Client, settings: GatewaySettings) -> None:
        self._client = client
        self._settings = settings

    async def take_post(self, user: str) -> None:
        """
        Count a post.

        Raises:
            RequestError: RATE_LIMITED: the user has posted too often; it says when to try again.
            BrokerUnavailable: Redis did not answer; try again.
        """
        capacity = self._settings.max_posts_per_minute
        wait_s = await scripts.take_token(
            self._client.queue,
            self._client.keys.user_bucket(user, "posts"),
            capacity=capacity,
            per_s=capacity / _MINUTE_S,
        )
        if wait_s > 0:
            seconds = math.ceil(wait_s)
            raise RequestError(
                "RATE_LIMITED", f"Too many posts: try again in {seconds} s.", retry_after_s=seconds
            )
