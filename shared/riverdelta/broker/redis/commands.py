"""The interface that executes commands, on one server or on a cluster."""

from __future__ import annotations

from typing import Any, Protocol

from riverdelta.broker.redis.wire import Arg
from riverdelta.core.errors import BrokerUnavailable


class Commands(Protocol):
    """One server's `Executor`, or a `ClusterExecutor`. Use it from one event loop."""

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called."""

    async def connect(self) -> None:
        """
        Connect now rather than at the first command.

        Raises:
            BrokerUnavailable: No server there.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """

    async def execute(self, *args: Arg) -> Any:
        """
        Send one command and return its reply, undecoded.

        Raises:
            BrokerUnavailable: No reply came; whether the command took effect is unknown.
            redis.exceptions.ResponseError: The server answered with an error.
        """

    def run_id_for(self, key: str) -> str | None:
        """``run_id`` of the server that commands on *key* go to; None while there is none."""

    def unavailable(self, error: BaseException | str) -> BrokerUnavailable:
        """Make the error that it cannot be used now, with its reason."""

    async def aclose(self) -> None:
        """Close; commands under way fail with `BrokerUnavailable`."""
