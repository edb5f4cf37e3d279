"""A chat read back from Redis is the chat that was written, at every entry of any message."""

import itertools

import orjson
import pytest

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta.broker.store.save import (
    SEGMENT_LENGTH,
)
from riverdelta.broker.store.snapshot import read_snapshot
from riverdelta.core.errors import FormatTooNew
from tests.support.core.codec_tools import lines_of, recordings
from tests.support.core.fold_tools import ARGUMENTS, LONG_ARGUMENTS, chunk, control, start, steps_of
from tests.support.core.restart_tools import (
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
from tests.support.core.sdk_oracle import SOURCES as PROVIDERS
from tests.support.owner import NOW_MS, Owner, message_of, taken_over_at_every_entry


def so_far(text: str, source: str) -> list[str]:
    """Encode *text* in pieces of two, or in snapshots that grow by as much."""
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
            for path in recordings(*PROVIDERS, "chunks")
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
