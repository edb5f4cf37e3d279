"""Many WebSockets in one process, at little cost, so that the client is never the bottleneck."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from websockets.frames import Frame, Opcode

_SENT_AT: Final = re.compile(rb'"text":"(\d+)')
_SEQ: Final = re.compile(rb'"seq":(\d+)')
_HANDSHAKE: Final = (
    "GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)


class Reader(asyncio.Protocol):
    """
    One socket of one chat: takes deltas whose text begins with the nanosecond they were sent at.

    Attributes:
        ready: Set when the server has answered the first request.
        delays_us: From publish to here, one a delta.
    """

    def __init__(self, host: str, first_frame: bytes) -> None:
        self.ready = asyncio.Event()
        self.delays_us: list[float] = []
        self._seq = 0
        self._buffer = bytearray()
        self._shaken = False
        self._first_frame = first_frame
        self._host = host

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]  # TCP's
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(_HANDSHAKE.format(host=self._host, key=key).encode())

    def data_received(self, data: bytes) -> None:
        """Take what has come; whole frames only."""
        now_ns = time.perf_counter_ns()
        self._buffer += data
        if not self._shaken:
            _, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
            if not found:
                return
            self._shaken = True
            self._buffer = bytearray(rest)
            frame = Frame(Opcode.TEXT, self._first_frame).serialize(mask=True)
            self._transport.write(frame)
        while (end := _frame_end(self._buffer)) is not None:
            self._take(bytes(self._buffer[:end]), now_ns)
            del self._buffer[:end]

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _take(self, frame: bytes, now_ns: int) -> None:
        sent_at = _SENT_AT.search(frame)
        if sent_at is None:
            self.ready.set()
            return
        self.delays_us.append((now_ns - int(sent_at[1])) / 1000)
        found = _SEQ.search(frame)
        seq = int(found[1]) if found else -1
        if self._seq and seq != self._seq + 1:
            raise AssertionError(f"delta {seq} after {self._seq}")
        self._seq = seq


def _frame_end(buffer: bytearray) -> int | None:
    """Where the first frame of a server ends; None: it is not all there."""
    if len(buffer) < 2:
        return None
    length, header = buffer[1], 2
    if length == 126:
        length, header = int.from_bytes(buffer[2:4]), 4
    elif length == 127:
        length, header = int.from_bytes(buffer[2:10]), 10
    return header + length if len(buffer) >= max(header, 2) + length else None


async def connect(url: str, chats: list[str], first_frame: Callable[[str], bytes]) -> list[Reader]:
    """Open a socket for each of *chats*; each is ready."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    readers = []
    for chat in chats:
        frame = first_frame(chat)
        _, reader = await loop.create_connection(
            lambda frame=frame: Reader(address.netloc, frame),  # type: ignore[misc]  # a default binds
            address.hostname or "",
            address.port or 0,
        )
        await asyncio.wait_for(reader.ready.wait(), 30)
        readers.append(reader)
    return readers


def subscription(chat: str) -> bytes:
    """Encode the frame with which a client follows a chat from the beginning of its log."""
    payload = {"chat_id": chat, "after": "00000000:0"}
    return json.dumps({"route": "/chats/subscribe", "payload": payload}).encode()
