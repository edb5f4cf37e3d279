"""The Python of README and docs/ that needs a server, run unchanged."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from riverdelta import Producer, Settings, Subscriber
from tests.support.documents import code_with
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import until, worker_processes


async def fake_stream() -> AsyncIterator[dict[str, Any]]:
    for text in ("Hello", " world"):
        delta = {"role": "assistant", "content": text}
        yield {"id": "1", "model": "m", "choices": [{"index": 0, "delta": delta}]}
    yield {"id": "1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


async def test_the_example_of_the_readme(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RIVERDELTA_KEY_PREFIX", settings.key_prefix)
    code = code_with("async def reply(")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)  # noqa: S102  # that is the test
    async with local_workers(settings), Subscriber(settings) as subscriber, asyncio.timeout(20):
        following = asyncio.create_task(names["follow"](settings.redis_url))

        async def followed() -> bool:
            return "snapshot" in capsys.readouterr().out

        await until(followed)
        await names["reply"](settings.redis_url, fake_stream())
        await following
        view = view_of(await read_until_ends(subscriber, "chat-1"))
    assert "message.completed" in capsys.readouterr().out
    assert view.text(view.messages[0]["message"]) == "Hello world"


async def test_the_retried_call_of_the_docs(settings: Settings, subscriber: Subscriber) -> None:
    names: dict[str, Any] = {}
    exec(compile(code_with("message.restart()"), "producing.md", "exec"), names)  # noqa: S102  # as above
    calls = 0

    async def broken_stream() -> AsyncIterator[str]:
        yield "Hello, dear "
        raise ConnectionError

    async def whole_stream() -> AsyncIterator[str]:
        for text in ("Hello, ", "dear ", "world"):
            yield text

    async def call_provider() -> AsyncIterator[str]:
        nonlocal calls
        calls += 1
        return broken_stream() if calls < 3 else whole_stream()

    async with local_workers(settings), Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await names["reply_with_retry"](message, call_provider)
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert calls == 3
    assert "".join(e.data["text"] for e in events if e.type == "chunk.delta") == "Hello, dear world"
    assert "chunk.reset" not in {event.type for event in events}


async def test_the_pipeline_of_the_docs(
    settings: Settings, subscriber: Subscriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a worker process, as docs/pipeline.md describes: a file on PYTHONPATH, and the variable."""
    (tmp_path / "pipeline.py").write_text(code_with("def build("))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    own = settings.model_copy(update={"pipeline": "pipeline:build", "redact": True})
    call = {"chunk": "t", "kind": "tool_call", "tool_name": "place_order", "tool_call_id": "call-1"}
    async with worker_processes(own), Producer(settings) as producer:
        async with producer.message("c", source="chunks", message_id="m") as message:
            for text in ("Write — if", " you like — to eva@exam", "ple.com", ""):
                await message.push({"chunk": "a", "kind": "text", "text": text, "done": not text})
            for text in ('{"item": "Te', 'a — green"}', ""):
                await message.push(call | {"text": text, "done": not text})
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
        stored = await subscriber.snapshot("c")
    for view in (view_of(events), view_of([stored])):
        reply, order = view.messages[0]["chunks"]
        assert reply["text"] == "Write - if you like - to [email]"
        assert order["outputs"] == {"order": {"id": "call-1", "title": "Tea - green"}}


async def test_the_view_of_the_docs(settings: Settings, subscriber: Subscriber) -> None:
    names: dict[str, Any] = {}
    exec(compile(code_with("def last_reply("), "reading.md", "exec"), names)  # noqa: S102  # as above
    async with local_workers(settings), Producer(settings) as producer:
        async with producer.message("c", source="text") as message:
            await message.push("Hello ")
            await message.push("world")
        async with asyncio.timeout(20):
            assert await names["last_reply"](subscriber, "c") == "Hello world"
