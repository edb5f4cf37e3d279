"""
What runs in a process of its own: ``python -m bench.roles ROLE URL [CHATS]``.

worker: `riverdelta worker`, as it is. relay: the least that can stand between two channels. gateway:
`riverdelta gateway --dev`. fan-out: the least that can stand between channels and WebSockets.
live-producer: pushes tokens into CHATS chats. bare-producer and bare-relay: the yardstick's.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections import deque
from contextlib import AsyncExitStack
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import uvicorn
from redis.asyncio.connection import Connection
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from bench import bare
from bench.loop import run
from bench.server import pack
from bench.tokens import play
from riverdelta.broker.producer.message import Message
from riverdelta.broker.producer.producer import Producer
from riverdelta.broker.redis.executor import Endpoint
from riverdelta.broker.settings import Settings
from riverdelta.broker.store.keys import Keys
from riverdelta_cli.processes.garbage import collect_less
from riverdelta_gateway.serve import gateway_server
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_workers.jobs import run_worker

HOP_IN: Final = "bench:in"
HOP_OUT: Final = "bench:out"
_TIMEOUT_S: Final = 5.0
_MANY: Final = 1_000_000
_NO_PINGS_S: Final = 3600.0
"""The bench's sockets answer none."""


async def relay(url: str) -> None:
    """Publish on one channel what comes in on the other, for ever."""
    endpoint = Endpoint(url, _TIMEOUT_S)
    incoming, _ = await endpoint.connect()
    outgoing, _ = await endpoint.connect()
    await incoming.send_command("SSUBSCRIBE", HOP_IN)
    await incoming.read_response(disable_decoding=True)
    print("ready", flush=True)
    unread: deque[None] = deque()
    while True:
        _, _, payload = await incoming.read_response(disable_decoding=True)
        write(outgoing, pack(("SPUBLISH", HOP_OUT, payload)))
        unread.append(None)
        if len(unread) > 1:
            # The reply of the publish before, long since there: read without waiting for one.
            await outgoing.read_response(disable_decoding=True)
            unread.popleft()


def write(connection: Connection, packed: bytes) -> None:
    """Write straight to the transport: redis-py's public way waits for a drain."""
    writer = connection._writer  # noqa: SLF001  # see above
    if writer is None:
        raise ConnectionError(str(connection))
    writer.write(packed)


async def gateway(url: str) -> None:
    """Serve WebSockets until killed."""
    options = GatewaySettings(
        dev=True, port=0, max_sockets_per_user=_MANY, ping_interval_s=_NO_PINGS_S
    )
    async with gateway_server(Settings(redis_url=url), options) as running:
        print(running.url, flush=True)
        await asyncio.Event().wait()


async def fan_out(url: str) -> None:
    """
    Send what comes in on a chat's channel to every socket that asked for the chat, as it is.

    The same server library as the gateway's, set up alike; nothing else: no log, no positions, no
    bound, and one slow socket holds up all.
    """
    connection, _ = await Endpoint(url, _TIMEOUT_S).connect()
    readers: dict[bytes, list[WebSocket]] = {}

    async def join(websocket: WebSocket) -> None:
        await websocket.accept()
        chat = await websocket.receive_text()
        channel = Keys().chat(chat).deltas.encode()
        if channel not in readers:
            write(connection, pack(("SSUBSCRIBE", channel)))
        readers.setdefault(channel, []).append(websocket)
        await websocket.send_text("{}")
        await asyncio.Event().wait()

    async def relay_all() -> None:
        while True:
            kind, channel, payload = await connection.read_response(disable_decoding=True)
            if kind == b"smessage":
                text = payload.decode()
                for websocket in readers[channel]:
                    await websocket.send_text(text)

    app = Starlette(routes=[WebSocketRoute("/ws", join)])
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        config = uvicorn.Config(
            app,
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            ws_ping_interval=_NO_PINGS_S,
            access_log=False,
            log_config=None,
            log_level="error",
            lifespan="off",
        )
        serving = asyncio.create_task(uvicorn.Server(config).serve([listener]))
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        async with asyncio.TaskGroup() as group:
            group.create_task(relay_all())
            await serving


# -- the live shape ------------------------------------------------------------------------------


class BareKeys(NamedTuple):
    """The yardstick's streams of one chat, and the channels of the same names."""

    incoming: str
    outgoing: str


def bare_keys(number: int) -> BareKeys:
    """Name the streams of chat *number*; one slot for both, as ours."""
    return BareKeys(f"bare:{{{chat_name(number)}}}:in", f"bare:{{{chat_name(number)}}}:out")


def chat_name(number: int) -> str:
    """Chat id of chat *number*."""
    return f"live-{number:04d}"


async def live_producer(url: str, chats: int) -> None:
    """Push tokens into *chats* chats until killed."""
    async with Producer.from_url(url) as producer, AsyncExitStack() as stack:
        messages: list[Message] = []
        for number in range(chats):
            message = producer.message(chat_name(number), source="openai-chat")
            messages.append(await stack.enter_async_context(message))
        await play(chats, lambda number, raw: messages[number].push(raw))


async def bare_producer(url: str, chats: int) -> None:
    """Store and publish tokens until killed."""
    wire = await bare.connect(_port(url), lambda _: None)
    keys = [bare_keys(number).incoming for number in range(chats)]

    async def send(number: int, raw: bytes) -> None:
        wire.send("XADD", keys[number], "*", "data", raw)
        wire.send("SPUBLISH", keys[number], raw)

    await play(chats, send)


async def bare_relay(url: str, chats: int) -> None:
    """Store and publish, on each chat's second stream, what was published on its first."""
    wire = await bare.connect(_port(url), lambda _: None)
    keys = [bare_keys(number) for number in range(chats)]
    outgoing = {pair.incoming.encode(): pair.outgoing for pair in keys}

    def forward(channel: bytes, raw: bytes) -> None:
        stream = outgoing[channel]
        wire.send("XADD", stream, "*", "data", raw)
        wire.send("SPUBLISH", stream, raw)

    await bare.subscribe(_port(url), [pair.incoming for pair in keys], forward)
    print("ready", flush=True)
    await asyncio.Event().wait()


def _port(url: str) -> int:
    port = urlsplit(url).port
    if port is None:
        raise ValueError(url)
    return port


def main() -> None:
    """Play one role until killed."""
    role, url, *chats = sys.argv[1:]
    collect_less()
    roles = {"relay": relay, "gateway": gateway, "fan-out": fan_out}
    live = {
        "live-producer": live_producer,
        "bare-producer": bare_producer,
        "bare-relay": bare_relay,
    }
    if role == "worker":
        run(run_worker(Settings(redis_url=url)))
    elif role in live:
        run(live[role](url, int(chats[0])))
    else:
        run(roles[role](url))


if __name__ == "__main__":
    main()
