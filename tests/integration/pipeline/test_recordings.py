"""Every recording through the whole pipeline, against what the provider's own SDK assembles."""

import asyncio
import re
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json

from riverdelta import Event, Producer, Settings, Subscriber, apply_patches
from tests.support.core.assembled import Assembled, differences
from tests.support.core.codec_tools import lines_of, recordings
from tests.support.core.sdk_oracle import SOURCES, assemble
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import worker_processes


def steps_of(events: list[Event]) -> list[Assembled]:
    """Fold the events of one message into what each step said, as the SDK oracle puts it."""
    steps: list[Assembled] = []
    chunks: dict[str | None, tuple[Event, list[str]]] = {}
    for event in events:
        data = event.data
        if event.type == "step.started":
            steps.append(Assembled())
            chunks = {}
        elif event.type == "chunk.started":
            chunks[event.chunk] = (event, [])
        elif event.type == "chunk.delta":
            assert data["offset"] == len("".join(chunks[event.chunk][1]))
            chunks[event.chunk][1].append(data["text"])
        elif event.type == "step.completed":
            _add(steps[-1], chunks)
            steps[-1].usage = None if data["usage"] is None else data["usage"]["raw"]
            steps[-1].finish = data["raw_finish_reason"]
        elif event.type == "step.failed":
            _add(steps[-1], chunks)
            steps[-1].error = data["code"]
    return steps


def _add(step: Assembled, chunks: dict[str | None, tuple[Event, list[str]]]) -> None:
    for start, texts in chunks.values():
        kind, text = start.data["kind"], "".join(texts)
        if kind == "tool_call":
            step.tool_calls.append((start.data["tool_call_id"], start.data["tool_name"], text))
        elif kind in ("text", "reasoning", "refusal"):
            setattr(step, kind, getattr(step, kind) + text)


def check_patches(events: list[Event]) -> None:
    """The patches of each chunk rebuild the JSON in its text: of a failed one, as far as it came."""
    view, documents = view_of(events), dict[str, Any]()
    for event in events:
        if event.type == "chunk.patch":
            known = documents.get(event.chunk or "")
            documents[event.chunk or ""] = apply_patches(known, event.data["patches"])
    no_json = {event.chunk for event in events if event.type == "processor.failed"}
    for chunk in view.messages[0]["chunks"]:
        if chunk["format"] == "json" and chunk["chunk"] not in no_json:
            cut = chunk["status"] == "failed"
            whole = from_json(chunk["text"], allow_partial="trailing-strings" if cut else False)
            assert documents[chunk["chunk"]] == whole


async def push_all(producer: Producer, chat_id: str, source: str, raws: list[bytes]) -> None:
    async with producer.message(chat_id, source=source) as message:
        for raw in raws:
            await message.push(raw)


async def test_every_recording_is_what_the_sdk_assembles(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    paths = recordings(*SOURCES)
    assert len(paths) >= 25
    async with worker_processes(settings, 2):
        await asyncio.gather(
            *(_check(producer, subscriber, f"r{i}", path) for i, path in enumerate(paths))
        )


async def _check(producer: Producer, subscriber: Subscriber, chat_id: str, path: Path) -> None:
    source, raws = path.parent.name, lines_of(path)
    reading = asyncio.create_task(read_until_ends(subscriber, chat_id, after=BEGINNING))
    await push_all(producer, chat_id, source, raws)
    events = await reading
    theirs, ours = assemble(source, raws), steps_of(events)
    assert len(ours) == len(theirs), path
    for mine, truth in zip(ours, theirs, strict=True):
        assert differences(mine, truth) == [], path
    check_patches(events)
    failed = theirs[-1].error is not None
    assert events[-1].type == ("message.failed" if failed else "message.completed"), path
    assert view_of(events).messages == (await subscriber.snapshot(chat_id)).data["messages"]


def some_cuts(framed: bytes) -> list[int]:
    """Every byte around the first three frame ends, and forty spread over the rest."""
    ends = [match.end() for match in islice(re.finditer(rb"\r\n\r\n", framed), 3)]
    near = {end + by for end in ends for by in range(-5, 8)}
    return sorted(near | set(range(0, len(framed) + 1, len(framed) // 40)))


@pytest.mark.parametrize("source", SOURCES)
async def test_sse_bytes_cut_anywhere(
    source: str, settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    """One message a cut; the two parts go out in two pushes. Codec tests cut at every byte."""
    path = next(path for path in recordings(source) if path.stem == "text")
    lines = lines_of(path)
    framed = b": hello\r\n\r\n" + b"".join(b"data: " + line + b"\r\n\r\n" for line in lines)
    truth = assemble(source, lines)

    async def cut_at(cut: int) -> None:
        chat_id = f"s{cut}"
        reading = asyncio.create_task(read_until_ends(subscriber, chat_id, after=BEGINNING))
        await push_all(producer, chat_id, f"{source}+sse", [framed[:cut], framed[cut:]])
        for mine, theirs in zip(steps_of(await reading), truth, strict=True):
            assert differences(mine, theirs) == []

    async with worker_processes(settings, 2):
        await asyncio.gather(*(cut_at(cut) for cut in some_cuts(framed)))


@pytest.mark.parametrize("source", SOURCES)
async def test_sse_one_byte_a_push(
    source: str, settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    path = next(path for path in recordings(source) if path.stem == "surrogates")
    lines = lines_of(path)
    framed = b"".join(b"data:" + line + b"\n\n" for line in lines)
    bounds = [*range(len(framed)), len(framed)]
    async with worker_processes(settings, 1):
        reading = asyncio.create_task(read_until_ends(subscriber, "bytes", after=BEGINNING))
        pieces = [framed[a:b] for a, b in pairwise(bounds)]
        async with producer.message("bytes", source=f"{source}+sse") as message:
            for i in range(0, len(pieces), 50):
                await message.push_many(pieces[i : i + 50])
        events = await reading
    for mine, theirs in zip(steps_of(events), assemble(source, lines), strict=True):
        assert differences(mine, theirs) == []
