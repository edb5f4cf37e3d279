"""Replies that stream until the test has seen enough, each with a reader that keeps the time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence

from riverdelta import ChatView, Producer, Subscriber
from tests.support.servers import DEADLINE_S, until

MESSAGE = "m"
_WIDTH = 7


def piece(number: int) -> str:
    """A chunk of the replies; all have one length, so that a text's length says how many it has."""
    return f"{number:06d} "


class Reply:
    """
    One chat's reply and its reader.

    Attributes:
        began: When the push of each piece began.
        seen: When the reader had each piece.
        epochs: Of all events, in order of their first.
        text, status: What the reader ended with.
    """

    def __init__(self, chat_id: str) -> None:
        self.chat_id = chat_id
        self.began: list[float] = []
        self.seen: list[float] = []
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


class Streams:
    """
    All replies of a test, under way.

    Waiting ends with the error of the first producer or reader that failed.
    """

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.replies = replies
        self.enough = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []

    def _raise_failed(self) -> None:
        for task in self.tasks:
            if task.done():
                task.result()

    async def all_saw(self, count: int) -> None:
        """Wait until each reader has *count* pieces."""

        async def saw() -> bool:
            self._raise_failed()
            return all(len(reply.seen) >= count for reply in self.replies)

        await until(saw)

    async def flow_again(self) -> None:
        """Wait until every reader gets what is pushed from now on."""
        await self.all_saw_what_began_after(time.monotonic())

    async def all_saw_what_began_after(
        self, moment: float, chats: Collection[str] | None = None
    ) -> None:
        """Wait until each reader, or those of *chats*, has a piece whose push began after *moment*."""

        async def saw() -> bool:
            self._raise_failed()
            return all(
                bool(reply.seen) and reply.began[len(reply.seen) - 1] > moment
                for reply in self.replies
                if chats is None or reply.chat_id in chats
            )

        await until(saw)


@contextlib.asynccontextmanager
async def streaming(
    producer: Producer, subscriber: Subscriber, chats: Iterable[str], pause_s: float
) -> AsyncIterator[Streams]:
    """Stream a reply to each of *chats*; leaving the block ends them, and waits for the readers."""
    streams = Streams([Reply(chat_id) for chat_id in chats])
    tasks = streams.tasks = [
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
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
