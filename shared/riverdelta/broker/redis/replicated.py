"""
Execute commands whose reply means that a replica has their writes, too.

``WAIT`` blocks its whole connection and covers only that connection's writes. So these commands have a
connection of their own, and one WAIT at a time covers everything that was sent before it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

from redis.asyncio.connection import Connection

from riverdelta.broker.redis.executor import Endpoint, Executor, Link
from riverdelta.broker.redis.wire import Arg
from riverdelta.core.errors import BrokerUnavailable, NotReplicated

_REPLICAS: Final = 1
_OF_TIMEOUT: Final = 0.6
"""Timeout of WAIT, as a part of the command timeout: before the connection counts as dead."""


class ReplicatedExecutor(Executor):
    """
    An `Executor` that returns a reply when a replica has confirmed what the command wrote.

    Each command must write something, also when it is repeated: after a command without a write
    WAIT returns at once.
    """

    def _make_link(self, connection: Connection, run_id: str) -> Link:
        return _ReplicatedLink(self.endpoint, connection, run_id)


class _Held(NamedTuple):
    """The future of a reply, and the one that the caller gets, done once a replica confirmed."""

    reply: asyncio.Future[Any]
    confirmed: asyncio.Future[Any]


class _ReplicatedLink(Link):
    """Holds replies back until a WAIT behind their commands is answered."""

    def __init__(self, endpoint: Endpoint, connection: Connection, run_id: str) -> None:
        super().__init__(endpoint, connection, run_id)
        self._timeout_s = endpoint.command_timeout_s * _OF_TIMEOUT
        self._held: list[_Held] = []
        self._is_waiting = False

    def send(self, args: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """Send one command; the future gets its reply once a replica has its writes."""
        reply = super().send(args)
        held = _Held(reply, reply.get_loop().create_future())
        reply.add_done_callback(lambda _: _pass_error(held))
        self._held.append(held)
        if not self._is_waiting:
            self._is_waiting = True
            reply.get_loop().call_soon(self._wait)  # behind all that this loop turn still sends
        return held.confirmed

    def _wait(self) -> None:
        """Send one WAIT for all replies that are held without one."""
        held, self._held = self._held, []
        self._is_waiting = bool(held)
        if not held:
            return
        try:
            answer = super().send(("WAIT", _REPLICAS, int(self._timeout_s * 1000)))
        except BrokerUnavailable as error:
            self._is_waiting = False
            _settle(held, error)  # replies that came just before the connection failed, too
            return
        answer.add_done_callback(lambda answer: self._answered(held, answer))

    def _answered(self, held: list[_Held], answer: asyncio.Future[Any]) -> None:
        error = answer.exception()
        if error is not None and not isinstance(error, BrokerUnavailable):
            error = self._endpoint.unavailable(error)  # the server is a replica itself by now
        elif error is None and answer.result() < _REPLICAS:
            message = (
                f"Redis at {self._endpoint} has it, but no replica confirmed that within "
                f"{self._timeout_s:g} s: see that one runs, or use durability=local"
            )
            error = NotReplicated(message)
        _settle(held, error)
        self._wait()


def _settle(held: list[_Held], error: BaseException | None) -> None:
    """Give the callers their replies, or *error*."""
    for reply, confirmed in held:
        if confirmed.done():
            continue  # refused, or its caller was cancelled
        if error is None:
            confirmed.set_result(reply.result())
        else:
            confirmed.set_exception(error)


def _pass_error(held: _Held) -> None:
    """Pass an error on at once: no replica could change it."""
    error = held.reply.exception()
    if error is not None and not held.confirmed.done():
        held.confirmed.set_exception(error)
        held.confirmed.exception()  # fetched: its caller may have been cancelled
