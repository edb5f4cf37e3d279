"""A client of the gateway as browsers have it: requests out, frames in, a view of each chat."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from riverdelta import ChatView, Event

DEADLINE_S = 120.0


class Client:
    """One WebSocket; sorts what arrives into answers and, by chat, events."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self._numbers = itertools.count(1)

    async def send(self, route: str, payload: Any, **more: Any) -> None:
        await self.connection.send(json.dumps({"route": route, "payload": payload} | more))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            frame = json.loads(await self.connection.recv())
        assert {"route", "event", "payload", "error", "sent_by", "send_method", "position"} <= set(
            frame
        )
        return dict(frame)

    async def ask(self, route: str, payload: Any) -> dict[str, Any]:
        """Send a request and give its answer; events that come before it are lost."""
        number = next(self._numbers)
        await self.send(route, payload, request_id=number)
        while (frame := await self.next()).get("request_id") != number:
            pass
        return frame

    async def subscribe(self, chat_id: str, after: str | None = None) -> None:
        answer = await self.ask("/chats/subscribe", {"chat_id": chat_id, "after": after})
        assert answer["event"] == "subscribed", answer

    async def events(self) -> AsyncIterator[Event]:
        """Give the events that arrive, for ever."""
        while True:
            frame = await self.next()
            if frame["route"] == "/chats/subscribe" and frame["position"] is not None:
                yield Event(json.dumps(frame["payload"]).encode())

    async def until_closed(self) -> tuple[list[Event], int | None]:
        """Collect events until the socket is closed; and with which code, if with one."""
        collected = []
        try:
            async for event in self.events():
                collected.append(event)  # noqa: PERF401  # what came before the close counts
        except ConnectionClosed as closed:
            return collected, None if closed.rcvd is None else closed.rcvd.code
        raise AssertionError("never reached: events() has no end of its own")

    async def until_end(self, count: int = 1) -> list[Event]:
        """Collect events until *count* messages have ended."""
        collected = []
        async for event in self.events():
            collected.append(event)
            if event.type == "snapshot":
                count -= sum(message["status"] != "open" for message in event.data["messages"])
            count -= event.ends_message
            if count <= 0:
                break
        return collected


@contextlib.asynccontextmanager
async def client(url: str, query: str = "", **options: Any) -> AsyncIterator[Client]:
    async with connect(
        url.replace("http", "ws") + "/ws" + query, max_size=None, **options
    ) as connection:
        yield Client(connection)


def first_seq(event: Event) -> int:
    """Where the run of events begins that *event* stands for."""
    fields = json.loads(event.raw)
    return int(fields.get("first_seq", fields["seq"]))


def check_runs(events: list[Event]) -> None:
    """No gap, no repeat: every event but a snapshot follows the one before."""
    for before, event in itertools.pairwise(events):
        if event.type != "snapshot":
            assert first_seq(event) == before.seq + 1, f"{before!r} then {event!r}"


def view_of(events: list[Event]) -> ChatView:
    check_runs(events)
    view = ChatView()
    for event in events:
        view.apply(event)
    return view
