"""A worker and a reader of one chat, on a Redis in plain Python."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

import orjson

from riverdelta.broker.redis.wire import Arg
from riverdelta.broker.store import scripts
from riverdelta.broker.store.keys import ChatKeys, Keys
from riverdelta.broker.store.load import load
from riverdelta.broker.store.save import HotChat, LogLimits
from riverdelta.broker.store.snapshot import read_snapshot
from riverdelta.core.events import END_TYPES, Event
from riverdelta.core.json_stream import apply_patches
from riverdelta.core.outputs import reduce_output
from riverdelta.core.state import Entry
from riverdelta.core.view import ChatView
from riverdelta.pipeline import Pipeline
from tests.support.core.fold_tools import NOW_MS, VALIDATOR
from tests.support.core.hash_store import HashStore
from tests.support.core.stories import MALFORMED, PLANTED, Story

LOG = LogLimits(10_000, 1 << 24)
KEYS = Keys("rd").chat("c")


_seen: set[str] = set()


def validate(raw: bytes) -> None:
    """Check an event against the published schema; one that is like another is checked once."""
    document = orjson.loads(raw)
    shape = repr(_shape("", document))
    if shape not in _seen:
        VALIDATOR.validate(document)
        _seen.add(shape)


def _shape(name: str, value: Any) -> Any:
    match value:
        case dict():
            return {key: _shape(key, inner) for key, inner in value.items()}
        case list():
            return sorted({repr(_shape(name, inner)) for inner in value})
        case str() if name in _WORDS:
            return value
    return type(value).__name__


_WORDS = frozenset({"type", "kind", "format", "status", "finish_reason", "reason"})
"""Fields of which the schema says which texts they may have."""


class Owner:
    """A worker with one chat, and a reader who looks at all that it commits."""

    def __init__(self, pipeline: Pipeline, keys: ChatKeys = KEYS) -> None:
        self.keys = keys
        self.store = HashStore(keys)
        self.commits: list[tuple[list[str], list[Arg]]] = []
        self.pipeline = pipeline
        self.reader = Reader()
        self.hot: HotChat | None = None

    async def take(self, batch: list[Entry], story: Story) -> None:
        """Fold and commit a batch, as `riverdelta_workers.poison` does."""
        hot = self.hot or await self._load()
        if batch[0].number in story.poison:
            assert len(batch) == 1
            changes = hot.fold.reject(batch[0], "fold_error", "it broke", NOW_MS)
            keys, args = hot.encode(changes, log=LOG, now_ms=NOW_MS, trim=True)
        else:
            try:
                keys, args = self._fold(hot, batch, story)
            except (LookupError, TypeError, ValueError):
                self.hot = None
                broken = [entry for entry in batch if is_malformed(entry)]
                assert broken, "an entry that is in order broke the fold"
                story.poison |= {entry.number for entry in broken}
                for part in batches_of(batch, story.poison, largest=1):
                    await self.take(part, story)
                return
        self.commits.append((keys, args))
        version = await scripts.commit(self.store, keys, args)
        assert isinstance(version, int)
        hot.committed(version)
        self.hot = hot
        self.reader.read(self.store.log)

    def _fold(self, hot: HotChat, batch: list[Entry], story: Story) -> tuple[list[str], list[Arg]]:
        filter_results = {
            e.number: story.filter_results[e.number]
            for e in batch
            if e.number in story.filter_results
        }
        changes = hot.fold.apply(batch, NOW_MS, filter_results)
        return hot.encode(changes, log=LOG, now_ms=NOW_MS, trim=True)

    async def _load(self) -> HotChat:
        loaded = await load(
            self.store, self.keys, "c", log_max_bytes=LOG.bytes, pipeline=self.pipeline
        )
        assert loaded is not None
        return loaded[1]

    async def check(self) -> None:
        """A snapshot is what a reader has who was there from the beginning."""
        snapshot = await read_snapshot(self.store, self.keys, "c", NOW_MS)
        assert snapshot.data["messages"] == self.reader.view.messages
        if self.pipeline.stream_filter is not None and not self.reader.upgraded:
            has_no_secret(snapshot.raw)


class _Chunk(NamedTuple):
    """What a reader has put together of a chunk beside its text."""

    document: list[Any]
    errors: list[str]
    outputs: list[dict[str, Any]]


class Reader:
    """Reads events as they come, and believes nothing."""

    def __init__(self) -> None:
        self.view = ChatView()
        self.events: list[Event] = []
        self._chunks: dict[str, _Chunk] = {}
        self._open: dict[str, str] = {}
        self._ended: set[str] = set()
        self.upgraded = False
        """Some of it was said by other pipelines: not all of them hid secrets."""

    def read(self, log: list[bytes]) -> None:
        """Take what is new on the log."""
        for raw in log[len(self.events) :]:
            event = Event(raw)
            validate(raw)
            assert event.seq == len(self.events) + 1
            self._judge(event)
            self.events.append(event)
            self.view.apply(event)

    def _judge(self, event: Event) -> None:
        type_, message, chunk = event.type, event.message or "", event.chunk
        if type_ not in ("input.rejected", "message.started"):
            assert message not in self._ended, type_
        if type_ in END_TYPES:
            self._ended.add(message)
            mine = [cid for cid in self._open if cid.rpartition(".")[0] == message]
            assert not mine, "a message ended before its chunks"
        if chunk is not None:
            self._judge_chunk(event, chunk)

    def _judge_chunk(self, event: Event, cid: str) -> None:
        type_, data = event.type, event.data
        if type_ == "chunk.started":
            assert cid not in self._chunks
            self._open[cid] = ""
            self._chunks[cid] = _Chunk([None], [], [])
            return
        parts = self._chunks[cid]
        if type_ == "chunk.reset":
            parts.document[0] = None
            parts.errors.clear()
            parts.outputs.clear()
            if cid in self._open:
                self._open[cid] = ""
        elif type_ == "chunk.output":
            parts.outputs.append(data["output"])
        elif type_ == "processor.failed":
            parts.errors.append(data["processor"])
        else:
            assert cid in self._open, f"{type_} behind the end of its chunk"
        if type_ == "chunk.delta":
            assert data["offset"] == len(self._open[cid])
            assert data["text"]
            self._open[cid] += data["text"]
        elif type_ == "chunk.patch":
            parts.document[0] = apply_patches(parts.document[0], data["patches"])
        elif type_ in ("chunk.completed", "chunk.failed"):
            self._end(cid, type_, data)

    def _end(self, cid: str, type_: str, data: dict[str, Any]) -> None:
        text, parts = self._open.pop(cid), self._chunks[cid]
        if type_ == "chunk.failed":
            return
        assert data["length"] == len(text)
        if parts.outputs and parts.outputs[-1].get("status") in ("completed", "failed"):
            (card,) = self._outputs(cid)
            assert card == reduce_output(None, parts.outputs[-1])
        if parts.document[0] is not None and "json" not in parts.errors:
            assert parts.document[0] == json.loads(text)

    def _outputs(self, cid: str) -> list[dict[str, Any]]:
        (message,) = [m for m in self.view.messages if cid.rpartition(".")[0] == m["message"]]
        (chunk,) = [c for c in message["chunks"] if c["chunk"] == cid]
        return list(chunk["outputs"].values())


def has_no_secret(shown: bytes) -> None:
    """Fail if a secret can be read."""
    for name, secret in PLANTED.items():
        assert orjson.dumps(secret)[1:-1] not in shown, name


def is_malformed(entry: Entry) -> bool:
    """Whether this is one of the control entries that no producer of ours sends."""
    return entry.data in MALFORMED


def batches_of(
    entries: list[Entry], poison: set[int], chance: random.Random | None = None, *, largest: int
) -> list[list[Entry]]:
    """Cut entries anywhere; what is passed over stands by itself."""
    batches: list[list[Entry]] = []
    size = 0
    for entry in entries:
        alone = entry.number in poison
        if size == 0 or alone or batches[-1][0].number in poison:
            batches.append([])
            size = 1 if chance is None else chance.randint(1, largest)
        batches[-1].append(entry)
        size -= 1
    return batches
