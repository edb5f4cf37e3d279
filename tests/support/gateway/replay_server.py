"""A provider that is not there: answers API calls with recordings, as server-sent events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
)
_TITLE: dict[str, list[dict[str, Any]]] = {
    "openai-chat": [
        {
            "id": "t",
            "object": "chat.completion.chunk",
            "choices": [{"index": 0, "delta": {"content": text}}],
        }
        for text in ("Rivers ", "and seas")
    ],
    "anthropic": [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in ("Rivers ", "and seas")
    ],
    "gemini": [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}}]}
        for text in ("Rivers ", "and seas")
    ],
}


def instruction(request: dict[str, Any]) -> str:
    """Find the first instruction to the model in the body of a call, whatever the API."""
    if "contents" in request:
        return "".join(part["text"] for part in request["systemInstruction"]["parts"])
    if "system" in request:
        return str(request["system"])
    return "".join(m["content"] for m in request["messages"] if m["role"] == "system")


def said_in(request: dict[str, Any]) -> list[tuple[str, str]]:
    """List what was said in the body of a call: who, and the text."""
    if "contents" in request:
        roles = {"user": "user", "model": "assistant"}
        return [(roles[c["role"]], c["parts"][0]["text"]) for c in request["contents"]]
    return [(m["role"], m["content"]) for m in request["messages"] if m["role"] != "system"]


class Provider:
    """
    What the server answers, and what it was asked.

    Attributes:
        requests: Bodies of the calls, in order.
        paths: Their paths, in lower case.
        status: Unless 200, the answer to every call.
        cut_off: Close the connection in the middle of a frame, after this many lines.
        hang: Say nothing more after the recording, and keep the connection.
        gone: Calls whose client hung up.
    """

    def __init__(self, source: str, lines: Sequence[bytes]) -> None:
        self.source = source
        self.lines = lines
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.status = 200
        self.cut_off: int | None = None
        self.hang = False
        self.gone = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        request = json.loads(await reader.readexactly(length))
        self.requests.append(request)
        self.paths.append(head.split()[1])
        if self.status != 200:
            body = b'{"error": {"message": "secret 123", "type": "x"}}'
            writer.write(
                b"HTTP/1.1 %d No\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (self.status, len(body), body)
            )
            return
        writer.write(_HEAD)
        is_title = "title" in instruction(request)
        lines = (
            [json.dumps(line).encode() for line in _TITLE[self.source]] if is_title else self.lines
        )
        for line in lines[: self.cut_off]:
            name = b""
            if self.source == "anthropic":
                name = b"event: %b\n" % json.loads(line)["type"].encode()
            writer.write(_chunked(b"%bdata: %b\n\n" % (name, line)))
        if self.cut_off is not None and not is_title:
            writer.write(_chunked(b'data: {"half'))
            await writer.drain()
            writer.transport.abort()
            return
        if self.hang and not is_title:
            await reader.read()
            self.gone += 1
            return
        if self.source == "openai-chat":
            writer.write(_chunked(b"data: [DONE]\n\n"))
        writer.write(_chunked(b""))
        await writer.drain()


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.asynccontextmanager
async def provider(source: str, lines: Sequence[bytes]) -> AsyncIterator[Provider]:
    """Serve *lines* on a port of loopback."""
    answers = Provider(source, lines)
    server = await asyncio.start_server(answers.serve, "127.0.0.1", 0)
    answers.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield answers
    finally:
        server.close()
        await server.wait_closed()
