"""Cut input into raw chunks: lines, or bytes as they come. Live: a whole chunk is passed on at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Final

from riverdelta import ChunkTooLarge
from riverdelta_cli.errors import CliError

_READ_BYTES: Final = 64 * 1024
_SSE_READ_BYTES: Final = 1024
"""Small, so that frames are cut anywhere, as a network cuts them."""
_STDIN: Final = 0
_QUEUED_READS: Final = 4
_BATCH_CHUNKS: Final = 64


class LineCutter:
    """
    Cut bytes into lines; pure.

    Args:
        keep_newline: A line's own newline belongs to its chunk (increments of plain text).
        skip_blank: Skip lines that have only white space (JSON).
        max_bytes: Longest chunk.
    """

    def __init__(self, *, keep_newline: bool, skip_blank: bool, max_bytes: int) -> None:
        self._keep_newline = keep_newline
        self._skip_blank = skip_blank
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._number = 1
        self.numbers: deque[int] = deque()
        """Line numbers of the chunks that were returned, from 1; the user of a number removes it."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Return the lines that *data* completes.

        Raises:
            ChunkTooLarge: A line is over the limit, known before its end is; what came before it
                was given.
        """
        for line in data.splitlines(keepends=True) if b"\r" not in data else _lines(data):
            self._parts.append(line)
            self._size += len(line)
            if line.endswith(b"\n"):
                yield from self._take()
            elif self._size > self._max_bytes:
                self._refuse()

    def close(self) -> Iterator[bytes]:
        """Return the rest: a last line without a newline."""
        if self._size:
            yield from self._take()

    def _take(self) -> Iterator[bytes]:
        line = b"".join(self._parts)
        self._parts, self._size = [], 0
        if not self._keep_newline:
            line = line.removesuffix(b"\n").removesuffix(b"\r")
        if len(line) > self._max_bytes:
            self._refuse()
        self._number += 1
        if line.strip() or not self._skip_blank:
            self.numbers.append(self._number - 1)
            yield line

    def _refuse(self) -> None:
        message = (
            f"line {self._number} is longer than max_chunk_bytes ({self._max_bytes}): "
            "split it, or raise RIVERDELTA_MAX_CHUNK_BYTES"
        )
        raise ChunkTooLarge(message)


def _lines(data: bytes) -> Iterator[bytes]:
    """Cut at newlines only: a lone carriage return is text."""
    start = 0
    while (end := data.find(b"\n", start) + 1) > 0:
        yield data[start:end]
        start = end
    if start < len(data):
        yield data[start:]


def cutter_for(source: str, mode: str | None, max_bytes: int) -> LineCutter | None:
    """Choose how to cut input of *source*; None: pass bytes on as they come."""
    if source.endswith("+sse"):
        return None
    # Of texts that repeat all so far, not each can end with a newline of the file.
    snapshots = mode == "snapshot" or (mode is None and source == "text-snapshot")
    is_text = source.startswith("text")
    return LineCutter(
        keep_newline=is_text and not snapshots, skip_blank=not is_text, max_bytes=max_bytes
    )


def open_input(name: str) -> int:
    """
    Open FILE, or stdin for ``-``, and return its descriptor.

    Raises:
        CliError: It cannot be read; the text says why.
    """
    if name == "-" and sys.stdin is None:
        raise CliError("cannot read stdin: it is closed")
    try:
        descriptor = os.dup(_STDIN) if name == "-" else os.open(Path(name), os.O_RDONLY)
    except OSError as error:
        raise CliError(f"cannot read {name}: {error.strerror}") from error
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CliError(f"cannot read {name}: it is a directory")
    return descriptor


async def batches(descriptor: int, cutter: LineCutter | None) -> AsyncGenerator[list[bytes], None]:
    """
    Read to the end; yields lists of raw chunks as soon as there is one.

    Raises:
        ChunkTooLarge: See `LineCutter.feed`; the chunks before that one were given.
        CliError: Reading failed.
    """
    reads = _reads(descriptor, _READ_BYTES if cutter else _SSE_READ_BYTES)
    async with contextlib.aclosing(reads):
        async for data in reads:
            if cutter is None:
                yield [data]
                continue
            for batch in _in_batches(cutter.feed(data)):
                yield batch
    if cutter is not None:
        for batch in _in_batches(cutter.close()):
            yield batch


def _in_batches(chunks: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    try:
        for chunk in chunks:
            batch.append(chunk)
            if len(batch) == _BATCH_CHUNKS:
                yield batch
                batch = []
    except ChunkTooLarge:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


async def _reads(descriptor: int, size: int) -> AsyncGenerator[bytes, None]:
    """
    Read in a separate thread: files and terminals cannot be awaited.

    The thread is a daemon, and reads the descriptor itself: waiting for a silent stdin must not keep
    the process alive.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue(_QUEUED_READS)
    closed = threading.Event()

    def put(item: bytes | OSError) -> None:
        placing = queue.put(item)
        try:
            placed = asyncio.run_coroutine_threadsafe(placing, loop)
        except RuntimeError:
            placing.close()
            raise
        while not closed.is_set():
            with contextlib.suppress(FutureTimeoutError):
                placed.result(timeout=0.2)
                return

    def read() -> None:
        with contextlib.suppress(CancelledError, RuntimeError):  # the loop is gone
            while not closed.is_set():
                try:
                    data = os.read(descriptor, size)
                except OSError as error:
                    put(error)
                    return
                put(data)
                if not data:
                    return

    threading.Thread(target=read, name="riverdelta-input", daemon=True).start()
    try:
        while item := await queue.get():
            if isinstance(item, OSError):
                raise CliError(f"cannot read the input: {item.strerror}") from item
            yield item
    finally:
        closed.set()
