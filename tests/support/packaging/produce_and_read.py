"""
One reply from a chat backend to a reader, with nothing but the base install.

Run with the URL of a server that a worker is attached to; exits 0 when the reader has the text.
"""

import asyncio
import sys

import redis

from riverdelta import ChatView, Producer, Subscriber

CHAT = "packaging-1"
WORDS = ["Streams ", "in, ", "deltas ", "out."]
DEADLINE_S = 120


async def produce(url: str) -> None:
    async with (
        Producer.from_url(url) as producer,
        producer.message(CHAT, source="text") as message,
    ):
        for word in WORDS:
            await message.push(word)


async def read(url: str) -> str:
    view = ChatView()
    async with Subscriber.from_url(url) as subscriber:
        async for event in subscriber.events(CHAT, after=None):
            view.apply(event)
            if any(message["status"] == "completed" for message in view.messages):
                break
    return view.text(view.messages[0]["message"])


async def main(url: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        text, _ = await asyncio.gather(read(url), produce(url))
    assert text == "".join(WORDS), text
    assert redis.__version__.startswith("8."), redis.__version__


asyncio.run(main(sys.argv[1]))
