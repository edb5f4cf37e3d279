"""
Filter agents: an ordered chain that sees each raw chunk as pushed, before the codec.

Runs in the pump, between reading a batch and folding it. The chain only returns, for each chunk, the new
data (`FilterResult.data`) and each call (`FilterResult.calls`); the fold decides what that means.

- **Repeats**: a chunk is sent again if its batch was not committed: after a refused commit, a Redis error,
  a fold exception, a hand-over. It is never sent again after the commit. An agent recognises a repeat
  by chat and entry number.
- **Order**: each agent gets the answer of the one before. The calls of one batch overlap, so an agent may
  see a later chunk first (never with *calls_per_chat* = 1); the results are applied in stream order.
- **A hung agent costs only its own chat a timeout.** Every chat may always have one call in progress,
  and uses up to ``calls_per_chat - 1`` spare calls for a batch if some are free. So hung calls can use
  up the spare ones, which makes large batches of other chats slower, but never delay the next chunk of
  another chat. An agent that timed out for several chunks of a batch is skipped for the rest of the
  batch: 64 chunks cost one timeout, not 64 (two, with one call at a time).
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
"""``pass``: the chunk goes on as the agent got it. ``block``: the chunk is dropped."""

_HUNG_AFTER: Final = 2
"""Timeouts in one batch after which the agent is skipped. One may be bad luck."""

_log = logging.getLogger("riverdelta.worker")


class RawChunk(NamedTuple):
    """
    A chunk for an agent. Its ids are safe in headers, its data can be any bytes.

    Attributes:
        number: Number of the entry in the chat; unique together with *chat*.
        data: As pushed, or as the agent before answered.
    """

    chat: str
    message: str
    source: str
    number: int
    data: bytes


class AgentError(RiverdeltaError):
    """
    An agent failed; its policy decides what happens to the chunk.

    Args:
        code: For programs: ``timeout``, ``unreachable``, ``status``, ….
        detail: For the event that readers see: without addresses or parts of the chunk.
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
        ask: Returns the new data; ``b""`` drops the chunk. Any exception is a failure.
        timeout_s: Limit for one answer, connecting included.
        on_failure: What happens to a chunk when the agent failed.
        sources: Only messages of these sources are sent to it. None: all.
        close: Releases its resources.
    """

    name: str
    ask: Callable[[RawChunk], Awaitable[bytes]]
    timeout_s: float = 2.0
    on_failure: OnFailure = "pass"
    sources: tuple[str, ...] | None = None
    close: Callable[[], Awaitable[None]] | None = None


@dataclass(slots=True)
class _AgentHealth:
    """
    How one agent behaved in one batch, to decide whether to skip it.

    Attributes:
        answers: Answers and failures so far: signs of life.
        waiting: Calls in progress, including one that is timing out.
        in_vain: Chunks that waited for a whole timeout without a sign of life.
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
        # Without any answer so far, the other waiting calls have no sign of life either.
        self.in_vain += self.waiting if self.answers == answers_before else 1


@dataclass(slots=True)
class _Batch:
    """One batch of one chat in progress; its workers share the iterator."""

    chunks: Iterator[RawChunk]
    filter_results: dict[int, FilterResult]
    silences: list[_AgentHealth]
    """By agent."""


class FilterChain:
    """
    The agents of one worker process.

    Args:
        agents: In the order of the calls.
        max_chunk_bytes: A longer answer is a failure.
        calls_per_chat: Chunks of one batch that may be in progress at the same time.
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
        """Whether there are any agents."""
        return bool(self._agents)

    async def filter_entries(
        self, chat_id: str, entries: Sequence[Entry], sources: Mapping[str, str]
    ) -> dict[int, FilterResult] | None:
        """
        Send the raw chunks among *entries* to the agents.

        Args:
            chat_id: The chat; one batch of a chat at a time.
            entries: A batch in stream order; not changed.
            sources: Source by message id, of the messages open before the batch.

        Returns:
            Filter results by entry number, in stream order, for the chunks that any agent was sent; all
            other entries go on unchanged. None: `abandon` was called, fold nothing.
        """
        chunks = [
            chunk for chunk in _raw_chunks(chat_id, entries, sources) if self._concerns(chunk)
        ]
        if not chunks:
            return {}
        batch = _Batch(iter(chunks), {}, [_AgentHealth() for _ in self._agents])
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
        """Cancel the chat's calls because it is handed over; the next owner sends the chunks again."""
        scope = self._under_way.get(chat_id)
        if scope is not None and not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    async def aclose(self) -> None:
        """Close the agents; there must be no call in progress."""
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
            raise AgentError("hung", "was skipped: it did not answer for earlier chunks")
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
            _log.exception("filter agent %s raised an exception", agent.name)
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
    """Make the failure for an answer that exceeds the limit of a chunk."""
    return AgentError("oversized", f"answered with more than {limit} bytes")


def _sees(agent: Agent, chunk: RawChunk) -> bool:
    return agent.sources is None or chunk.source in agent.sources


def _raw_chunks(
    chat_id: str, entries: Iterable[Entry], sources: Mapping[str, str]
) -> Iterator[RawChunk]:
    """
    Select what the codec would see: chunks of messages that are open at that point of the stream.

    An empty chunk has nothing to filter, and its "unchanged" would look like "dropped".
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
    """Read the source of a start entry; an invalid one is left to the fold to reject."""
    try:
        options: Any = orjson.loads(start.data)
        return str(options["source"])
    except (ValueError, KeyError, TypeError):
        return None


def _report(chat_id: str, filter_results: Mapping[int, FilterResult]) -> None:
    """Log failures: one line per agent and code in a batch, not one per chunk."""
    counts: dict[tuple[str, Outcome, str | None], int] = {}
    for filter_result in filter_results.values():
        for call in filter_result.failures:
            key = (call.agent, call.outcome, call.detail)
            counts[key] = counts.get(key, 0) + 1
    for (agent, outcome, detail), count in counts.items():
        _log.warning(
            "chat %s: filter agent %s, %d chunks %s: %s", chat_id, agent, count, outcome, detail
        )
