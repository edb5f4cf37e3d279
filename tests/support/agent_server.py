"""An HTTP server that plays a filter agent, and the usual ways it answers."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Self

from riverdelta.broker.filter_agents import HttpAgent


class Request(NamedTuple):
    line: str
    headers: dict[str, str]
    body: bytes


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


class AgentServer:
    """An HTTP server written by hand, so that it can also answer what no HTTP server would."""

    def __init__(self, handler: Handler) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._handler = handler
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/filter"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(EOFError, OSError):
            while not writer.is_closing():
                line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
                pairs = (header.split(": ", 1) for header in rest if header)
                headers = {name.lower(): value for name, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
                request = Request(line, headers, body)
                self.requests.append(request)
                await self._handler(request, writer)
                await writer.drain()


def answer(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def saying(*parts: bytes, close: bool = False, pause_s: float = 0.0) -> Handler:
    async def handle(_: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if close:
            writer.close()

    return handle


async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(request.body))


async def upper(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(request.body.upper()))


async def hang(request: Request, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
    """Keep every single read short: only a limit for the whole answer ends this."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n")
    for _ in range(10_000):
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


def adding(text: bytes) -> Handler:
    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(request.body + text))

    return handle


def agent(url: str, **options: object) -> HttpAgent:
    return HttpAgent.model_validate({"name": "agent", "url": url, **options})
