"""
The fold: raw entries in, events and state changes out. All decisions about a chat are made here.

`ChatFold.apply` advances a `ChatState` over a batch of entries and returns what to write: numbered
events, the messages and chunks that changed, dead letters, and old messages whose keys are deleted. It
is deterministic and does not depend on how the entries were batched, except that neighbouring deltas of
one chunk inside a batch become one event.

After an exception the state is incomplete: discard it and load it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

import orjson

from riverdelta.core.batch import Batch
from riverdelta.core.changes import CardEnd, Changes, OwedCall, RejectedEntry
from riverdelta.core.chunks import Chunks
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkStart,
    Piece,
    ProcessorFail,
    Rejected,
    StepEnd,
    StepFail,
    StepStart,
    Text,
)
from riverdelta.core.equip import encode_card
from riverdelta.core.errors import LimitExceeded
from riverdelta.core.events import (
    Annotated,
    EventType,
    Failure,
    MessageCompleted,
    MessageReplaced,
    MessageStarted,
    MessageStopped,
    StepCompleted,
    StepFailed,
    StepStarted,
)
from riverdelta.core.filter_results import Call, FilterResult
from riverdelta.core.notes import Notes
from riverdelta.core.parser import complete_card
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.processors import ToolResult
from riverdelta.core.retried_calls import RetriedCalls
from riverdelta.core.safe_failures import (
    HiddenFailure,
    failure_id,
    provider_failure,
    rejected_failure,
)
from riverdelta.core.state import (
    ChatState,
    Entry,
    MessageState,
    Recent,
    ToolCall,
)
from riverdelta.core.stitch import OVERLAP_RULES
from riverdelta.core.usage import add_usage, usage_data

RECENT_MESSAGES: Final = 50
"""Messages kept per chat (for snapshots and as idempotency keys). Older ended ones are deleted."""


CHUNKS_MAX: Final = 10_000
"""Chunks of a message that raw chunks can begin. Each has a hash of its own, written by one commit."""


class ChatFold:
    """
    Folds the entries of one chat.

    Args:
        state: The chat; the fold owns it from here on.
        pipeline: The filters, processors and observers of the deployment.
    """

    def __init__(self, state: ChatState, pipeline: Pipeline) -> None:
        self.state = state
        self._pipeline = pipeline
        self._batch = Batch(state)
        self._chunks = Chunks(state, self._batch, pipeline)
        self._retried_calls = RetriedCalls(self._chunks, pipeline)
        self._notes = Notes(self._chunks, pipeline)

    def apply(
        self,
        entries: Sequence[Entry],
        now_ms: int,
        filter_results: Mapping[int, FilterResult] | None = None,
    ) -> Changes:
        """
        Fold *entries*, in stream order, into the state.

        Args:
            entries: Consecutive, the first right behind ``state.processed``.
            now_ms: Unix time in milliseconds for the events' ``ts``.
            filter_results: Results of filter agents for raw chunks, by entry number.

        Raises:
            LimitExceeded: An entry would give a message too many chunks or calls: `reject` it.
        """
        self._batch.begin(now_ms)
        if filter_results:
            self._fold_filtered(entries, filter_results)
        else:
            self._fold(entries)
        return self._batch.end()

    def _fold_filtered(
        self, entries: Sequence[Entry], filter_results: Mapping[int, FilterResult]
    ) -> None:
        # Count the bytes that were pushed, not those that a filter left: producers wait for them.
        taken = self.state.processed_bytes + sum(len(entry.data) for entry in entries)
        run: list[Entry] = []
        emitted: set[tuple[str, Call]] = set()
        for entry in entries:
            filter_result = filter_results.get(entry.number)
            if filter_result is None:
                run.append(entry)
                continue
            if filter_result.failures:
                self._fold(run)
                run = []
                self._filter_failed(entry, filter_result, emitted)
            if filter_result.data is not None:
                run.append(entry._replace(data=filter_result.data))
        self._fold(run)
        self.state.processed = entries[-1].number
        self.state.processed_bytes = taken

    def _filter_failed(
        self, entry: Entry, filter_result: FilterResult, emitted: set[tuple[str, Call]]
    ) -> None:
        message = self.state.messages.get(entry.message)
        for call in filter_result.failures:
            detail = self._chunks.filtered(f"filter agent {call.agent} {call.detail}")
            if call.outcome == "failed_blocked":
                shown = Failure(code="filter_blocked", detail=detail)  # the agent's detail is safe
                self._reject(message, entry, "filter_blocked", detail, shown)
            elif (entry.message, call) not in emitted:
                emitted.add((entry.message, call))
                failure = Failure(code="filter_failed", detail=detail)
                self._batch.emit("input.rejected", entry.message, None, failure)

    def _fold(self, entries: Iterable[Entry]) -> None:
        messages = self.state.messages
        for group in _groups(entries):
            first = group[0]
            message = messages.get(first.message)
            if first.type == "chunk" and message is not None:
                self._raw_chunks(message, group)
            else:
                for entry in group:
                    self._advance(entry)
                    self._control(message, entry)
            self._fail_broken()

    def reject(self, entry: Entry, code: str, detail: str, now_ms: int) -> Changes:
        """Skip *entry* without folding it, because it broke the fold or killed its workers."""
        self._batch.begin(now_ms)
        self._advance(entry)
        if entry.type == "start" and entry.message not in self.state.recent:
            # The settings of the message cannot be read: fail it, so that it does not stay open.
            codec = self._pipeline.codec("text", "append", "emit")
            message = self._open(MessageState(entry.message, "text", codec, ""))
            failure = failure_id(entry.message, entry.number)
            self._fail_with(message, rejected_failure(code, failure))
        self._reject(self.state.messages.get(entry.message), entry, code, detail)
        return self._batch.end()

    def _advance(self, entry: Entry) -> None:
        self.state.processed = entry.number
        self.state.processed_bytes += len(entry.data)

    # -- entries ---------------------------------------------------------------------------------

    def _raw_chunks(self, message: MessageState, entries: Sequence[Entry]) -> None:
        raws = [entry.data for entry in entries]
        size = sum(map(len, raws))
        self._batch.changes.messages[message.id] = message
        message.raw_chunks += len(raws)
        message.raw_bytes += size
        self.state.processed = entries[-1].number
        self.state.processed_bytes += size
        unread, at = iter(raws), 0
        while at < len(raws):
            key, texts, pieces = message.codec.decode_run(unread)
            if texts:
                self._chunks.add_run(message, key, texts, entries[at : at + len(texts)])
                at += len(texts)
            if pieces is not None:
                self._pieces(message, pieces, entries[at])
                at += 1

    def _pieces(self, message: MessageState, pieces: Iterable[Piece], entry: Entry) -> None:
        message.last_at_ms = entry.at_ms
        for piece in pieces:
            if type(piece) is Text:
                self._chunks.add(message, piece.key, piece.text)
            else:
                if type(piece) is ChunkStart and message.chunk_count >= CHUNKS_MAX:
                    raise LimitExceeded(f"more than {CHUNKS_MAX} chunks in one message")
                self._piece(message, piece, entry)

    def _control(self, message: MessageState | None, entry: Entry) -> None:
        if entry.type == "start":
            if entry.message not in self.state.recent:
                self._start(entry)
            return
        if message is None:
            # The message ended before this entry (the first end in stream order wins): not an error.
            if entry.message not in self.state.recent:
                self._reject(None, entry, "unknown_message", "no open message has this id")
            return
        handler = self._CONTROLS.get(entry.type)
        if handler is None:
            self._reject(message, entry, "unknown_entry", f"entry type {entry.type!r} is unknown")
            return
        self._batch.changes.messages[message.id] = message
        message.last_at_ms = entry.at_ms
        handler(self, message, entry)

    def _start(self, entry: Entry) -> None:
        options = orjson.loads(entry.data)
        source, mode, on_mismatch = options["source"], options["mode"], options["on_mismatch"]
        message = MessageState(
            id=entry.message,
            source=source,
            codec=self._pipeline.codec(source, mode, on_mismatch),
            producer=options["producer"],
            mode=mode,
            on_mismatch=on_mismatch,
            metadata=options["metadata"],
            about=options.get("about", {}),
        )
        self._open(message)
        if replaces := options.get("replaces"):
            self._replace(message, replaces)

    def _adopt(self, message: MessageState, entry: Entry) -> None:
        """Another producer writes the message from here on, in its own encoding; "": it waits for one."""
        options = orjson.loads(entry.data)
        if message.raw_chunks or message.chunk_count:
            self._reject(message, entry, "bad_adopt", "the message has chunks of another producer")
            return
        message.producer = options["producer"]
        if message.producer:
            message.source, message.mode = options["source"], options["mode"]
            message.on_mismatch = options["on_mismatch"]
            codec = self._pipeline.codec(message.source, message.mode, message.on_mismatch)
            message.codec = codec
        recent = self.state.recent[message.id]
        self.state.recent[message.id] = recent._replace(producer=message.producer)
        self._batch.changes.adopted.add(message.id)

    def _open(self, message: MessageState) -> MessageState:
        message.pipeline = self._pipeline.version
        self.state.messages[message.id] = message
        self.state.recent[message.id] = Recent(0, message.producer)
        self._batch.changes.messages[message.id] = message
        self._drop_old()
        started = MessageStarted(
            role=message.role, source=message.source, metadata=message.metadata
        )
        self._batch.emit("message.started", message.id, None, started)
        return message

    def _drop_old(self) -> None:
        surplus = len(self.state.recent) - RECENT_MESSAGES
        if surplus <= 0:
            return
        recent = self.state.recent
        # A copy: a long batch is folded in a thread, and a call that was made is taken off meanwhile.
        kept = self.state.messages.keys() | {message_id for message_id, _ in tuple(self.state.owed)}
        ended = [mid for mid in recent if mid not in kept]
        ended.sort(
            key=lambda mid: not recent[mid].replaced
        )  # replaced messages first: no reader sees them
        for mid in ended[:surplus]:
            self._batch.changes.dropped[mid] = recent.pop(mid)

    def _replace(self, message: MessageState, replaced: list[str]) -> None:
        """Hide the messages *replaced* from readers; those that are open are stopped."""
        for mid in replaced:
            if mid == message.id or mid not in self.state.recent:
                continue
            still_open = self.state.messages.get(mid)
            if still_open is not None:
                self._batch.changes.messages[mid] = still_open
                self._stop_for(still_open, "replaced")
            self.state.recent[mid] = self.state.recent[mid]._replace(replaced=True)
        self._batch.emit("message.replaced", message.id, None, MessageReplaced(messages=replaced))

    def _settle(self, message: MessageState, entry: Entry, *, retried: bool = False) -> None:
        """The producer shows that its provider call is over: end its step, if it only waits."""
        for piece in message.codec.settle(retried=retried):
            self._piece(message, piece, entry)

    def _tool_result(self, message: MessageState, entry: Entry) -> None:
        self._settle(message, entry)
        result = orjson.loads(entry.data)
        call_id, content = result["tool_call_id"], result["content"]
        call_id = message.call_aliases.get(call_id, call_id)
        call = message.tool_calls.get(call_id)
        is_text = isinstance(content, str)
        text = content if is_text else orjson.dumps(content).decode()
        start = ChunkStart(
            key="",  # a key that no codec uses
            kind="tool_result",
            format="text" if is_text else "json",
            tool_name=None if call is None else call.tool_name,
            tool_call_id=call_id,
            mode="append",
        )
        shown = self._chunks.add_whole(message, start, text)
        if call is not None:
            if shown != text:  # the card must match the filtered text
                content = shown if is_text else _read(shown)
            self._complete_card(message, call_id, call, content)

    def _complete_card(
        self, message: MessageState, call_id: str, call: ToolCall, content: Any
    ) -> None:
        """Complete the card of a call with its result, by the processor that began the card."""
        asked, before = call.processor, None
        if (known := message.cards.pop(call_id, None)) is not None:
            asked, before = known
        result = ToolResult(call.tool_name, call_id, content, before)
        processor, card, failure = complete_card(self._pipeline.processors, result, asked)
        chunk_id = f"{message.id}.{call.chunk_index}"
        if processor is not None and card is not None:
            still_open = self._chunks.open_at(message, call.chunk_index)
            if still_open is not None:  # more of the card may follow the result
                self._batch.add_output(message.id, still_open, processor, encode_card(card))
            else:
                end = CardEnd(message.id, call.chunk_index, processor, encode_card(card))
                self._batch.end_card(end)
        if failure is not None:
            self._batch.processor_failed(message.id, chunk_id, failure.processor, "exception")

    def _restart(self, message: MessageState, entry: Entry) -> None:
        rule = orjson.loads(entry.data)["on_overlap"]
        if rule not in OVERLAP_RULES:
            self._reject(message, entry, "bad_restart", f"on_overlap {rule!r} is unknown")
            return
        self._settle(message, entry, retried=True)
        self._retried_calls.begin(message, rule)

    def _annotate(self, message: MessageState, entry: Entry) -> None:
        note = orjson.loads(entry.data)
        self._add_note(message, self._notes.filtered(message, note["name"], note["data"]))

    def _add_note(self, message: MessageState, annotation: Annotated) -> None:
        message.annotations.append(annotation)
        self._batch.emit("message.annotated", message.id, None, annotation)

    # -- pieces ----------------------------------------------------------------------------------

    def _piece(self, message: MessageState, piece: Piece, entry: Entry) -> None:
        match piece:
            case Text() | ChunkStart() | ChunkEnd() | ChunkFail() | ProcessorFail():
                self._retried_calls.apply(message, piece)
            case StepStart(model):
                self._step_start(message, self._filtered(model))
            case StepEnd():
                self._step_end(message, piece)
            case StepFail(code, detail):
                self._step_fail(message, self._provider_failure(entry, code, detail))
            case Rejected(code, detail, skipped):
                self._reject(message, entry, code, detail, skipped=skipped)

    def _step_start(self, message: MessageState, model: str | None) -> None:
        if message.retried_call is not None and not message.retried_call.begun:
            message.retried_call.begun = True  # the retried call continues the open step
            return
        if message.step_open:
            self._step_end(message, StepEnd(None, None, None))
        message.closed.clear()
        message.step += 1
        message.step_open = True
        message.failure = None
        self._batch.emit(
            "step.started", message.id, None, StepStarted(step=message.step, model=model)
        )

    def _step_end(self, message: MessageState, end: StepEnd) -> None:
        self._retried_calls.finish(message)
        for key in list(message.open_chunks):
            self._chunks.end(message, key)
        message.closed.clear()
        usage = None if end.usage is None else usage_data(end.usage)
        if usage is not None:
            usage["raw"] = self._chunks.filtered_value(usage["raw"])
        message.usage = add_usage(message.usage, usage)
        message.step_open = False
        message.finish_reason = end.finish_reason
        completed = StepCompleted(
            step=message.step,
            finish_reason=end.finish_reason,
            raw_finish_reason=self._filtered(end.raw_finish_reason),
            usage=usage,
        )
        self._batch.emit("step.completed", message.id, None, completed)

    def _step_fail(self, message: MessageState, failure: Failure) -> None:
        self._retried_calls.abandon(message)
        self._chunks.fail_all(message, failure)
        if not message.step_open:
            message.step += 1  # failed before it started: count it as a step
        message.step_open = False
        message.failure = failure
        failed = StepFailed(step=message.step, **failure)
        self._batch.emit("step.failed", message.id, None, failed)

    # -- the three ends of a message -------------------------------------------------------------

    def _complete(self, message: MessageState, entry: Entry) -> None:
        for piece in message.codec.finish():
            self._piece(message, piece, entry)
        if message.step_open:
            self._step_end(message, StepEnd(None, None, None))
        self._fail_broken()
        if message.status != "open":
            return
        if message.failure is not None:
            detail = f"{message.failure['code']}: {message.failure['detail']}"
            self._fail_with(message, Failure(code="source_error", detail=detail))
            return
        completed = MessageCompleted(
            finish_reason=message.finish_reason,
            usage=message.usage,
            timings={"ttft_ms": message.ttft_ms, "duration_ms": message.last_at_ms},
            bytes=message.raw_bytes,
            chunks=message.raw_chunks,
        )
        message.status = "completed"
        self._close(message, "message.completed", completed)

    def _fail(self, message: MessageState, entry: Entry) -> None:
        self._settle(message, entry)
        failure = orjson.loads(entry.data)  # in the producer's words, which are for readers
        code, detail = failure["code"], failure["detail"]
        filtered = self._chunks.filtered
        self._fail_with(message, Failure(code=filtered(code), detail=filtered(detail)))

    def _fail_with(self, message: MessageState, failure: Failure) -> None:
        self._release(message)
        if message.step_open:
            self._step_fail(message, failure)
        self._chunks.fail_all(message, failure)
        message.failure = failure
        message.status = "failed"
        self._close(message, "message.failed", failure)

    def _fail_broken(self) -> None:
        """Fail the messages whose processors raised, where the pipeline asks for that."""
        if self._pipeline.on_processor_failure == "disable":
            return
        for message_id, detail in self._batch.pop_broken().items():
            message = self.state.messages.get(message_id)
            if message is not None:
                self._fail_with(message, Failure(code="processor_failed", detail=detail))

    def _stop(self, message: MessageState, entry: Entry) -> None:
        self._settle(message, entry)
        reason = orjson.loads(entry.data)["reason"]
        self._stop_for(message, self._chunks.filtered(reason) or "stopped")

    def _stop_for(self, message: MessageState, reason: str) -> None:
        message.stop_reason = reason
        self._release(message)
        self._retried_calls.abandon(message)
        if message.step_open:
            self._step_end(message, StepEnd(None, None, None))
        message.status = "stopped"
        stopped = MessageStopped(reason=message.stop_reason)
        self._close(message, "message.stopped", stopped)

    def _release(self, message: MessageState) -> None:
        """Send the text that the codec of an interrupted message held back."""
        for piece in message.codec.release():
            self._retried_calls.apply(message, piece)

    def _close(
        self, message: MessageState, type_: EventType, data: Any
    ) -> None:  # as in encode_event
        for annotation in self._notes.rest(message):
            self._add_note(message, annotation)
        self._batch.emit(type_, message.id, None, data)
        del self.state.messages[message.id]
        for observer in self._pipeline.observers:
            call = OwedCall(message.id, observer.name, self._batch.changes.events[-1])
            self._batch.changes.owed.append(call)
            self.state.owed.add((message.id, observer.name))

    # -- writing down ----------------------------------------------------------------------------

    def _filtered(self, text: str | None) -> str | None:
        return None if text is None else self._chunks.filtered(text)

    def _provider_failure(self, entry: Entry, code: str, detail: str) -> Failure:
        failure = self._hide(entry, code, detail)
        shown = self._chunks.filtered(code)
        if self._pipeline.failure_texts:
            return Failure(code=shown, detail=self._chunks.filtered(detail))
        return provider_failure(shown, failure)

    def _hide(self, entry: Entry, code: str, text: str) -> str:
        """Keep the text of a failure from readers; return the id under which the log has it."""
        failure = failure_id(entry.message, entry.number)
        self._batch.changes.hidden.append(HiddenFailure(failure, code, text))
        return failure

    def _reject(
        self,
        message: MessageState | None,
        entry: Entry,
        code: str,
        detail: str,
        shown: Failure | None = None,
        *,
        skipped: int = 0,
    ) -> None:
        """
        Reject an entry; readers get *shown*. None: *detail* is for the dead letter only.

        *skipped*: of how many payloads nothing was understood.
        """
        if message is not None:
            message.rejected += 1
            self._batch.changes.messages[message.id] = message
        if shown is None:
            failure = self._hide(entry, code, detail)
            shown = rejected_failure(code, failure, skipped)
            if self._pipeline.failure_texts:
                shown = Failure(code=code, detail=self._chunks.filtered(detail))
            detail = f"{detail} (error {failure})"
        self._batch.changes.rejected.append(RejectedEntry(entry, code, detail))
        self._batch.emit("input.rejected", entry.message, None, shown)

    _CONTROLS: ClassVar[Mapping[str, Callable[[ChatFold, MessageState, Entry], None]]] = {
        "adopt": _adopt,
        "tool_result": _tool_result,
        "annotate": _annotate,
        "restart": _restart,
        "end": _complete,
        "fail": _fail,
        "stop": _stop,
    }
    """Entry type -> what it does to its message."""


def _read(text: str) -> Any:
    """Decode a value that a filter may have changed; return it as text where it is no longer JSON."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _groups(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Group neighbouring raw chunks of one message; every other entry is a group of one."""
    group: list[Entry] = []
    joins: str | None = None
    for entry in entries:
        is_chunk = entry.type == "chunk"
        if is_chunk and entry.message == joins:
            group.append(entry)
            continue
        if group:
            yield group
        group, joins = [entry], entry.message if is_chunk else None
    if group:
        yield group
