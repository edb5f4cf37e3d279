"""The scripts of turns, held to their contracts and to the table of a turn's states."""

import asyncio
import itertools
from typing import Any

import orjson
import pytest

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts, turn_scripts
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.broker.store.scripts import PushLimits
from riverdelta.broker.store.turn_scripts import AcceptedTurn, TurnStart
from riverdelta.core.outgoing import NewEntry
from riverdelta_gateway.turns.states import ENDS, Action, State, after

NOW = PushLimits(100, 1_000_000)
LONG_MS = 600_000


@pytest.fixture
def keys(client: Client) -> ChatKeys:
    return client.keys.chat("c")


async def accept(
    client: Client, keys: ChatKeys, message_id: str = "m", known: str = "", **options: Any
) -> AcceptedTurn:
    turn: dict[str, Any] = {
        "message_id": message_id,
        "user": "ann",
        "start": b"{}",
        "policy": "queue",
        "replaces": (),
        "wait_ms": LONG_MS,
        "max_open": 3,
        "begins": True,
    }
    start = TurnStart(**turn | options)
    return await turn_scripts.accept_turn(client.chats, keys, start, known=known.split())


async def adopt(client: Client, keys: ChatKeys, producer: str = "p", message_id: str = "m") -> str:
    reply = await turn_scripts.adopt(
        client.chats, keys, producer=producer, message_id=message_id, entry=b"{}"
    )
    return reply.status


async def stop(client: Client, keys: ChatKeys, message_id: str = "m") -> str:
    return (await scripts.stop(client.chats, keys, message_id=message_id, reason="enough")).status


async def end(client: Client, keys: ChatKeys, number: int, kind: str, producer: str = "p") -> str:
    """Push the end of a message, and process it as a worker would."""
    reply = await scripts.push(
        client.chats,
        keys,
        producer=producer,
        message_id="m",
        message_seq=number,
        entries=[NewEntry(kind, 0, b"{}")],
        limits=NOW,
    )
    return reply.status


async def entries(client: Client, keys: ChatKeys) -> list[tuple[str, str]]:
    """Message and type of every raw entry, in order."""
    found = await client.chats.execute("XRANGE", keys.chunks, "-", "+")
    return [(fields[1].decode(), fields[3].decode()) for _, fields in found]


async def dump(client: Client) -> dict[bytes, bytes]:
    """Everything that is stored, by key."""
    names = sorted(await client.chats.execute("KEYS", f"{client.keys.prefix}:*"))
    return {name: await client.chats.execute("DUMP", name) for name in names}


async def test_an_accepted_turn_is_a_message_of_the_chat_with_its_start(
    client: Client, keys: ChatKeys
) -> None:
    assert await accept(client, keys, start=b'{"x":1}') == ("accepted", [], 1, 0, "", 0)
    assert await entries(client, keys) == [("m", "start")]
    head = scripts.as_hash(await client.chats.execute("HGETALL", keys.head))
    assert (head["user"], head["turns"], head["pushed"]) == (b"ann", b"m", b"1")
    message = scripts.as_hash(await client.chats.execute("HGETALL", keys.message("m")))
    assert (message["status"], message["turn"], message["producer"]) == (b"open", b"waiting", b"")


async def test_the_same_turn_accepted_again_is_the_same_answer_and_stores_nothing(
    client: Client, keys: ChatKeys
) -> None:
    await accept(client, keys, "a")
    first = await accept(client, keys, "m", known="a")
    assert (first.status, first.behind) == ("accepted", ["a"])
    before = await dump(client)
    together = await asyncio.gather(*(accept(client, keys, "m", known="a") for _ in range(5)))
    assert {(one.status, *one.behind) for one in together} == {("repeat", "a")}
    assert await dump(client) == before
    await stop(client, keys)
    assert (await accept(client, keys, "m", known="a m")).status == "ended"


async def test_a_refused_turn_leaves_nothing(client: Client, keys: ChatKeys) -> None:
    assert (await accept(client, keys, begins=False)).status == "foreign"
    assert await dump(client) == {}
    await accept(client, keys, "a")
    before = await dump(client)
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("foreign", {"user": "bob"}),
        ("foreign", {"user": "bob", "message_id": "a"}),  # nor is said which ids are taken
        ("moved", {"known": ""}),
        ("busy", {"policy": "reject"}),
        ("full", {"max_open": 1}),
    ]
    for status, options in refusals:
        reply = await accept(client, keys, **{"known": "a"} | options)
        assert reply.status == status, options
        assert await dump(client) == before, options


async def test_a_turn_is_behind_those_that_are_open_and_not_replaced(
    client: Client, keys: ChatKeys
) -> None:
    await accept(client, keys, "a")
    await accept(client, keys, "b", known="a")
    await accept(client, keys, "c", known="a b")
    await stop(client, keys, "b")
    reply = await accept(client, keys, "d", known="a b c", replaces=("c",))
    assert (reply.status, reply.behind) == ("accepted", ["a"])
    assert await client.chats.execute("HGET", keys.head, "turns") == b"a d"


async def test_an_interrupting_turn_stops_those_that_run_and_ends_those_that_wait(
    client: Client, keys: ChatKeys
) -> None:
    await accept(client, keys, "a")
    await accept(client, keys, "b", known="a")
    assert await adopt(client, keys, "p", "a") == "stored"
    reply = await accept(client, keys, "c", known="a b", policy="interrupt")
    assert (reply.status, reply.behind) == ("accepted", ["a", "b"])
    stops = [await client.chats.execute("HGET", keys.message(one), "stop") for one in "abc"]
    assert stops == [turn_scripts.INTERRUPTED.encode()] * 2 + [None]
    assert (await entries(client, keys))[-2:] == [("b", "stop"), ("c", "start")]


async def test_one_producer_adopts_a_turn_and_goes_on_behind_its_start(
    client: Client, keys: ChatKeys
) -> None:
    assert await adopt(client, keys) == "unknown"
    await accept(client, keys)
    tried = await asyncio.gather(*(adopt(client, keys, f"p{number}") for number in range(5)))
    assert sorted(tried) == ["stored"] + ["taken"] * 4
    producer = f"p{tried.index('stored')}"
    assert await adopt(client, keys, producer) == "repeat"
    assert await end(client, keys, 2, "end", producer) == "stored"
    assert await entries(client, keys) == [("m", "start"), ("m", "adopt"), ("m", "end")]


async def test_a_turn_is_released_only_while_nothing_of_it_is_stored(
    client: Client, keys: ChatKeys
) -> None:
    async def release(producer: str) -> str:
        reply = await turn_scripts.release_turn(
            client.chats, keys, producer=producer, message_id="m", entry=b"{}", last=1
        )
        return reply.status

    await accept(client, keys)
    assert await release("p") == "refused"
    await adopt(client, keys, "p")
    assert [await release("q"), await release("p"), await release("p")] == [
        "refused",
        "released",
        "refused",
    ]
    assert await client.chats.execute("HGET", keys.head, "last.p:m") is None
    assert await adopt(client, keys, "q") == "stored"
    chunk = [NewEntry("chunk", 0, b"x")]
    await scripts.push(
        client.chats, keys, producer="q", message_id="m", message_seq=2, entries=chunk, limits=NOW
    )
    assert await release("q") == "refused"


async def test_a_turn_expires_by_the_clock_of_the_server_and_once(
    client: Client, keys: ChatKeys
) -> None:
    async def expire() -> turn_scripts.Expired:
        return await turn_scripts.expire_turn(client.chats, keys, message_id="m", entry=b"{}")

    assert (await expire()).status == "over"
    await accept(client, keys)
    waits = await expire()
    assert waits.status == "waiting"
    assert 0 < waits.left_ms <= LONG_MS
    await client.chats.execute("HSET", keys.message("m"), "turn_wait_until_ms", 1)
    assert [(await expire()).status for _ in range(2)] == ["failed", "over"]
    assert await entries(client, keys) == [("m", "start"), ("m", "fail")]
    assert [await adopt(client, keys), await stop(client, keys)] == ["ended", "ended"]


async def test_a_turn_that_waits_ends_by_a_stop_without_a_producer(
    client: Client, keys: ChatKeys
) -> None:
    await accept(client, keys)
    assert [await stop(client, keys), await stop(client, keys)] == ["marked", "marked"]
    assert await entries(client, keys) == [("m", "start"), ("m", "stop")]
    (_, last) = (await client.chats.execute("XRANGE", keys.chunks, "-", "+"))[-1]
    assert orjson.loads(last[7]) == {"reason": "enough"}
    assert await adopt(client, keys) == "stopped"


async def test_a_stop_of_a_user_stops_in_that_users_chat_only(
    client: Client, keys: ChatKeys
) -> None:
    await accept(client, keys)  # of ann

    async def stop_as(user: str) -> str:
        reply = await scripts.stop(client.chats, keys, message_id="m", reason="enough", user=user)
        return reply.status

    for other in ("bert", ""):
        assert await stop_as(other) == "absent"
    assert await entries(client, keys) == [("m", "start")]
    assert await client.chats.execute("HGET", keys.message("m"), "stop") is None
    assert await stop_as("ann") == "marked"


async def test_the_scripts_do_what_the_table_of_states_says(client: Client) -> None:
    stories = itertools.product(Action, repeat=3)
    for number, actions in enumerate(stories):
        await _play(client, client.keys.chat(f"c{number}"), actions)


async def _play(client: Client, keys: ChatKeys, actions: tuple[Action, ...]) -> None:
    await accept(client, keys)
    state = State.WAITING
    for action in actions:
        if action in {Action.COMPLETE, Action.FAIL} and state is State.WAITING:
            continue  # who has not adopted it does not push
        if action is Action.COMPLETE and state is State.STOPPED:
            continue  # its producer ends it as stopped
        await _act(client, keys, action)
        state = after(state, action)
        assert await _state(client, keys) == state, actions


async def _act(client: Client, keys: ChatKeys, action: Action) -> None:
    match action:
        case Action.ADOPT:
            await adopt(client, keys)
        case Action.RELEASE:
            await turn_scripts.release_turn(
                client.chats, keys, producer="p", message_id="m", entry=b"{}", last=1
            )
        case Action.EXPIRE:
            await client.chats.execute("HSET", keys.message("m"), "turn_wait_until_ms", 1)
            await turn_scripts.expire_turn(client.chats, keys, message_id="m", entry=b"{}")
        case Action.STOP:
            await stop(client, keys)
            await end(client, keys, 2, "stop")  # as its producer does, where it has one
        case Action.COMPLETE:
            await end(client, keys, 2, "end")
        case Action.FAIL:
            await end(client, keys, 1, "fail", "reaper")


async def _state(client: Client, keys: ChatKeys) -> State:
    """What a worker makes of the entries; the first end counts. It then writes the status."""
    turn = await client.chats.execute("HGET", keys.message("m"), "turn")
    ends = {"end": State.COMPLETED, "fail": State.FAILED, "stop": State.STOPPED}
    for _, kind in await entries(client, keys):
        if kind in ends:
            state = ends[kind]
            if state is State.FAILED and turn == b"over":
                state = State.NOT_STARTED
            status = "failed" if state is State.NOT_STARTED else state.value
            await client.chats.execute("HSET", keys.message("m"), "status", status)
            return state
    return State(turn.decode())


def test_the_ends_of_the_table_are_ends_of_a_message() -> None:
    assert {state.value for state in ENDS} == {"completed", "failed", "stopped", "not_started"}
