"""Filter agents against a real HTTP server: what each of its answers, good or bad, becomes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from pydantic import TypeAdapter, ValidationError

from riverdelta.broker.filter_agents import HttpAgent
from riverdelta.core.filter_results import FilterResult
from riverdelta.core.state import Entry
from riverdelta_workers.filters.agents import FilterChain
from riverdelta_workers.filters.http import http_agent
from tests.support.agent_server import (
    AgentServer,
    Handler,
    Request,
    adding,
    agent,
    answer,
    drip,
    echo,
    hang,
    saying,
    upper,
)
from tests.support.servers import free_port, until

LIMIT = 1024 * 1024


@contextlib.asynccontextmanager
async def chain_of(
    *agents: HttpAgent, calls_per_chat: int = 8, spare_calls: int = 256
) -> AsyncIterator[FilterChain]:
    chain = FilterChain(
        [http_agent(agent, max_chunk_bytes=LIMIT) for agent in agents],
        max_chunk_bytes=LIMIT,
        calls_per_chat=calls_per_chat,
        spare_calls=spare_calls,
    )
    try:
        yield chain
    finally:
        await chain.aclose()


def chunks(*data: bytes) -> list[Entry]:
    return [Entry(number, "m", "chunk", 0, one) for number, one in enumerate(data, 1)]


async def judge(
    chain: FilterChain, entries: list[Entry], *, chat: str = "c", source: str = "text"
) -> list[FilterResult]:
    filter_results = await chain.filter_entries(chat, entries, {"m": source})
    assert filter_results is not None
    assert list(filter_results) == [entry.number for entry in entries]
    return list(filter_results.values())


async def ask_one(handler: Handler, chunk: bytes = b"chunk", **options: object) -> FilterResult:
    async with AgentServer(handler) as server, chain_of(agent(server.url, **options)) as chain:
        (filter_result,) = await judge(chain, chunks(chunk))
        return filter_result


# -- good answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "data", "outcome"),
    [
        (upper, b"CHUNK", "changed"),
        (echo, b"chunk", "passed"),
        (saying(answer(b"")), None, "dropped"),
        (saying(b"HTTP/1.1 204 No Content\r\n\r\n"), None, "dropped"),
        (saying(answer(b"later"), pause_s=0.1), b"later", "changed"),
        (
            saying(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
            b"abc",
            "changed",
        ),
        (saying(answer(b"x" * LIMIT)), b"x" * LIMIT, "changed"),
        (saying(*(bytes([byte]) for byte in answer(b"slow")), pause_s=0.002), b"slow", "changed"),
    ],
    ids=["changed", "unchanged", "empty", "204", "late", "chunked", "largest", "byte by byte"],
)
async def test_a_good_answer(handler: Handler, data: bytes | None, outcome: str) -> None:
    filter_result = await ask_one(handler)
    assert filter_result.data == data
    assert filter_result.calls == (("agent", outcome, None, None),)


async def test_any_bytes_go_there_and_come_back_as_they_are() -> None:
    every = bytes(range(256)) * 20 + b"\r\n\r\n\x00\xff"
    data = [every, b"\x00", b"\xed\xa0\x80", b"\r\n", every * 100, b"y" * LIMIT, b"z" * (3 * LIMIT)]
    async with AgentServer(echo) as server, chain_of(agent(server.url)) as chain:
        filter_results = await judge(chain, chunks(*data), source="openai-chat+sse")
        bodies = {request.body for request in server.requests}
    assert bodies == set(data)
    assert [filter_result.outcome for filter_result in filter_results[:-1]] == ["passed"] * 6
    assert filter_results[-1].failures[0].code == "oversized"


async def test_a_request_says_where_the_chunk_belongs_and_nothing_else() -> None:
    async def with_cookie(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(request.body, "200 OK", "set-cookie: chat=c; Path=/"))

    options = {"headers": {"authorization": "Bearer of-the-settings"}}
    async with (
        AgentServer(with_cookie) as server,
        chain_of(agent(server.url, **options)) as chain,
    ):
        await judge(chain, chunks(b"one"))
        await judge(chain, chunks(b"two"), source="anthropic")
        first, second = server.requests
    assert first.line == "POST /filter HTTP/1.1"
    assert first.headers.pop("user-agent").startswith("riverdelta/")
    assert first.headers == {
        "host": f"127.0.0.1:{server.port}",
        "accept-encoding": "identity",
        "authorization": "Bearer of-the-settings",
        "content-length": "3",
        "content-type": "text/plain; charset=utf-8",
        "riverdelta-chat": "c",
        "riverdelta-message": "m",
        "riverdelta-source": "text",
        "riverdelta-entry": "1",
    }
    assert set(second.headers) - {"user-agent"} == set(first.headers)
    assert second.headers["content-type"] == "application/json"


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert (await ask_one(upper)).data == b"CHUNK"


async def test_three_agents_each_fed_the_answer_of_the_one_before() -> None:
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(AgentServer(adding(text)))
            for text in (b"1", b"2", b"3")
        ]
        agents = [agent(server.url, name=f"a{n}") for n, server in enumerate(servers)]
        chain = await stack.enter_async_context(chain_of(*agents))
        filter_results = await judge(chain, chunks(*(b"%d:" % n for n in range(40))))
        seen = [min(request.body for request in server.requests) for server in servers]
    assert [filter_result.data for filter_result in filter_results] == [
        b"%d:123" % n for n in range(40)
    ]
    assert seen == [b"0:", b"0:1", b"0:12"]
    assert [call.agent for call in filter_results[0].calls] == ["a0", "a1", "a2"]


# -- bad answers ---------------------------------------------------------------------------------

FIVE_MIB = b"x" * (5 * LIMIT)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
BAD = {
    "400": (saying(answer(b"no", "400 Bad Request")), "status", "answered 400"),
    "500": (saying(answer(b"", "500 Oops")), "status", "answered 500"),
    "201": (saying(answer(b"made", "201 Created")), "status", "answered 201"),
    "redirect": (
        saying(answer(b"", "307 Temporary Redirect", "location: /elsewhere")),
        "status",
        "answered 307",
    ),
    "garbage": (saying(b"\x00\x01 garbage\r\n\r\n", close=True), "broken", "broken HTTP"),
    "other protocol": (saying(b"SSH-2.0-OpenSSH\r\n"), "broken", "broken HTTP"),
    "closes at once": (saying(close=True), "disconnected", "closed the connection"),
    "half an answer": (saying(answer(b"chunk")[:-2], close=True), "broken", "broken HTTP"),
    "half a chunked one": (saying(CHUNKED + b"5\r\nchu", close=True), "broken", "broken HTTP"),
    "no length": (saying(b"HTTP/1.1 200 OK\r\n\r\nchu", close=True), "broken", "Content-Length"),
    "dies after head": (saying(b"HTTP/1.1 200 OK\r\n\r\n", close=True), "broken", "Content-Length"),
    "compressed": (saying(answer(b"x", "200 OK", "content-encoding: gzip")), "broken", "encoding"),
    "never answers": (hang, "timeout", "did not answer within 0.3 s"),
    "never ends": (drip, "timeout", "did not answer within 0.3 s"),
    "never begins the body": (saying(answer(b"x")[:-1]), "timeout", "within 0.3 s"),
    "too late": (saying(b"HTTP/1.1 ", b"200 OK\r\n\r\n", pause_s=0.6), "timeout", "within 0.3 s"),
    "5 MiB": (saying(answer(FIVE_MIB)), "oversized", "more than 1048576 bytes"),
    "5 MiB in pieces": (
        saying(CHUNKED, b"500000\r\n", FIVE_MIB, b"\r\n0\r\n\r\n"),
        "oversized",
        "more than 1048576 bytes",
    ),
}


@pytest.mark.parametrize("policy", ["pass", "block"])
@pytest.mark.parametrize("kind", list(BAD))
async def test_a_bad_answer_is_a_failure_and_the_policy_decides(kind: str, policy: str) -> None:
    handler, code, detail = BAD[kind]
    timeout_s = 0.3 if code == "timeout" else 60.0
    filter_result = await ask_one(handler, timeout_s=timeout_s, on_failure=policy)
    (call,) = filter_result.calls
    assert (call.agent, call.code) == ("agent", code)
    assert detail in (call.detail or "")
    if policy == "pass":
        assert (filter_result.data, filter_result.outcome) == (b"chunk", "failed_passed")
    else:
        assert (filter_result.data, filter_result.outcome) == (None, "failed_blocked")


@pytest.mark.parametrize("policy", ["pass", "block"])
async def test_a_server_that_is_not_there(policy: str) -> None:
    absent = agent(f"http://127.0.0.1:{free_port()}/", on_failure=policy)
    async with chain_of(absent) as chain:
        (filter_result,) = await judge(chain, chunks(b"chunk"))
    assert filter_result.calls == (
        ("agent", f"failed_{policy}ed", "unreachable", "could not be reached"),
    )


async def test_beside_failures_of_every_kind_the_agent_works_as_ever() -> None:
    """No answer is ever taken for another's, and no connection is lost."""
    # The answer that is too late for 0.3 s is not for what a busy machine needs here.
    kinds = [(handler, code) for name, (handler, code, _) in BAD.items() if name != "too late"]

    async def moody(request: Request, writer: asyncio.StreamWriter) -> None:
        _, kind, number = request.body.split()
        await (kinds[int(kind)][0] if number == b"1" else upper)(request, writer)

    async with (
        AgentServer(moody) as server,
        chain_of(agent(server.url, timeout_s=3.0)) as hasty,
        chain_of(agent(server.url, timeout_s=60.0)) as patient,
    ):
        for kind, (_, code) in enumerate(kinds):
            chain = hasty if code == "timeout" else patient
            data = [b"chunk %d %d" % (kind, number) for number in range(12)]
            filter_results = await judge(chain, chunks(*data))
            assert [filter_result.data for filter_result in filter_results] == [
                one if number == 1 else one.upper() for number, one in enumerate(data)
            ]


async def test_a_server_that_closes_kept_connections_without_a_word() -> None:
    async def once(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(request.body.upper()))
        await writer.drain()
        if len(server.requests) % 3 == 0:
            writer.close()

    async with (
        AgentServer(once) as server,
        chain_of(agent(server.url), calls_per_chat=1) as chain,
    ):
        filter_results = await judge(chain, chunks(*[b"x"] * 60))
    assert {filter_result.data for filter_result in filter_results} == {b"X"}


# -- many at once --------------------------------------------------------------------------------


async def test_two_hundred_chats_at_once() -> None:
    async def slow(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.05)
        writer.write(answer(request.headers["riverdelta-chat"].encode() + b":" + request.body))

    async with (
        AgentServer(slow) as server,
        chain_of(agent(server.url, timeout_s=3_600)) as chain,
    ):
        results = await asyncio.gather(
            *(judge(chain, chunks(b"%d" % n), chat=f"c{n}") for n in range(200))
        )
    assert [filter_result.data for (filter_result,) in results] == [
        b"c%d:%d" % (n, n) for n in range(200)
    ]


async def test_two_hundred_chunks_of_one_chat_share_a_few_connections() -> None:
    async with AgentServer(upper) as server, chain_of(agent(server.url)) as chain:
        filter_results = await judge(chain, chunks(*(b"chunk %d" % n for n in range(200))))
    assert [filter_result.data for filter_result in filter_results] == [
        b"CHUNK %d" % n for n in range(200)
    ]
    assert server.connections <= 8


async def test_chats_that_hang_keep_no_other_chat_waiting() -> None:
    """Forty chats hang, with more calls than there are spare ones; one works on as before."""

    async def by_chat(request: Request, writer: asyncio.StreamWriter) -> None:
        hanging = request.headers["riverdelta-chat"].startswith("hung")
        await (hang if hanging else upper)(request, writer)

    async with (
        AgentServer(by_chat) as server,
        chain_of(agent(server.url, timeout_s=3_600), spare_calls=64) as chain,
    ):
        async with asyncio.TaskGroup() as group:
            hung = [
                group.create_task(judge(chain, chunks(*[b"x"] * 64), chat=f"hung-{n}"))
                for n in range(40)
            ]

            async def all_spare_calls_are_taken() -> bool:
                asked = (request.headers["riverdelta-chat"] for request in server.requests)
                return sum(chat != "well" for chat in asked) == 40 + 64

            await until(all_spare_calls_are_taken)
            for batch in (chunks(b"x"), chunks(*[b"x"] * 64)):
                answers = await judge(chain, batch, chat="well")
                assert {answer.data for answer in answers} == {b"X"}
            assert not any(task.done() for task in hung)
            for task in hung:
                task.cancel()


async def test_a_chat_whose_agent_hangs_pays_one_timeout_for_a_batch() -> None:
    async with (
        AgentServer(hang) as server,
        chain_of(agent(server.url, timeout_s=0.3)) as chain,
    ):
        filter_results = await judge(chain, chunks(*[b"x"] * 64))
    assert {filter_result.data for filter_result in filter_results} == {b"x"}
    codes = [filter_result.calls[0].code for filter_result in filter_results]
    assert codes == ["timeout"] * 8 + ["hung"] * 56, "calls at once wait; the others are not made"


async def test_what_is_abandoned_lets_go_at_once() -> None:
    async with AgentServer(hang) as server, chain_of(agent(server.url, timeout_s=3_600)) as chain:
        asking = asyncio.create_task(chain.filter_entries("c", chunks(b"x", b"y"), {"m": "text"}))

        async def asked() -> bool:
            return len(server.requests) == 2

        await until(asked)
        chain.abandon("c")
        assert await asking is None


# -- settings ------------------------------------------------------------------------------------


def test_agents_are_a_json_list() -> None:
    agents = TypeAdapter(tuple[HttpAgent, ...]).validate_json(
        '[{"name": "pii", "url": "https://pii.internal:8443/filter"},'
        ' {"name": "tone", "url": "http://tone/", "timeout_s": 0.5, "on_failure": "block",'
        '  "headers": {"authorization": "Bearer t0ken"}, "sources": ["text", "openai-chat"]}]'
    )
    pii, tone = agents
    assert (pii.timeout_s, pii.on_failure, pii.headers, pii.sources) == (2.0, "pass", {}, None)
    assert (tone.timeout_s, tone.on_failure) == (0.5, "block")
    assert tone.sources == ("text", "openai-chat")
    assert "t0ken" not in repr(agents)


@pytest.mark.parametrize(
    ("options", "emitted"),
    [
        ({"name": "a b"}, "name"),
        ({"url": "ftp://host/"}, "url"),
        ({"url": "http://user:password@host/"}, "credentials belong in headers"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"on_failure": "retry"}, "on_failure"),
        ({"headers": {"x": "a\r\ny: b"}}, "is no header"),
        ({"headers": {"a b": "c"}}, "is no header"),
        ({"headers": {"Content-Length": "7"}}, "is set by riverdelta"),
        ({"headers": {"Riverdelta-Chat": "c"}}, "is set by riverdelta"),
        ({"sources": ["openai"]}, "unknown sources"),
        ({"timeout_ms": 5}, "timeout_ms"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, object], emitted: str) -> None:
    with pytest.raises(ValidationError, match=emitted):
        agent(**{"url": "http://host/", **options})  # type: ignore[arg-type]
