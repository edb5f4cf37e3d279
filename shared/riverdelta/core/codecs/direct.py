"""Source `chunks`: agents that took the provider apart themselves name the chunks."""

from __future__ import annotations

from typing import Any, NoReturn, cast, get_args

from riverdelta.core.codecs.json_text import UnusableError, clean
from riverdelta.core.codecs.old_states import upgrade
from riverdelta.core.codecs.pieces import (
    ChunkStart,
    CodecState,
    Format,
    Kind,
    Mode,
    Piece,
)
from riverdelta.core.codecs.provider import EMPTY_JSON, OpenChunk, ProviderCodec

_KINDS = get_args(Kind)
_MODES = get_args(Mode)
_TEXT_FIELDS = ("tool_name", "tool_call_id", "processor", "text")


class ChunksCodec(ProviderCodec):
    """
    One step for the whole message, with the chunks that the producer names.

    The step begins with the first chunk and ends with the producer's end, the only one this source
    has: finish reason `stop`.

    A chunk begins where its name is first used, even without text, so that a tool call can be
    shown before its arguments; it ends with `done` (or with the message), and then its name is
    free again. A tool call is `json`, everything else `text`. What the first push of a chunk
    said about it holds: later ones need only `chunk`, `text` and `done`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[str, str] = {}
        self._snapshots: set[str] = set()
        """Open chunks whose every text is whole: a half at its end is not joined with the next."""

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        key, kind = self._checked(document)
        if not self._in_step:
            self._begin_step(None, out)
        if key not in self._open:
            self._start(key, kind, document, out)
        text = document.get("text") or ""
        if key in self._snapshots and not text.isascii():
            text = clean(text[:-1] if "\ud800" <= text[-1] <= "\udbff" else text)
        self._add(key, text, out)
        if document.get("done"):
            self._close(key, out)
            del self._kinds[key]
            self._snapshots.discard(key)

    def _start(self, key: str, kind: Kind, document: dict[str, Any], out: list[Piece]) -> None:
        form: Format = "json" if kind == "tool_call" else "text"
        # Not followed: whoever takes the provider apart says itself when a call is done.
        self._open[key] = OpenChunk(kind, EMPTY_JSON if form == "json" else "")
        self._shown = True
        self._kinds[key] = kind
        if document.get("mode") == "snapshot":
            self._snapshots.add(key)
        out.append(
            ChunkStart(
                key,
                kind,
                form,
                document.get("tool_name"),
                document.get("tool_call_id"),
                document.get("processor"),
                document.get("mode"),
            )
        )

    def _checked(self, document: dict[str, Any]) -> tuple[str, Kind]:
        """Check the shape of *document* before anything changes; its chunk and kind."""
        key = document.get("chunk")
        if type(key) is not str or not key:
            _refuse("chunk", "a string that is not empty")
        kind = document.get("kind")
        if kind is None:
            kind = self._kinds.get(key, "text")
        if kind not in _KINDS:
            _refuse("kind", f"one of {', '.join(_KINDS)}")
        if self._kinds.get(key, kind) != kind:
            _refuse("kind", f"{self._kinds[key]}, as this chunk began")
        mode = document.get("mode")
        if mode is not None and mode not in _MODES:
            _refuse("mode", f"one of {', '.join(_MODES)}")
        for name in _TEXT_FIELDS:
            if not isinstance(document.get(name), str | None):
                _refuse(name, "a string")
        if not isinstance(document.get("done"), bool | None):
            _refuse("done", "true or false")
        return key, cast("Kind", kind)

    def _finish_step(self, out: list[Piece]) -> None:
        self._close_all(out)
        self._end_step("stop", None, None, out)

    def _forget_step(self) -> None:
        self._kinds.clear()
        self._snapshots.clear()

    def _upgrade(self, state: CodecState) -> CodecState:
        unsaid = dict(state["open"])
        state = upgrade(state, lambda key: state["kinds"][key])
        for chunk in state["open"]:
            chunk[2:] = unsaid[chunk[0]], None, False, False
        return state

    def _dump_step(self) -> CodecState:
        return {"kinds": dict(self._kinds), "snapshots": sorted(self._snapshots)}

    def _load_step(self, state: CodecState) -> None:
        self._kinds = dict(state["kinds"])
        self._snapshots = set(state["snapshots"])


def _refuse(field: str, allowed: str) -> NoReturn:
    raise UnusableError("bad_shape", f"{field} must be {allowed}")
