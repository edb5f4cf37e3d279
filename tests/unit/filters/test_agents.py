"""The chain's own rules, with plain async functions as agents."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import orjson
import pytest

from riverdelta.core.filter_results import Call, FilterResult
from riverdelta.core.state import Entry
from riverdelta_workers.filters.agents import (
    Agent,
    AgentError,
    FilterChain,
    OnFailure,
    RawChunk,
)

SOURCES = {"m": "text"}
LIMIT = 100


def chain(*agents: Agent, calls_per_chat: int = 8, spare_calls: int = 256) -> FilterChain:
    return FilterChain(
        agents, max_chunk_bytes=LIMIT, calls_per_chat=calls_per_chat, spare_calls=spare_calls
    )


def chunks(*texts: str, first: int = 1) -> list[Entry]:
    return [Entry(n, "m", "chunk", 0, text.encode()) for n, text in enumerate(texts, first)]


def many(count: int) -> list[Entry]:
    return chunks(*(str(number) for number in range(1, count + 1)))


async def ask(
    filters: FilterChain, entries: list[Entry], sources: dict[str, str] = SOURCES
) -> dict[int, FilterResult]:
    filter_results = await filters.filter_entries("c", entries, sources)
    assert filter_results is not None
    return filter_results


async def echo(chunk: RawChunk) -> bytes:
    return chunk.data


async def upper(chunk: RawChunk) -> bytes:
    return chunk.data.upper()


async def nothing(chunk: RawChunk) -> bytes:
    return b""


async def hang(chunk: RawChunk) -> bytes:
    await asyncio.Event().wait()
    raise AssertionError


async def break_(chunk: RawChunk) -> bytes:
    raise AgentError("status", "answered 500")


def adding(text: str) -> Callable[[RawChunk], Awaitable[bytes]]:
    async def add(chunk: RawChunk) -> bytes:
        return chunk.data + text.encode()

    return add


async def test_what_an_agent_may_say() -> None:
    entries = chunks("hi")
    passed = (await ask(chain(Agent("a", echo)), entries))[1]
    assert passed == FilterResult(b"hi", (Call("a", "passed"),))
    changed = (await ask(chain(Agent("a", upper)), entries))[1]
    assert changed == FilterResult(b"HI", (Call("a", "changed"),))
    dropped = (await ask(chain(Agent("a", nothing)), entries))[1]
    assert dropped == FilterResult(None, (Call("a", "dropped"),))
    assert [v.outcome for v in (passed, changed, dropped)] == ["passed", "changed", "dropped"]
    assert entries == chunks("hi")


async def test_each_agent_is_fed_the_answer_of_the_one_before() -> None:
    filters = chain(Agent("a", adding("1")), Agent("b", adding("2")), Agent("c", adding("3")))
    filter_result = (await ask(filters, chunks("x")))[1]
    assert filter_result.data == b"x123"
    assert [call.agent for call in filter_result.calls] == ["a", "b", "c"]


async def test_nobody_is_asked_about_what_was_dropped_or_blocked() -> None:
    asked = []

    async def watch(chunk: RawChunk) -> bytes:
        asked.append(chunk)
        return chunk.data

    for first in (Agent("a", nothing), Agent("a", break_, on_failure="block")):
        filter_result = (await ask(chain(first, Agent("b", watch)), chunks("x")))[1]
        assert (filter_result.data, len(filter_result.calls)) == (None, 1)
    assert asked == []


async def test_the_policy_decides_what_happens_to_a_failed_chunk() -> None:
    outcomes = {}
    policies: tuple[OnFailure, ...] = ("pass", "block")
    for policy in policies:
        filters = chain(Agent("a", break_, on_failure=policy))
        outcomes[policy] = (await ask(filters, chunks("x")))[1]
    failed = ("status", "answered 500")
    assert outcomes["pass"] == FilterResult(b"x", (Call("a", "failed_passed", *failed),))
    assert outcomes["block"] == FilterResult(None, (Call("a", "failed_blocked", *failed),))
    assert outcomes["block"].failures == list(outcomes["block"].calls)


async def test_a_failure_does_not_undo_what_the_agents_before_changed() -> None:
    filters = chain(Agent("a", upper), Agent("b", break_), Agent("c", adding("!")))
    filter_result = (await ask(filters, chunks("secret")))[1]
    assert filter_result.data == b"SECRET!"
    assert filter_result.outcome == "failed_passed"
    assert [call.outcome for call in filter_result.calls] == ["changed", "failed_passed", "changed"]


async def test_whatever_an_agent_raises_is_its_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def bug(chunk: RawChunk) -> bytes:
        raise ZeroDivisionError

    filter_result = (await ask(chain(Agent("a", bug)), chunks("x")))[1]
    assert filter_result.failures == [Call("a", "failed_passed", "error", "ZeroDivisionError")]


async def test_an_answer_has_the_limit_of_a_chunk() -> None:
    filters = chain(Agent("a", adding("x" * LIMIT), on_failure="block"))
    assert (await ask(filters, chunks("x")))[1].failures[0].code == "oversized"
    filters = chain(Agent("a", adding("x" * (LIMIT - 1))))
    assert (await ask(filters, chunks("x")))[1].outcome == "changed"


async def test_only_raw_chunks_of_messages_that_are_open_at_their_place() -> None:
    seen = []

    async def watch(chunk: RawChunk) -> bytes:
        seen.append((chunk.number, chunk.message, chunk.source))
        return chunk.data

    def start(number: int, message: str, data: bytes) -> Entry:
        return Entry(number, message, "start", 0, data)

    entries = [
        Entry(1, "unknown", "chunk", 0, b"x"),
        Entry(2, "m", "chunk", 0, b"x"),
        Entry(3, "m", "chunk", 0, b""),
        Entry(4, "m", "tool_result", 0, b"{}"),
        start(5, "n", orjson.dumps({"source": "chunks"})),
        Entry(6, "n", "chunk", 0, b"x"),
        start(7, "m", orjson.dumps({"source": "another"})),
        Entry(8, "m", "chunk", 0, b"x"),
        Entry(9, "m", "end", 0, b"{}"),
        Entry(10, "m", "chunk", 0, b"x"),
        start(11, "o", b"not json"),
        start(12, "o", b"[]"),
        start(13, "o", b"{}"),
        Entry(14, "o", "chunk", 0, b"x"),
    ]
    filter_results = await ask(chain(Agent("a", watch), calls_per_chat=1), entries)
    assert seen == [(2, "m", "text"), (6, "n", "chunks"), (8, "m", "text")]
    assert list(filter_results) == [2, 6, 8]


async def test_an_agent_sees_only_the_sources_it_was_given() -> None:
    filters = chain(
        Agent("a", upper, sources=("text",)), Agent("b", adding("!"), sources=("chunks",))
    )
    entries = [Entry(n, message, "chunk", 0, b"x") for n, message in enumerate("mno", 1)]
    filter_results = await ask(filters, entries, {"m": "text", "n": "chunks", "o": "anthropic"})
    assert {number: filter_result.data for number, filter_result in filter_results.items()} == {
        1: b"X",
        2: b"x!",
    }


async def test_calls_overlap_up_to_the_limit_and_answers_come_in_stream_order() -> None:
    under_way = most = 0

    async def slow(chunk: RawChunk) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (7 - chunk.number % 7))
        under_way -= 1
        return chunk.data + b"."

    filter_results = await ask(chain(Agent("a", slow), calls_per_chat=5), many(50))
    assert most == 5
    assert [v.data for v in filter_results.values()] == [f"{n}.".encode() for n in range(1, 51)]


async def test_one_call_at_a_time_keeps_the_order_of_the_questions_too() -> None:
    asked = []

    async def watch(chunk: RawChunk) -> bytes:
        asked.append(chunk.number)
        await asyncio.sleep(0)
        return chunk.data

    await ask(chain(Agent("a", watch), calls_per_chat=1), many(20))
    assert asked == list(range(1, 21))


async def test_a_hung_agent_costs_a_whole_batch_one_timeout() -> None:
    agents = Agent("a", hang, timeout_s=0.2), Agent("b", upper)
    filter_results = await ask(chain(*agents), chunks(*["x"] * 64))
    assert {filter_result.data for filter_result in filter_results.values()} == {b"X"}
    codes = [filter_result.calls[0].code for filter_result in filter_results.values()]
    assert codes == ["timeout"] * 8 + ["hung"] * 56


async def test_a_late_answer_among_others_is_bad_luck() -> None:
    async def late_once(chunk: RawChunk) -> bytes:
        await asyncio.sleep(10 if chunk.number == 3 else 0.01)
        return chunk.data.upper()

    filter_results = await ask(chain(Agent("a", late_once, timeout_s=0.1)), chunks(*["x"] * 64))
    assert [
        number for number, filter_result in filter_results.items() if filter_result.failures
    ] == [3]


async def test_a_late_answer_alone_is_bad_luck_and_the_next_chunk_is_asked_about() -> None:
    async def late_at_times(chunk: RawChunk) -> bytes:
        await asyncio.sleep(10 if chunk.number % 2 else 0)
        return chunk.data.upper()

    filters = chain(Agent("a", late_at_times, timeout_s=0.02), calls_per_chat=1)
    filter_results = await ask(filters, chunks(*["x"] * 6))
    assert [v.data for v in filter_results.values()] == [b"x", b"X"] * 3


async def test_a_new_batch_asks_a_hung_agent_again() -> None:
    answering = asyncio.Event()

    async def recovers(chunk: RawChunk) -> bytes:
        await answering.wait()
        return chunk.data.upper()

    filters = chain(Agent("a", recovers, timeout_s=0.05))
    assert (await ask(filters, chunks("x", "y", "z")))[3].data == b"z"
    answering.set()
    assert (await ask(filters, chunks("x", "y", "z")))[3].data == b"Z"


async def test_hung_calls_of_many_chats_keep_no_other_chat_waiting() -> None:
    """All spare calls are taken by the hung ones, and more chats hang than there are of those."""

    async def by_chat(chunk: RawChunk) -> bytes:
        return await hang(chunk) if chunk.chat != "c" else chunk.data.upper()

    filters = chain(Agent("a", by_chat, timeout_s=3_600), spare_calls=16)
    async with asyncio.TaskGroup() as group:
        hanging = [
            group.create_task(filters.filter_entries(f"hung-{i}", many(64), SOURCES))
            for i in range(40)
        ]
        await asyncio.sleep(0.01)
        assert filters._spare == 0
        filter_results = await ask(filters, chunks(*["x"] * 64))
        assert {filter_result.data for filter_result in filter_results.values()} == {b"X"}
        for task in hanging:
            assert not task.done()
            task.cancel()
    assert filters._spare == 16


async def test_spare_calls_come_back_however_a_batch_ends() -> None:
    filters = chain(Agent("a", hang, timeout_s=5), spare_calls=20)
    for pause in (0, 0, 0.01):
        task = asyncio.create_task(filters.filter_entries("c", many(9), SOURCES))
        for _ in range(int(pause == 0)):
            await asyncio.sleep(0)  # cancelled before its helpers have begun
        await asyncio.sleep(pause)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert filters._spare == 20


@pytest.mark.parametrize("count", [1, 30])
async def test_what_is_abandoned_decides_nothing(count: int) -> None:
    filters = chain(Agent("a", hang, timeout_s=3_600))
    task = asyncio.create_task(filters.filter_entries("c", many(count), SOURCES))
    await asyncio.sleep(0.01)
    filters.abandon("another chat")
    await asyncio.sleep(0.01)
    assert not task.done()
    filters.abandon("c")
    filters.abandon("c")
    assert await task is None
    assert (filters._spare, filters._under_way) == (256, {})
    filters.abandon("c")


async def test_failures_are_one_line_in_the_log_and_hold_nothing_of_the_chunk(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    await ask(chain(Agent("pii", break_)), chunks(*["my secret"] * 30))
    (record,) = caplog.records
    expected = "chat c: filter agent pii, 30 chunks failed_passed: answered 500"
    assert record.getMessage() == expected


async def test_without_agents_there_is_nothing_to_do() -> None:
    filters = chain()
    assert not filters
    assert chain(Agent("a", echo))
    assert await ask(filters, many(3)) == {}


async def test_closing_closes_every_agent() -> None:
    closed = []

    async def close() -> None:
        closed.append(True)

    await chain(Agent("a", echo, close=close), Agent("b", echo)).aclose()
    assert closed == [True]
