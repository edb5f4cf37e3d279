"""What the codecs of the three providers share: reading JSON, open chunks, the step they are in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import orjson

from riverdelta.core.codecs.json_text import UnusableError, read_again
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkStart,
    Codec,
    CodecState,
    Kind,
    Piece,
    Rejected,
    StepEnd,
    StepFail,
    StepStart,
    Text,
)
from riverdelta.core.codecs.surrogates import Halves, dump_halves, join_halves, load_halves

EMPTY_JSON = "{}"
"""What empty arguments of a JSON tool call mean."""


class ProviderCodec(Codec, ABC):
    """
    A codec whose raw chunks are JSON objects and whose steps have a start and an end.

    Every `StepEnd` and `StepFail` follows its own `StepStart`; chunks open only inside a step.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._in_step = False
        self._open: dict[str, str] = {}
        """Open chunks in the order they began → what they must still say before they end."""
        self._halves: Halves = {}

    def decode(self, raw: bytes) -> list[Piece]:
        """Take one raw chunk; see `Codec.decode`."""
        try:
            document = orjson.loads(raw)
        except ValueError as error:
            return self._decode_odd(raw, error)
        out = self._pieces_of(document)
        return join_halves(out, self._halves) if self._halves else out

    def finish(self) -> list[Piece]:
        """Close what is open; see `Codec.finish`."""
        out: list[Piece] = []
        if self._in_step:
            self._finish_step(out)
        return join_halves(out, self._halves) if self._halves else out

    def dump(self) -> CodecState:
        """Everything `load` needs; see `Codec.dump`."""
        return {
            "in_step": self._in_step,
            "open": list(self._open.items()),
            "halves": dump_halves(self._halves),
            "skipped": self.skipped,
            **self._dump_step(),
        }

    def load(self, state: CodecState) -> None:
        """Go on where *state* was dumped; see `Codec.load`."""
        self._in_step = state["in_step"]
        self._open = dict(state["open"])
        self._halves = load_halves(state["halves"])
        self.skipped = state["skipped"]
        self._load_step(state)

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

    def _done_marker(self, out: list[Piece]) -> None:
        """Take a `[DONE]`; *out* gets what waited for it."""
        del out
        self.skipped += 1

    def _decode_odd(self, raw: bytes, error: ValueError) -> list[Piece]:
        out: list[Piece] = []
        if raw.strip() == b"[DONE]":
            self._done_marker(out)
        else:
            try:
                out = self._pieces_of(read_again(raw, error))
            except UnusableError as unusable:
                out.append(Rejected(unusable.code, unusable.detail))
        return join_halves(out, self._halves)

    def _pieces_of(self, document: Any) -> list[Piece]:
        out: list[Piece] = []
        if type(document) is not dict:
            return [Rejected("not_an_object", f"a {type(document).__name__} is not an object")]
        try:
            self._take(document, out)
        except UnusableError as unusable:
            out.append(Rejected(unusable.code, unusable.detail))
        return out

    def _begin_step(self, model: Any, out: list[Piece]) -> None:
        self._in_step = True
        out.append(StepStart(text_or_none(model)))

    def _end_step(self, end: StepEnd | StepFail, out: list[Piece]) -> None:
        out.append(end)
        self._in_step = False
        self._open.clear()
        self._forget_step()

    def _fail_step(self, error: Any, out: list[Piece]) -> None:
        """Fail the step with the provider's *error*: an object, a message, or nothing useful."""
        if not self._in_step:
            self._begin_step(None, out)
        self._end_step(step_fail(error), out)

    def _say(self, key: str, kind: Kind, text: str, out: list[Piece]) -> None:
        """Add text to a chunk that needs no more than its kind to begin; no text begins none."""
        if text:
            if key not in self._open:
                self._open[key] = ""
                out.append(ChunkStart(key, kind))
            out.append(Text(key, text))

    def _add(self, key: str, text: str, out: list[Piece]) -> None:
        """Add text to an open chunk."""
        if text:
            self._open[key] = ""
            out.append(Text(key, text))

    def _close(self, key: str, out: list[Piece], *, cut: bool = False) -> None:
        """
        End one chunk, if it is open.

        A tool call without arguments gets its `{}` here, unless it was *cut*: then nobody knows
        what its arguments would have been, and a call that looks complete could be run.
        """
        unsaid = self._open.pop(key, None)
        if unsaid is None:
            return
        if unsaid and not (cut and unsaid == EMPTY_JSON):
            out.append(Text(key, unsaid))
        out.append(ChunkEnd(key))

    def _close_all(self, out: list[Piece], *, cut: bool = False) -> None:
        for key in list(self._open):
            self._close(key, out, cut=cut)


def text_or_none(value: Any) -> str | None:
    """Pass a string that says something; anything else is None."""
    return value if type(value) is str and value else None


def text_or_empty(value: Any) -> str:
    """Pass a string; anything else says nothing."""
    return value if type(value) is str else ""


def step_fail(error: Any) -> StepFail:
    """Make a `StepFail` of a provider's error: its code, else its type; its message."""
    if type(error) is not dict:
        return StepFail("provider_error", text_or_empty(error))
    code = error.get("code")
    if type(code) is int:
        code = str(code)
    code = text_or_none(code) or text_or_none(error.get("type")) or "provider_error"
    return StepFail(code, text_or_empty(error.get("message")))
