"""Replies that stream until the test has seen enough, each with a reader that keeps the time."""

import asyncio
import contextlib
import itertools
import statistics
import time
from collections.abc import AsyncIterator, Iterable, Sequence

from riverdelta import ChatView, Producer, Subscriber
from tests.support.servers import until

MESSAGE = "m"
_WIDTH = 7
_WATCHED_S = 0.6
_SOON_MS = 250.0


def piece(number: int) -> str:
    """A chunk of the replies; all have one length, so that a text's length says how many it has."""
    return f"{number:06d} "


class Reply:
    """
    One chat's reply and its reader.

    Attributes:
        began: When the push of each piece began.
        seen: When the reader had each piece.
        received: When the reader had any event at all.
        epochs: Of all events, in order of their first.
        text, status: What the reader ended with.
    """

    def __init__(self, chat_id: str) -> None:
        self.chat_id = chat_id
        self.began: list[float] = []
        self.seen: list[float] = []
        self.received: list[float] = []
        self.epochs: list[str] = []
        self.text = ""
        self.status = "open"

    async def produce(self, producer: Producer, pause_s: float, enough: asyncio.Event) -> None:
        message = producer.message(self.chat_id, source="text", message_id=MESSAGE)
        async with message:
            while not enough.is_set():
                self.began.append(time.monotonic())
                await message.push(piece(len(self.began) - 1))
                await asyncio.sleep(pause_s)

    async def follow(self, subscriber: Subscriber) -> None:
        view = ChatView()
        async with contextlib.aclosing(subscriber.events(self.chat_id)) as events:
            async for event in events:
                view.apply(event)
                now = time.monotonic()
                self.received.append(now)
                if event.seq and event.epoch not in self.epochs:
                    self.epochs.append(event.epoch)
                if not view.messages:
                    continue
                text = view.text(MESSAGE)
                self.seen += [now] * (len(text) // _WIDTH - len(self.seen))
                self.status = view.message(MESSAGE)["status"]
                if self.status != "open":
                    self.text = text
                    return

    def is_right(self) -> bool:
        """Whether the reader ended with every piece whose push returned, once and in order."""
        whole = "".join(piece(number) for number in range(len(self.began)))
        return (self.status, self.text) == ("completed", whole)

    def longest_silence_s(self) -> float:
        times = [self.began[0], *self.received]
        return max(later - sooner for sooner, later in itertools.pairwise(times))


class Streams:
    """All replies of a test, under way."""

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.replies = replies
        self.enough = asyncio.Event()

    async def all_saw(self, count: int) -> None:
        """Wait until each reader has *count* pieces."""

        async def saw() -> bool:
            return all(len(reply.seen) >= count for reply in self.replies)

        await until(saw)

    async def flow_again(self) -> None:
        """
        Wait until every reader gets what is pushed from now on, and gets it by the short way.

        A reader that receives nothing still looks at the log each second or two: late, but right.
        """
        now = time.monotonic()
        await self.all_saw_what_began_after(now)
        settled = time.monotonic()
        await self.all_saw_what_began_after(settled + _WATCHED_S)
        for reply in self.replies:
            late_ms = median_latency_ms([reply], settled, settled + _WATCHED_S)
            assert late_ms < _SOON_MS, f"{reply.chat_id}: {late_ms:.0f} ms from push to reader"

    async def all_saw_what_began_after(self, moment: float) -> None:
        """Wait until each reader has a piece whose push began after *moment*."""

        async def saw() -> bool:
            return all(
                bool(reply.seen) and reply.began[len(reply.seen) - 1] > moment
                for reply in self.replies
            )

        await until(saw, 30)


@contextlib.asynccontextmanager
async def streaming(
    producer: Producer, subscriber: Subscriber, chats: Iterable[str], pause_s: float
) -> AsyncIterator[Streams]:
    """Stream a reply to each of *chats*; leaving the block ends them, and waits for the readers."""
    streams = Streams([Reply(chat_id) for chat_id in chats])
    tasks = [
        asyncio.create_task(work)
        for reply in streams.replies
        for work in (
            reply.produce(producer, pause_s, streams.enough),
            reply.follow(subscriber),
        )
    ]
    try:
        await streams.all_saw(3)
        yield streams
        streams.enough.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def median_latency_ms(replies: Iterable[Reply], since: float, until_: float) -> float:
    """Median time from push to reader of the pieces pushed in a span of time."""
    return 1000 * statistics.median(
        seen - began
        for reply in replies
        for began, seen in zip(reply.began, reply.seen, strict=False)
        if since <= began < until_
    )
