"""Draining a backlog: against the same round trips without logic, and against a job per chunk."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any, NamedTuple

import orjson
from arq.connections import RedisSettings, create_pool
from arq.worker import Worker, func

from bench.load import openai_reply
from bench.loop import run
from bench.result import Row, row
from bench.server import BareConnection, BenchServer, pack
from riverdelta.broker.client import Client
from riverdelta.broker.producer.producer import Producer
from riverdelta.broker.redis.executor import Arg, Executor
from riverdelta.broker.redis.pubsub import ShardedPubSub
from riverdelta.broker.settings import Settings
from riverdelta_workers.pump import Pump

Command = tuple[Arg, ...]


class Spent(NamedTuple):
    """What a drain took: wall-clock time, and CPU time of this process."""

    wall_s: float
    cpu_s: float


class Stopwatch:
    """Runs from its making."""

    def __init__(self) -> None:
        self._wall_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def read(self) -> Spent:
        """Return what was spent so far."""
        return Spent(time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s)


_FILL_CHUNKS = 100
"""Chunks per call while the backlog is made."""
_FILL_COMMANDS = 50
_ARQ_POLL_S = 0.001
"""With arq's default of 10 jobs at once its fastest here: 10 to 500 jobs, 1 to 500 ms were tried."""
_NOT_COMPARED = frozenset(
    {"ping", "info", "config|resetstat", "flushall", "hello", "client|setinfo"}
)
"""Housekeeping of connections and of the bench itself."""


class RecordingExecutor(Executor):
    """An executor that remembers what it was asked."""

    def __init__(self, url: str, command_timeout_s: float) -> None:
        super().__init__(url, command_timeout_s)
        self.seen: list[Command] = []

    async def execute(self, *args: Arg) -> Any:
        """Remember, and send."""
        self.seen.append(args)
        return await super().execute(*args)


class Backlog:
    """
    The same backlog again and again: the commands of a real producer, recorded once.

    Args:
        chats: How many; one message each.
        content_chunks: Tokens of each reply.
    """

    def __init__(self, server: BenchServer, chats: int, content_chunks: int) -> None:
        self.server = server
        self.chats = [f"bench-{number:04d}" for number in range(chats)]
        self.raw_chunks = chats * len(openai_reply(content_chunks, 0))
        self._packed = run(self._record(content_chunks))

    def fill(self, connection: BareConnection) -> None:
        """Empty the server, and store the backlog."""
        connection.reset()
        for start in range(0, len(self._packed), _FILL_COMMANDS):
            connection.pipeline(self._packed[start : start + _FILL_COMMANDS])

    async def _record(self, content_chunks: int) -> list[bytes]:
        with self.server.connect() as connection:
            connection.reset()
        producer = Producer.from_url(self.server.url)
        recorder = _recording(producer._client)  # noqa: SLF001  # notes what it sends
        async with producer:
            for seed, chat_id in enumerate(self.chats):
                async with producer.message(chat_id, source="openai-chat") as message:
                    chunks = openai_reply(content_chunks, seed)
                    for start in range(0, len(chunks), _FILL_CHUNKS):
                        await message.push_many(chunks[start : start + _FILL_CHUNKS])
        return [pack(args) for args in recorder.seen if _stores(args)]


_STORING_KEYS = (8, 5)
"""How many keys open.lua and push.lua take; no other script on a chat that a producer calls does."""


def _stores(args: Command) -> bool:
    return args[0] == "EVALSHA" and args[2] in _STORING_KEYS and "{" in str(args[3])


def measure(server: BenchServer, *, quick: bool) -> tuple[list[Row], list[str]]:
    """Measure the drain rows."""
    chats, content_chunks, repeats = (40, 100, 2) if quick else (200, 500, 5)
    backlog = Backlog(server, chats, content_chunks)
    with server.connect() as connection:
        _drain(backlog, connection)  # warms up, and loads the scripts
        recorded, ours_did = _record_drain(backlog, connection)
        against_replay, against_arq, cpu = [], [], []
        replay_did = ours_did
        for _ in range(repeats):
            ours = _drain(backlog, connection)
            rival, replay_did = _replay(backlog, connection, recorded)
            rate = backlog.raw_chunks / ours.wall_s
            against_replay.append((rate, backlog.raw_chunks / rival.wall_s))
            against_arq.append((rate, _arq_rate(server, connection, 300 if quick else 2000)))
            cpu.append((_us(ours.cpu_s, backlog), _us(rival.cpu_s, backlog)))
    rows = [
        row("drain", "same commands, no logic", "chunks/s", against_replay, at_least=0.5),
        row("drain, worker CPU", "same commands, no logic", "us/chunk", cpu),
        row("drain", "arq, a job per chunk", "chunks/s", against_arq, at_least=30),
    ]
    return rows, [
        f"drain: {chats} chats x {content_chunks} tokens, pump in this process, {server.placement}",
        _equality(ours_did, replay_did),
    ]


def _us(seconds: float, backlog: Backlog) -> float:
    return seconds * 1e6 / backlog.raw_chunks


# -- riverdelta ----------------------------------------------------------------------------------


def _drain(backlog: Backlog, connection: BareConnection) -> Spent:
    backlog.fill(connection)
    return run(_drained_in(Client(Settings(redis_url=backlog.server.url)), backlog.chats))


def _record_drain(
    backlog: Backlog, connection: BareConnection
) -> tuple[dict[str, list[Command]], WorkDone]:
    """Drain once more, and return the commands of each chat in order, and what the server did."""
    backlog.fill(connection)
    connection.call("CONFIG", "RESETSTAT")
    client = Client(Settings(redis_url=backlog.server.url))
    recorder = _recording(client)
    run(_drained_in(client, backlog.chats))
    by_chat: dict[str, list[Command]] = defaultdict(list)
    for args in recorder.seen:
        by_chat[_chat_of(args)].append(args)
    return by_chat, _work_done(connection)


async def _drained_in(client: Client, chats: list[str]) -> Spent:
    """Claim the chats and pump them dry."""
    async with client:
        pump = Pump(client)
        await pump.start()
        watch = Stopwatch()
        await asyncio.gather(*(pump.attach(chat_id, 0) for chat_id in chats))
        attachments = pump._chats.values()  # noqa: SLF001  # asking Redis would be work of its own
        while tasks := [entry.task for entry in attachments if entry.task is not None]:
            await asyncio.wait(tasks)
        spent = watch.read()
        await pump._pubsub.aclose()  # noqa: SLF001  # pump.close would hand over, which is not measured
    return spent


def _recording(client: Client) -> RecordingExecutor:
    recorder = RecordingExecutor(client.settings.redis_url, client.settings.command_timeout_s)
    client.chats = client.pushes = client.queue = recorder
    return recorder


def _chat_of(args: Command) -> str:
    """Chat id in a command: in the braces of a key, else the member of one of the queue's keys."""
    for arg in args:
        if isinstance(arg, str) and "{" in arg:
            return arg[arg.index("{") + 1 : arg.index("}")]
    return str(args[-1])


# -- the same commands, no logic -----------------------------------------------------------------


def _replay(
    backlog: Backlog, connection: BareConnection, recorded: dict[str, list[Command]]
) -> tuple[Spent, WorkDone]:
    """Replay once; what it took, and what the server did for it."""
    backlog.fill(connection)
    connection.call("CONFIG", "RESETSTAT")
    spent = run(_replayed_in(backlog.server.url, recorded))
    did = _work_done(connection)
    heads = [f"rd:{{{chat_id}}}" for chat_id in backlog.chats]
    for head in heads:
        pushed, processed = connection.call("HMGET", head, "pushed", "processed")
        if pushed is None or pushed != processed:
            message = f"the replay left {head} at {processed!r} of {pushed!r}: it did other work"
            raise RuntimeError(message)
    return spent, did


async def _replayed_in(url: str, recorded: dict[str, list[Command]]) -> Spent:
    """Send what the drain sent, chat by chat in order, through the same executor."""
    settings = Settings(redis_url=url)
    pubsub = ShardedPubSub(
        url, settings.command_timeout_s, on_message=lambda *_: None, on_gap=lambda _: None
    )
    async with Client(settings) as client:
        await pubsub.start()
        execute, keys = client.chats.execute, client.keys

        async def chat(chat_id: str, commands: list[Command]) -> None:
            await pubsub.subscribe(keys.chat(chat_id).wake)
            for args in commands:
                await execute(*args)

        watch = Stopwatch()
        await asyncio.gather(*(chat(*item) for item in recorded.items()))
        spent = watch.read()
        await pubsub.aclose()
    return spent


WorkDone = tuple[dict[str, int], tuple[int, int]]


def _work_done(connection: BareConnection) -> WorkDone:
    """Calls of every command since the last reset, and bytes in and out."""
    transferred = connection.bytes_in_and_out()
    calls = {name: calls for name, (calls, _) in connection.command_stats().items()}
    return {name: n for name, n in sorted(calls.items()) if name not in _NOT_COMPARED}, transferred


def _equality(ours: WorkDone, replay: WorkDone) -> str:
    differing = {
        name: (ours[0].get(name, 0), replay[0].get(name, 0))
        for name in ours[0].keys() | replay[0].keys()
        if ours[0].get(name, 0) != replay[0].get(name, 0)
    }
    outer = " ".join(
        f"{name} {ours[0].get(name, 0)}" for name in ("evalsha", "xread", "xadd", "spublish")
    )
    verdict = "equal in every command" if not differing else f"DIFFER in {differing}"
    kib = " and ".join(
        f"{mine / 1024:,.0f}/{theirs / 1024:,.0f} KiB {way}"
        for mine, theirs, way in zip(ours[1], replay[1], ("in", "out"), strict=True)
    )
    return f"drain and its replay, commandstats: {verdict} ({outer}); bytes {kib}"


# -- a job per chunk -----------------------------------------------------------------------------


async def _handle_chunk(ctx: dict[str, Any], chat_id: str, raw: str) -> None:
    """Do the least a job has to: read the chunk, log its delta, publish it."""
    document = orjson.loads(raw)
    delta = document["choices"][0]["delta"].get("content") or ""
    pipeline = ctx["redis"].pipeline(transaction=False)
    pipeline.xadd(f"log:{chat_id}", {"event": delta})
    pipeline.publish(f"log:{chat_id}", delta)
    await pipeline.execute()


def _arq_rate(server: BenchServer, connection: BareConnection, jobs: int) -> float:
    connection.reset()
    return jobs / run(_arq_drained_in(server, jobs))


async def _arq_drained_in(server: BenchServer, jobs: int) -> float:
    """Run arq's worker over *jobs* queued ones; seconds."""
    options: dict[str, Any] = {"job_serializer": orjson.dumps, "job_deserializer": orjson.loads}
    redis_settings = RedisSettings.from_dsn(server.url)
    pool = await create_pool(redis_settings, **options)
    chunks = [chunk.decode() for chunk in openai_reply(jobs, 1)[1 : jobs + 1]]
    for start in range(0, jobs, _FILL_CHUNKS):
        await asyncio.gather(
            *(
                pool.enqueue_job("handle_chunk", f"c{number % 200}", chunks[number])
                for number in range(start, min(start + _FILL_CHUNKS, jobs))
            )
        )
    await pool.aclose()
    worker = Worker(
        functions=[func(_handle_chunk, name="handle_chunk")],
        redis_settings=redis_settings,
        burst=True,
        handle_signals=False,
        poll_delay=_ARQ_POLL_S,
        keep_result=0,
        log_results=False,
        **options,
    )
    started = time.perf_counter()
    await worker.async_run()
    seconds = time.perf_counter() - started
    if worker.jobs_complete != jobs:
        message = f"arq completed {worker.jobs_complete} of {jobs} jobs"
        raise RuntimeError(message)
    await worker.close()
    return seconds
