"""A chat read back from Redis is the chat that was written, at every entry of any message."""

import itertools
from typing import Any

import orjson
import pytest

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta.broker.store.load import load
from riverdelta.broker.store.save import (
    SEGMENT_LENGTH,
    HotChat,
    LogLimits,
    _message_fields,
    _retake,
)
from riverdelta.broker.store.scripts import NewEntry, PushLimits
from riverdelta.broker.store.snapshot import read_snapshot
from riverdelta.core.errors import FormatTooNew
from riverdelta.core.events import Event
from riverdelta.core.state import ChunkState, Entry, MessageState
from riverdelta.pipeline import Pipeline
from tests.integration.reading import view_of
from tests.unit.codecs.folding import lines_of, recordings
from tests.unit.fold_tools import chunk, control, start
from tests.unit.test_fold_cards import ARGUMENTS, LONG_ARGUMENTS, steps_of
from tests.unit.test_restart import (
    AGAIN,
    BEGIN,
    DELIVERED,
    RESULT,
    STOP,
    TABLE,
    THOUGHT,
    block,
    call,
    restart,
    texts,
)

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
                    number=n,
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
                    None if c.retake is None else _retake(c.retake),
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
    left = [] if message.retry is None else message.retry.left
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


def so_far(text: str, source: str) -> list[str]:
    """Spell *text* in pieces of two, or in snapshots that grow by as much."""
    pieces = [text[at : at + 2] for at in range(0, len(text), 2)]
    return list(itertools.accumulate(pieces)) if source == "text-snapshot" else pieces


SNAPSHOTS = ["Hel", "Hello", "xxHello you", "xxHello you!", "Bye", "Bye bye", "é" * 3000]


@pytest.mark.parametrize(
    "steps",
    [
        *(
            pytest.param(
                message_of(path.parent.name, lines_of(path)), id=f"{path.parent.name}-{path.stem}"
            )
            for path in recordings("openai-chat", "openai-responses", "anthropic", "chunks")
            if path.stat().st_size < 4_000
        ),
        *(
            pytest.param(
                message_of("text-snapshot", [s.encode() for s in SNAPSHOTS], on_mismatch=rule),
                id=f"snapshots-{rule}",
            )
            for rule in ("emit", "hold", "stitch", "reset")
        ),
        pytest.param(
            [
                *message_of("text", ["ä🙂".encode()[:3], "ä🙂".encode()[3:]])[:-1],
                control("annotate", name="title", data={"text": "Q3"}),
                control("tool_result", tool_call_id="t", content=[1, "ü"]),
                control("fail", code="producer_lost", detail="gone"),
            ],
            id="text-notes-and-failure",
        ),
        pytest.param(
            steps_of(
                ARGUMENTS,
                control(
                    "tool_result", tool_call_id="call-1", content={"files": [{"name": "sales"}]}
                ),
            ),
            id="card-and-its-result",
        ),
        pytest.param(steps_of(LONG_ARGUMENTS, size=97), id="long-card"),
        pytest.param(steps_of('{"files": oops}'), id="no-json"),
        *(
            pytest.param(
                [
                    *[start(source), *texts(*so_far(DELIVERED, source))],
                    *[restart(), *texts(*so_far(again, source)), control("end")],
                ],
                id=f"restart-{source}-{again[:8]}",
            )
            for source in ("text", "text-snapshot")
            for again, *_ in TABLE
        ),
        *(
            pytest.param(
                [
                    *[start("anthropic"), BEGIN, *THOUGHT, *call(1, "old", ARGUMENTS)],
                    *[*block(2, "text", "Hel", "lo", stop=False), restart(rule), AGAIN],
                    *[*block(0, "thinking", "Let me ", last), *block(2, "text", *"Help")],
                    *[*call(3, "new", *other), *STOP],
                    control("tool_result", tool_call_id="new", content=RESULT),
                    control("end"),
                ],
                id=f"restart-{rule}-{last}",
            )
            for rule in ("stitch", "append", "reset")
            for last, other in (
                ("think.", [ARGUMENTS[:50], ARGUMENTS[50:]]),
                ("go.", [ARGUMENTS[:50], *ARGUMENTS[50:].replace("b", "c")]),
            )
        ),
        pytest.param(
            [
                *[start("anthropic"), BEGIN, *call(0, "old", ARGUMENTS, stop=False)],
                chunk({"type": "error", "error": {"type": "overloaded_error"}}),
                control("tool_result", tool_call_id="old", content=RESULT),
                *[restart(), AGAIN, *call(0, "new", ARGUMENTS), *STOP, control("end")],
            ],
            id="restart-after-a-call-that-failed",
        ),
        pytest.param(
            [
                *[start("anthropic"), BEGIN, *THOUGHT, *block(1, "text", "Hello", stop=False)],
                *[restart(), AGAIN, *THOUGHT[:2], restart(), AGAIN, *THOUGHT],
                *block(1, "text", "Hel", stop=False),
                chunk({"type": "error", "error": {"type": "overloaded_error"}}),
                *[restart(), AGAIN, *THOUGHT, *STOP, control("end")],
            ],
            id="restart-again-and-after-an-error",
        ),
    ],
)
async def test_a_new_owner_at_every_entry_finds_what_the_old_one_left(
    steps: list[tuple[str, bytes]], client: Client
) -> None:
    owner = Owner(client, "c")
    events = await taken_over_at_every_entry(owner, steps)
    log = await client.chats.execute("XRANGE", owner.keys.deltas, "-", "+")
    assert [fields[1] for _, fields in log] == [event.raw for event in events]


async def test_text_is_stored_in_segments_of_bounded_size(client: Client) -> None:
    owner = Owner(client, "c")
    steps = message_of("text", [b"abcdefg"] * 1_000)[:-1]
    entries = await owner.push(steps)
    await owner.claim()
    hot = await owner.load()
    for at in range(0, len(entries), 7):
        await owner.commit(hot, entries[at : at + 7])
    fields = scripts.as_hash(await client.chats.execute("HGETALL", owner.keys.chunk("m", 0)))
    sizes = [len(value) for name, value in fields.items() if name.startswith("text.")]
    assert sum(sizes) == 7_000
    assert max(sizes) < SEGMENT_LENGTH + 7 * 7
    assert fields["length"] == b"7000"


async def test_old_messages_go_with_all_their_keys(client: Client) -> None:
    owner = Owner(client, "c")
    number = 0
    hot = None
    for i in range(55):
        entries = await owner.push(message_of("text", [b"x"]), f"m{i}")
        if hot is None:
            await owner.claim()
            hot = await owner.load()
        number += len(entries)
        await owner.commit(hot, entries)
    keys = await client.chats.execute("KEYS", f"{client.keys.prefix}:*")
    names = {key.decode().rpartition(":")[2] for key in keys}
    assert {f"m{i}" for i in range(5)} & names == set()
    assert {f"m{i}.0" for i in range(5)} & names == set()
    assert {f"m{i}" for i in range(5, 55)} <= names
    producers = await client.chats.execute("HKEYS", owner.keys.producers)
    assert len(producers) == 50
    snapshot = await read_snapshot(client.chats, owner.keys, "c", NOW_MS)
    assert [m["message"] for m in snapshot.data["messages"]] == [f"m{i}" for i in range(5, 55)]


async def test_a_state_of_the_future_is_refused(client: Client) -> None:
    owner = Owner(client, "c")
    await owner.push(message_of("text", []))
    await owner.claim()
    await client.chats.execute("HSET", owner.keys.head, "v", "99")
    with pytest.raises(FormatTooNew, match="format 99"):
        await owner.load()


async def test_a_person_can_read_it(client: Client) -> None:
    """Plain field names, UTF-8 text, JSON events: no pickles, no base64 where text is."""
    owner = Owner(client, "c")
    entries = await owner.push(message_of("text", ["Grüße 🙂".encode()])[:-1])
    await owner.claim()
    hot = await owner.load()
    await owner.commit(hot, entries)
    keys = await client.chats.execute("KEYS", f"{client.keys.prefix}:{{c}}*")
    for key in keys:
        if await client.chats.execute("TYPE", key) == b"hash":
            for value in await client.chats.execute("HVALS", key):
                value.decode()
    ((_, (_, event)),) = await client.chats.execute(
        "XREVRANGE", owner.keys.deltas, "+", "-", "COUNT", 1
    )
    assert orjson.loads(event)["data"]["text"] == "Grüße 🙂"
    assert "Grüße 🙂".encode() in event
    fields = scripts.as_hash(await client.chats.execute("HGETALL", owner.keys.chunk("m", 0)))
    assert fields["text.0"].decode() == "Grüße 🙂"
