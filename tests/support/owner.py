"""A worker's ownership of one chat on a real server, one step at a time."""

from typing import Any

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta.broker.store.load import load
from riverdelta.broker.store.save import (
    HotChat,
    LogLimits,
    _message_fields,
    _retried_chunk,
)
from riverdelta.broker.store.scripts import PushLimits
from riverdelta.broker.store.snapshot import read_snapshot
from riverdelta.core.events import Event
from riverdelta.core.outgoing import NewEntry
from riverdelta.core.state import ChunkState, Entry, MessageState
from riverdelta.pipeline import Pipeline
from tests.support.core.fold_tools import chunk, control, start
from tests.support.reading import view_of

LOG = LogLimits(10_000, 1 << 24)
NOW_MS = 1_763_600_000_123


class Owner:
    """A worker's ownership of one chat, one step at a time."""

    def __init__(self, client: Client, chat_id: str, pipeline: Pipeline | None = None) -> None:
        self.client, self.chat_id = client, chat_id
        self.pipeline = pipeline or Pipeline()
        self.keys = client.keys.chat(chat_id)
        self.number = 0

    async def push(self, steps: list[tuple[str, bytes]], message_id: str = "m") -> list[Entry]:
        entries = []
        for n, (kind, data) in enumerate(steps, start=1):
            self.number += 1
            at_ms = 0 if n == 1 else 10 * n
            if n == 1:
                await scripts.open_message(
                    self.client.chats,
                    self.keys,
                    producer="p",
                    message_id=message_id,
                    opener="o",
                    start=data,
                )
            else:
                await scripts.push(
                    self.client.chats,
                    self.keys,
                    producer="p",
                    message_id=message_id,
                    message_seq=n,
                    entries=[NewEntry(kind, at_ms, data)],
                    limits=PushLimits(10_000, 1 << 30),
                )
            entries.append(Entry(self.number, message_id, kind, at_ms, data))
        return entries

    async def claim(self, term: int = 0) -> None:
        assert await scripts.claim(
            self.client.chats, self.keys, worker_id="w", term_seen=term, new_epoch="e1"
        )

    async def load(self) -> HotChat:
        loaded = await load(
            self.client.chats,
            self.keys,
            self.chat_id,
            log_max_bytes=LOG.bytes,
            pipeline=self.pipeline,
        )
        assert loaded is not None
        return loaded[1]

    async def commit(self, hot: HotChat, entries: list[Entry]) -> list[Event]:
        changes = hot.fold.apply(entries, NOW_MS)
        keys, args = hot.encode(changes, log=LOG, now_ms=NOW_MS, trim=True)
        version = await scripts.commit(self.client.chats, keys, args)
        assert isinstance(version, int)
        hot.committed(version)
        return [Event(raw) for raw in changes.events]


def picture(hot: HotChat) -> Any:
    """Everything of the state that can be compared."""
    state = hot.state
    messages = {
        mid: (
            _message_fields(message),
            {
                key: (
                    c.id,
                    c.kind,
                    c.format,
                    c.tool_name,
                    c.tool_call_id,
                    c.processor,
                    c.section,
                    c.track.mode,
                    c.track.complete,
                    c.track.last,
                    c.segment,
                    c.segment_length,
                    c.processor_failed,
                    c.card,
                    None if c.parser is None else (c.parser.value, c.parser.processor_type),
                    c.status,
                    c.text,
                    None if c.retried is None else _retried_chunk(c.retried),
                )
                for key, c in _live(message)
            },
            [(key, c.id, c.kind, c.status, c.text, c.segment) for key, c in message.closed],
        )
        for mid, message in state.messages.items()
    }
    log = (state.log.first_seq, state.log.half_seq, state.log.half_bytes)
    # Cards of calls whose result may still come are kept for whoever completes them.
    cards = {mid: message.cards for mid, message in state.messages.items()}
    head = (state.epoch, state.seq, state.version, state.processed, state.processed_bytes)
    return head, log, state.recent, messages, cards


def _live(message: MessageState) -> list[tuple[str, ChunkState]]:
    """Every chunk whose text may go on."""
    left = [] if message.retried_call is None else message.retried_call.unmatched
    waiting = [(f"left {c.index}", c) for _, c in left if c.status == "open"]
    return [*message.open_chunks.items(), *waiting]


async def taken_over_at_every_entry(owner: Owner, steps: list[tuple[str, bytes]]) -> list[Event]:
    """Fold *steps* one by one; what is read back each time is what there was, for readers, too."""
    entries = await owner.push(steps)
    await owner.claim()
    hot = await owner.load()
    events: list[Event] = []
    for entry in entries:
        events += await owner.commit(hot, [entry])
        fresh = await owner.load()
        assert picture(fresh) == picture(hot)
        snapshot = await read_snapshot(owner.client.chats, owner.keys, owner.chat_id, NOW_MS)
        assert snapshot.data["messages"] == view_of(events).messages
        hot = fresh
    return events


def message_of(source: str, raws: list[bytes], **options: Any) -> list[tuple[str, bytes]]:
    return [start(source, **options), *(chunk(raw) for raw in raws), control("end")]
