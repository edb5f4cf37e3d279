"""
What the codecs of providers share: one place for the rules of steps, items, calls and failures.

A codec of a provider is a subclass of `ProviderCodec`. It reads documents in `_take`, and says what
they mean with these words only; each of them keeps its rule for every source:

- `_begin_step`, `_end_step`, `_fail_step`: a step begins once and ends once. The end decides what
  becomes of open calls (`cut`), whatever the event of the end is called.
- `_say(key, kind, text, out)`: text of a reader's chunk; begins the chunk if need be. The kind is
  part of what tells chunks apart: a text for another kind than the open chunk's opens its own.
- `_begin_call`, `_add_call`, `_close`: a call. Its arguments are followed (`Arguments`), so a call
  that was cut fails (`ChunkFail`) and only one that is whole ends (`ChunkEnd`). Empty arguments
  mean `{}`, unless the reply was cut.
- `_more(document)`: the short way. Nearly every chunk of a reply only goes on with an open text or
  call. A source checks here, in a few lookups, that a chunk does no more than that, and says the
  same as the long way would; any other goes the long way.
- `_skip(what)`: a payload was not taken. Counted in `skipped`; what is lost (not just without
  meaning for readers) is also counted by name, and a step of which nothing was understood says so
  (`Rejected`, code `not_understood`).
- `failures.find_failure` and `find_loose_failure`: the shapes of a failure. `_pieces_of` looks for
  the loose ones in a document of which `_take` made nothing.
- `texts`: `text_of` (any shape of a text), `index_or_none`, `find_usage`; `usage.finish_reason`: the
  words that providers end with.

`_event` is the name of the server-sent event that is being decoded, "" where there is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import orjson

from riverdelta.core.codecs.arguments import Arguments
from riverdelta.core.codecs.failures import find_loose_failure, step_fail
from riverdelta.core.codecs.json_text import UnusableError, clean, read_again
from riverdelta.core.codecs.old_states import is_old, upgrade
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkStart,
    Codec,
    CodecState,
    FinishReason,
    Format,
    Kind,
    Piece,
    Rejected,
    Run,
    StepEnd,
    StepFail,
    StepStart,
    Text,
    Usage,
)
from riverdelta.core.codecs.surrogates import Halves, dump_halves, join_halves, load_halves
from riverdelta.core.codecs.texts import text_or_none

EMPTY_JSON = "{}"
"""What empty arguments of a JSON tool call mean."""

BODY = "body of a response"
"""Name of the event for JSON that is the body of a response, and no event at all."""

INCOMPLETE = "incomplete"
"""Code of a call that was cut."""

NOT_UNDERSTOOD = "not_understood"
"""Code of a step, or of a message without one, in which nothing could be used."""

_CUT = "the reply ended inside this call: its arguments are not complete, do not run it"
_NAMELESS = "this call never said its name"

WHOLE_ENDS = frozenset[FinishReason | None]({"stop", "tool_calls", "pause"})
"""Finish reasons that cut nothing. After any other, a call without arguments may have lost them."""

_NAMES = 8
"""How many kinds of lost payloads are counted apart; the others are counted together."""
_NAME_LENGTH = 60
_OTHERS = "others"


_loads = orjson.loads


class OpenChunk:
    """
    A chunk that has begun.

    Attributes:
        kind: As its `ChunkStart`. None: not known, in the state of a version before.
        arguments: Follows the JSON arguments of a call; None: nobody has to.
        unsaid: What it says at its end if nothing else was said before.
        text_call: A call whose arguments are plain text: only its end can tell whether it is whole.
        nameless: A call that cannot be run, since nothing said which tool it calls.
    """

    __slots__ = ("arguments", "kind", "nameless", "text_call", "unsaid")

    def __init__(
        self,
        kind: Kind,
        unsaid: str = "",
        arguments: Arguments | None = None,
        *,
        text_call: bool = False,
        nameless: bool = False,
    ) -> None:
        self.kind = kind
        self.unsaid = unsaid
        self.arguments = arguments
        self.text_call = text_call
        self.nameless = nameless

    def feed_more(self, text: str) -> bool:
        """Take more arguments of a call, as `_add` does; False: they may be its first, ask `_add`."""
        arguments = self.arguments
        if self.unsaid:
            return False
        if arguments is not None:
            if not arguments.begun:
                return False
            arguments.feed(text)
        return True

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values."""
        arguments = None if self.arguments is None else self.arguments.dump()
        return [self.kind, self.unsaid, arguments, self.text_call, self.nameless]

    @classmethod
    def load(cls, state: list[Any]) -> OpenChunk:
        """Undo `dump`."""
        kind, unsaid, arguments, text_call, nameless = state
        follower = None if arguments is None else Arguments.load(arguments)
        return cls(kind, unsaid, follower, text_call=text_call, nameless=nameless)


def find_lost(state: CodecState) -> dict[str, int]:
    """Find in the dumped *state* of any codec what its message lost: how many payloads, by name."""
    inner = state.get("inner")
    lost = find_lost(inner) if type(inner) is dict else state.get("lost_in_all")
    return dict(lost or {})


class ProviderCodec(Codec, ABC):
    """
    A codec whose raw chunks are JSON objects and whose steps have a start and an end.

    Every `StepEnd` and `StepFail` follows its own `StepStart`; chunks open only inside a step.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._in_step = False
        self._open: dict[str, OpenChunk] = {}
        """Open chunks in the order they began."""
        self._halves: Halves = {}
        self._shown = False
        """The step has shown something, or failed; without a step: the message has."""
        self._lost: dict[str, int] = {}
        """By name, how many payloads were lost since the last step ended."""
        self._lost_in_all: dict[str, int] = {}
        """The same of the whole message, for operators: see `find_lost`."""
        self._odd = False
        """A document had half a character: texts that were held back may have one, too."""
        self._failed = False
        """The last step failed. What still comes of it, such as its failure said again, is old."""
        self._event = ""
        self._more_key = ""
        """Chunk of the text that `_more` gave last."""

    def decode(self, raw: bytes) -> list[Piece]:
        """Take one raw chunk; see `Codec.decode`."""
        try:
            document = _loads(raw)
        except ValueError as error:
            return self._decode_odd(raw, error)
        text = None if self._halves else self._more(document)
        return self._said(document) if text is None else [Text(self._more_key, text)]

    def decode_run(self, raws: Iterator[bytes]) -> Run:
        """Take raw chunks as long as they go on with one chunk; see `Codec.decode_run`."""
        key, texts = "", list[str]()
        for raw in raws:
            try:
                document = _loads(raw)
            except ValueError as error:
                return key, texts, self._decode_odd(raw, error)
            text = None if self._halves else self._more(document)
            if text is None:
                return key, texts, self._said(document)
            if self._more_key != key:
                if texts:
                    return key, texts, [Text(self._more_key, text)]
                key = self._more_key
            texts.append(text)
        return key, texts, None

    def decode_event(self, raw: bytes, name: str) -> list[Piece]:
        """Take the data of one server-sent event; see `Codec.decode_event`."""
        self._event = name
        try:
            return self.decode(raw)
        finally:
            self._event = ""

    def finish(self) -> list[Piece]:
        """Close what is open; see `Codec.finish`."""
        out: list[Piece] = []
        if self._in_step:
            self._finish_step(out)
        self._confess(out)
        return self._joined(out)

    def settle(self, *, retried: bool = False) -> list[Piece]:
        """End a step that only waits for stragglers; see `Codec.settle`."""
        out: list[Piece] = []
        if self._in_step and (self._is_complete() if retried else self._waits()):
            self._finish_step(out)
        return self._joined(out)

    def fail_cut_step(self, code: str, detail: str) -> list[Piece]:
        """Fail the step if its end was not said, because what held it was lost: see `sse`."""
        out: list[Piece] = []
        if (self._in_step and not self._waits()) or not (self._in_step or self._shown):
            self._fail(StepFail(code, detail), out)
        return self._joined(out)

    def dump(self) -> CodecState:
        """Everything `load` needs; see `Codec.dump`."""
        return {
            "in_step": self._in_step,
            "open": [[key, *chunk.dump()] for key, chunk in self._open.items()],
            "halves": dump_halves(self._halves),
            "skipped": self.skipped,
            "shown": self._shown,
            "lost": dict(self._lost),
            "lost_in_all": dict(self._lost_in_all),
            "failed": self._failed,
            "odd": self._odd,
            **self._dump_step(),
        }

    def load(self, state: CodecState) -> None:
        """Go on where *state* was dumped, by the version before if need be; see `Codec.load`."""
        if is_old(state):
            state = self._upgrade(state)
        self._in_step = state["in_step"]
        self._open = {key: OpenChunk.load(chunk) for key, *chunk in state["open"]}
        self._halves = load_halves(state["halves"])
        self.skipped = state["skipped"]
        self._shown = state["shown"]
        self._lost = dict(state["lost"])
        self._lost_in_all = dict(state["lost_in_all"])
        self._failed = state["failed"]
        self._odd = state["odd"]
        self._load_step(state)

    # --- what a source defines ---

    @abstractmethod
    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        """Add what *document* says to *out*. May raise `UnusableError`."""

    @abstractmethod
    def _finish_step(self, out: list[Piece]) -> None:
        """End the open step: nothing more comes, whether the provider said so or not."""

    @abstractmethod
    def _dump_step(self) -> CodecState: ...

    @abstractmethod
    def _load_step(self, state: CodecState) -> None: ...

    @abstractmethod
    def _forget_step(self) -> None:
        """Drop what belongs to the step that just ended."""

    def _more(self, document: Any) -> str | None:
        """
        Take a document of the most usual shape: one that only adds text to an open chunk.

        Must do exactly what `_take` does. Asked only while no half of a character waits.

        Returns:
            The text, not empty; `_more_key` is its chunk. None: nothing was done, ask `_take`.
        """
        del document
        return None

    def _upgrade(self, state: CodecState) -> CodecState:
        """Give the state that a codec of the version before dumped as this version has it."""
        return upgrade(state, lambda _: None)

    def _waits(self) -> bool:
        """Whether the open step's end was said, and it only waits for stragglers."""
        return False

    def _is_complete(self) -> bool:
        """Whether the open step has all that a whole call says: a retried call is another one."""
        return False

    def _done_marker(self, out: list[Piece]) -> None:
        """Take a `[DONE]`; *out* gets what waited for it."""
        del out
        self._skip("[DONE]", lost=False)

    # --- documents ---

    def _decode_odd(self, raw: bytes, error: ValueError) -> list[Piece]:
        out: list[Piece] = []
        if raw.strip() == b"[DONE]":
            self._done_marker(out)
        else:
            try:
                document = read_again(raw, error)
                self._odd = True
                out = self._pieces_of(document)
            except UnusableError as unusable:
                if self._event == "error":
                    self._fail_step(raw.decode("utf-8", "replace"), out)
                elif self._is_foreign():
                    self._skip(self._event)
                else:
                    out.append(Rejected(unusable.code, unusable.detail))
        return join_halves(out, self._halves)

    def _pieces_of(self, document: Any) -> list[Piece]:
        out: list[Piece] = []
        if type(document) is list and document and all(type(one) is dict for one in document):
            for one in document:  # some give an error, or a stream, as an array
                out += self._pieces_of(one)
            return out
        if type(document) is not dict:
            if self._event == "error":
                self._fail_step(document, out)
                return out
            if self._is_foreign():
                self._skip(self._event)
                return out
            return [Rejected("not_an_object", f"a {type(document).__name__} is not an object")]
        skipped = self.skipped
        try:
            self._take(document, out)
        except UnusableError as unusable:
            out.append(Rejected(unusable.code, unusable.detail))
        if not out and (self.skipped > skipped or self._event == "error"):
            failure = find_loose_failure(
                document, named=self._event == "error", body=self._event == BODY
            )
            if failure is not None and not self._is_foreign():
                self._fail(failure, out)
        return out

    def _said(self, document: Any) -> list[Piece]:
        """Take a document the long way."""
        return self._joined(self._pieces_of(document))

    def _joined(self, out: list[Piece]) -> list[Piece]:
        """Join the halves of characters in *out*, if there may be any."""
        return join_halves(out, self._halves) if self._halves or self._odd else out

    def _is_foreign(self) -> bool:
        """Whether the event's name shows that it is not the provider's own."""
        return self._event not in ("", "message", "error", "data", BODY) and not self._knows(
            self._event
        )

    def _knows(self, event: str) -> bool:
        """Whether the source has events of this name."""
        del event
        return False

    def _skip(self, what: str, *, lost: bool = True) -> None:
        """
        Count a payload that was not taken.

        Args:
            what: Names it for people: an event's type, a field.
            lost: It may have said something; False: it is known to carry nothing for a reader.
        """
        self.skipped += 1
        if lost:
            name = clean(what)[:_NAME_LENGTH] or "without a type"
            for counts in (self._lost, self._lost_in_all):
                known = name if name in counts or len(counts) < _NAMES else _OTHERS
                counts[known] = counts.get(known, 0) + 1

    def _confess(self, out: list[Piece]) -> None:
        """Say what was lost, if nothing at all was understood."""
        lost, self._lost = self._lost, {}
        if not lost or self._shown:
            return
        names = ", ".join(f"{name} ({count})" for name, count in lost.items())
        skipped = sum(lost.values())
        detail = f"nothing was understood; {skipped} payloads were skipped: {names}"
        out.append(Rejected(NOT_UNDERSTOOD, detail, skipped))

    # --- steps ---

    def _begin_step(self, model: Any, out: list[Piece]) -> None:
        self._in_step = True
        self._shown = self._failed = False
        out.append(StepStart(text_or_none(model)))

    def _end_step(
        self, reason: FinishReason | None, word: str | None, usage: Usage | None, out: list[Piece]
    ) -> None:
        """
        End the step as the provider said.

        Args:
            reason: Decides whether open calls were cut. None: the provider did not say.
            word: The provider's own word.
            usage: The last it gave.
            out: Gets the pieces.
        """
        self._close_all(out, cut=reason not in WHOLE_ENDS)
        self._confess(out)
        out.append(StepEnd(reason, word, usage))
        self._leave_step()

    def _fail_step(self, error: Any, out: list[Piece]) -> None:
        """Fail the step with the provider's *error*: an object, a message, or nothing useful."""
        self._fail(step_fail(error), out)

    def _fail(self, failure: StepFail, out: list[Piece]) -> None:
        if not self._in_step:
            if self._failed:
                self._skip("the failure again", lost=False)
                return
            self._begin_step(None, out)
        out.append(failure)
        self._leave_step()
        self._failed = True

    def _leave_step(self) -> None:
        self._in_step = False
        self._shown = True  # what comes after a step without one of its own is a straggler
        self._lost.clear()
        self._open.clear()
        self._forget_step()

    # --- chunks ---

    def _say(self, key: str, kind: Kind, text: str, out: list[Piece]) -> None:
        """Add text to a chunk that needs no more than its kind to begin; no text begins none."""
        if not text:
            return
        chunk = self._open.get(key)
        if chunk is not None and chunk.kind not in (kind, None):
            key = f"{key}:{kind}"
            chunk = self._open.get(key)
        if chunk is None:
            self._open[key] = OpenChunk(kind)
            self._shown = True
            out.append(ChunkStart(key, kind))
        out.append(Text(key, text))

    def _begin_call(
        self,
        key: str,
        name: str | None,
        call_id: str | None,
        out: list[Piece],
        *,
        form: Format = "json",
        unsaid: str = "",
        arguments: Arguments | None = None,
    ) -> None:
        """
        Begin the chunk of a tool call.

        Args:
            key: The codec's name for it, free among open chunks.
            name: Of the tool. None: the call never said it, and will fail.
            call_id: The provider's id of the call, if it has one.
            out: Gets the pieces.
            form: Whether its arguments are JSON or plain text.
            unsaid: Whole arguments that are known already, but stand back if others come.
            arguments: Follow them, if the source does so, too. `_add` feeds them.
        """
        if arguments is None or form == "text":
            arguments = Arguments() if form == "json" else None
        chunk = OpenChunk(
            "tool_call", unsaid, arguments, text_call=form == "text", nameless=name is None
        )
        self._open[key] = chunk
        self._shown = True
        out.append(ChunkStart(key, "tool_call", form, name, call_id))

    def _add(self, key: str, text: str, out: list[Piece]) -> None:
        """
        Add text to an open chunk.

        Some gateways begin every call with the arguments `{}`, and the true ones follow. So a `{}` at
        the beginning waits for the end, and stands back if others come.
        """
        chunk = self._open[key]
        if not text or (chunk.unsaid and not text.strip()):
            return
        arguments, chunk.unsaid = chunk.arguments, ""
        if arguments is not None:
            if not arguments.begun and text.strip() == EMPTY_JSON:
                chunk.unsaid = text
            arguments.feed(text)
        if not chunk.unsaid:
            out.append(Text(key, text))

    def _is_whole(self, key: str) -> bool:
        """Whether the open call *key* has JSON arguments that are complete."""
        chunk = self._open.get(key)
        return chunk is not None and chunk.arguments is not None and chunk.arguments.whole

    def _close(self, key: str, out: list[Piece], *, cut: bool = False) -> None:
        """
        End one chunk, if it is open.

        A call without arguments gets its `{}` here, unless it was *cut*: then nobody knows what its
        arguments would have been, and it fails. So does one whose arguments stop in the middle, and
        one that has no name.
        """
        chunk = self._open.pop(key, None)
        if chunk is None:
            return
        arguments = chunk.arguments
        if arguments is not None and not arguments.begun and not chunk.unsaid and not cut:
            chunk.unsaid = EMPTY_JSON
        if chunk.unsaid:
            out.append(Text(key, chunk.unsaid))
            if arguments is not None:
                arguments = Arguments.of(chunk.unsaid)  # nothing else came
        if (chunk.text_call and cut) or (arguments is not None and not arguments.whole):
            out.append(ChunkFail(key, INCOMPLETE, _CUT))
        elif chunk.nameless:
            out.append(ChunkFail(key, INCOMPLETE, _NAMELESS))
        else:
            out.append(ChunkEnd(key))

    def _close_all(self, out: list[Piece], *, cut: bool = False) -> None:
        for key in list(self._open):
            self._close(key, out, cut=cut)
