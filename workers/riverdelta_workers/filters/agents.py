"""
Filter agents: an ordered chain that sees each raw chunk as pushed, before the codec.

Runs in the pump, between reading a batch and folding it. The chain decides nothing about the chat:
for each chunk it returns the new data (`FilterResult.data`) and each call (`FilterResult.calls`).

- **Asked again** is a chunk whose batch was not committed: after a refused commit, a Redis error, a
  fold exception, a hand-over. Once its filtered form is committed, never. An agent can tell a repeat
  by chat and entry number.
- **Order**: each agent is given what the one before answered. The calls of one batch overlap, so an
  agent may see a later chunk first (*calls_per_chat* = 1: it never does); what they said is applied
  in stream order.
- **A hung agent costs its own chat its timeout.** Nobody waits for a permit: every chat may always
  have one call under way, and takes up to ``calls_per_chat - 1`` spare ones for a batch if there are
  any. So hung calls can take the spare ones, which makes large batches of others slower, but never
  keep another chat's next chunk waiting. An agent that several chunks of a batch waited for in vain
  is not asked again in that batch: 64 chunks cost one timeout, not 64 (two, one call at a time).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import orjson

from riverdelta.core.errors import RiverdeltaError
from riverdelta.core.filter_results import Call, FilterResult, Outcome
from riverdelta.core.state import Entry

OnFailure = Literal["pass", "block"]
"""``pass``: what the agent was given goes on without it. ``block``: the chunk goes no further."""

_HUNG_AFTER: Final = 2
"""Chunks that waited in vain: one may be bad luck, and asking on costs a timeout for every chunk."""

_log = logging.getLogger("riverdelta.worker")


class RawChunk(NamedTuple):
    """
    What an agent is asked about. Its ids are safe in headers, its data is any bytes at all.

    Attributes:
        number: The entry's place in the chat; with *chat* it names the chunk for ever.
        data: As pushed, or as the agent before answered.
    """

    chat: str
    message: str
    source: str
    number: int
    data: bytes


class AgentError(RiverdeltaError):
    """
    An agent did not do its work; its policy decides what happens to the chunk.

    Args:
        code: A word for programs: ``timeout``, ``unreachable``, ``status``, ….
        detail: What it did, for the event that readers see: no address, no part of the chunk.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Agent:
    """
    One agent of the chain.

    Attributes:
        name: For events and logs.
        ask: Answers with what is to go on; ``b""`` drops the chunk. Any exception is a failure.
        timeout_s: The longest one answer may take, connecting included.
        on_failure: What happens to a chunk that it failed at.
        sources: It sees messages of these sources only. None: of all.
        close: Lets go of what it holds.
    """

    name: str
    ask: Callable[[RawChunk], Awaitable[bytes]]
    timeout_s: float = 2.0
    on_failure: OnFailure = "pass"
    sources: tuple[str, ...] | None = None
    close: Callable[[], Awaitable[None]] | None = None


@dataclass(slots=True)
class _Silence:
    """
    What one batch knows of one agent: whether asking it is a waste of time.

    Attributes:
        answers: Answers and failures so far: signs of life.
        waiting: Calls under way, one that is just giving up included.
        in_vain: Chunks that waited a timeout long without a sign of life.
    """

    answers: int = 0
    waiting: int = 0
    in_vain: int = 0

    @property
    def hung(self) -> bool:
        return self.in_vain >= _HUNG_AFTER

    def answered(self) -> None:
        self.answers += 1
        self.in_vain = 0

    def timed_out(self, answers_before: int) -> None:
        # The others that are waiting heard as little as the one that just gave up, if it heard none.
        self.in_vain += self.waiting if self.answers == answers_before else 1


@dataclass(slots=True)
class _Batch:
    """One batch of one chat under way; its workers share the iterator."""

    chunks: Iterator[RawChunk]
    filter_results: dict[int, FilterResult]
    silences: list[_Silence]
    """By agent."""


class FilterChain:
    """
    The agents of one worker process.

    Args:
        agents: In the order they are asked.
        max_chunk_bytes: A longer answer is a failure.
        calls_per_chat: Chunks of one batch that may be under way together.
        spare_calls: Calls of the whole process beyond one for each chat.
    """

    def __init__(
        self,
        agents: Sequence[Agent],
        *,
        max_chunk_bytes: int,
        calls_per_chat: int = 8,
        spare_calls: int = 256,
    ) -> None:
        self._agents = tuple(agents)
        self._max_chunk_bytes = max_chunk_bytes
        self._calls_per_chat = calls_per_chat
        self._spare = spare_calls
        self._under_way: dict[str, asyncio.Timeout] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to ask."""
        return bool(self._agents)

    async def filter_entries(
        self, chat_id: str, entries: Sequence[Entry], sources: Mapping[str, str]
    ) -> dict[int, FilterResult] | None:
        """
        Ask the agents about the raw chunks among *entries*.

        Args:
            chat_id: Whose batch it is; one batch of a chat at a time.
            entries: A batch in stream order; they stay as they are.
            sources: Source by message id, of the messages open before the batch.

        Returns:
            Filter results by entry number, in stream order, for the chunks that any agent was asked
            about; all other entries go on as they are. None: `abandon` was called, fold nothing.
        """
        chunks = [
            chunk for chunk in _raw_chunks(chat_id, entries, sources) if self._concerns(chunk)
        ]
        if not chunks:
            return {}
        batch = _Batch(iter(chunks), {}, [_Silence() for _ in self._agents])
        scope = self._under_way[chat_id] = asyncio.timeout(None)
        try:
            async with scope:
                await self._run(batch, len(chunks))
        except TimeoutError:
            return None
        finally:
            if self._under_way.get(chat_id) is scope:
                del self._under_way[chat_id]
        filter_results = dict(sorted(batch.filter_results.items()))
        _report(chat_id, filter_results)
        return filter_results

    def abandon(self, chat_id: str) -> None:
        """Wait no longer for the chat's calls (it is handed over); the next owner asks again."""
        scope = self._under_way.get(chat_id)
        if scope is not None and not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        """Let go of what the agents hold; there must be no call under way."""
        for agent in self._agents:
            if agent.close is not None:
                await agent.close()

    # -- one batch -------------------------------------------------------------------------------

    async def _run(self, batch: _Batch, chunks: int) -> None:
        helpers = max(0, min(self._calls_per_chat, chunks) - 1)
        helpers = min(helpers, self._spare)
        if not helpers:
            await self._work(batch)
            return
        async with asyncio.TaskGroup() as group:
            for _ in range(helpers):
                self._spare -= 1
                helper = group.create_task(self._work(batch))
                helper.add_done_callback(self._give_back)
            await self._work(batch)

    def _give_back(self, _: asyncio.Task[None]) -> None:
        self._spare += 1

    async def _work(self, batch: _Batch) -> None:
        for chunk in batch.chunks:
            batch.filter_results[chunk.number] = await self._judge(batch, chunk)

    async def _judge(self, batch: _Batch, chunk: RawChunk) -> FilterResult:
        calls: list[Call] = []
        for index, agent in enumerate(self._agents):
            if not _sees(agent, chunk):
                continue
            try:
                answer = await self._ask(batch, index, chunk)
            except AgentError as error:
                blocked = agent.on_failure == "block"
                outcome: Outcome = "failed_blocked" if blocked else "failed_passed"
                calls.append(Call(agent.name, outcome, error.code, error.detail))
                if blocked:
                    return FilterResult(None, tuple(calls))
                continue
            if answer == chunk.data:
                calls.append(Call(agent.name, "passed"))
            elif answer:
                calls.append(Call(agent.name, "changed"))
                chunk = chunk._replace(data=answer)
            else:
                calls.append(Call(agent.name, "dropped"))
                return FilterResult(None, tuple(calls))
        return FilterResult(chunk.data, tuple(calls))

    async def _ask(self, batch: _Batch, index: int, chunk: RawChunk) -> bytes:
        agent, silence = self._agents[index], batch.silences[index]
        if silence.hung:
            raise AgentError("hung", "was not asked: it did not answer about the chunks before")
        before = silence.answers
        silence.waiting += 1
        try:
            async with asyncio.timeout(agent.timeout_s):
                answer = await agent.ask(chunk)
        except TimeoutError:
            silence.timed_out(before)
            raise AgentError("timeout", f"did not answer within {agent.timeout_s:g} s") from None
        except AgentError:
            silence.answered()
            raise
        except Exception as error:
            silence.answered()
            _log.exception("filter agent %s broke", agent.name)
            raise AgentError("error", type(error).__name__) from error
        finally:
            silence.waiting -= 1
        silence.answered()
        if len(answer) > self._max_chunk_bytes:
            raise oversized(self._max_chunk_bytes)
        return answer

    def _concerns(self, chunk: RawChunk) -> bool:
        return any(_sees(agent, chunk) for agent in self._agents)


def oversized(limit: int) -> AgentError:
    """Make the failure of an agent that answers more than a chunk may hold."""
    return AgentError("oversized", f"answered with more than {limit} bytes")


def _sees(agent: Agent, chunk: RawChunk) -> bool:
    return agent.sources is None or chunk.source in agent.sources


def _raw_chunks(
    chat_id: str, entries: Iterable[Entry], sources: Mapping[str, str]
) -> Iterator[RawChunk]:
    """
    Pick what the codec would see: chunks of messages that are open at their place in the stream.

    An empty chunk has nothing to filter, and "unchanged" could not be told from "dropped".
    """
    sources = dict(sources)
    for entry in entries:
        if entry.type == "chunk":
            source = sources.get(entry.message)
            if source is not None and entry.data:
                yield RawChunk(chat_id, entry.message, source, entry.number, entry.data)
        elif entry.type == "start":
            source = _source_of(entry)
            if source is not None:
                sources.setdefault(entry.message, source)
        elif entry.type in {"end", "fail", "stop"}:
            sources.pop(entry.message, None)


def _source_of(start: Entry) -> str | None:
    """Read a start entry; a broken one is the fold's to refuse."""
    try:
        options: Any = orjson.loads(start.data)
        return str(options["source"])
    except (ValueError, KeyError, TypeError):
        return None


def _report(chat_id: str, filter_results: Mapping[int, FilterResult]) -> None:
    """Log failures: one line for each agent and kind in a batch, not one for each chunk."""
    counts: dict[tuple[str, Outcome, str | None], int] = {}
    for filter_result in filter_results.values():
        for call in filter_result.failures:
            key = (call.agent, call.outcome, call.detail)
            counts[key] = counts.get(key, 0) + 1
    for (agent, outcome, detail), count in counts.items():
        _log.warning(
            "chat %s: filter agent %s, %d chunks %s: %s", chat_id, agent, count, outcome, detail
        )
