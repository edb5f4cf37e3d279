"""
One reply from a chat backend to a reader, with nothing but the base install.

Run with the URL of a server that a worker is attached to; exits 0 when the reader has the text.
"""

import asyncio
import sys

from riverdelta import Producer, Subscriber

CHAT = "packaging-1"
WORDS = ["Streams ", "in, ", "deltas ", "out."]
DEADLINE_S = 30


async def produce(url: str) -> None:
    async with (
        Producer.from_url(url) as producer,
        producer.message(CHAT, source="text") as message,
    ):
        for word in WORDS:
            await message.push(word)


async def read(url: str) -> str:
    text = ""
    async with Subscriber.from_url(url) as subscriber:
        async for event in subscriber.events(CHAT, after=None):
            if event.type == "snapshot":
                (message,) = event.data["messages"]
                text = "".join(chunk["text"] for chunk in message["chunks"])
                if message["status"] == "completed":
                    break
            elif event.type == "chunk.delta":
                text += event.data["text"]
            elif event.type == "message.completed":
                break
    return text


async def main(url: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await produce(url)
        text = await read(url)
    assert text == "".join(WORDS), text


asyncio.run(main(sys.argv[1]))
