"""Readers for the tests: follow a chat, and hold every run of events to the guarantee."""

import asyncio
import contextlib
import itertools

from riverdelta import ChatView, Event, Producer, Subscriber
from tests.support.servers import DEADLINE_S

BEGINNING = "00000000:0"
"""The position before the first event of any chat: everything is read, and no snapshot."""


async def read_until_ends(
    subscriber: Subscriber, chat_id: str, *, ends: int = 1, after: str | None = None
) -> list[Event]:
    """Collect events until *ends* messages have ended; the run must be contiguous."""
    events: list[Event] = []
    async with (
        asyncio.timeout(DEADLINE_S),
        contextlib.aclosing(subscriber.events(chat_id, after)) as stream,
    ):
        async for event in stream:
            events.append(event)
            if event.type == "snapshot":
                ends -= sum(message["status"] != "open" for message in event.data["messages"])
            ends -= event.ends_message
            if ends <= 0:
                break
    check_contiguous(events)
    return events


async def converse(producer: Producer, subscriber: Subscriber, chat_id: str) -> None:
    """Push sixty times, each when the reader has the text of the push before."""
    async with (
        producer.message(chat_id, source="text", message_id="m") as message,
        contextlib.aclosing(subscriber.events(chat_id, BEGINNING)) as events,
    ):
        for number in range(60):
            await message.push(f"X{number} ")
            async for event in events:
                if event.type == "chunk.delta" and f"X{number} " in event.data["text"]:
                    break


def check_contiguous(events: list[Event]) -> None:
    for before, event in itertools.pairwise(events):
        if event.type != "snapshot":
            follows = before.seq + 1 == event.seq
            same_log = before.epoch == event.epoch or before.seq == 0
            assert (follows, same_log) == (True, True), f"{before.position} then {event.position}"


def view_of(events: list[Event]) -> ChatView:
    view = ChatView()
    for event in events:
        view.apply(event)
    return view
