"""`yml`: stream every string under a key ``yml_content``, anywhere in a JSON value."""

from __future__ import annotations

from typing import Any, Final

from riverdelta.core.json_stream import Path
from riverdelta.core.outputs import YmlOutput, YmlText
from riverdelta.core.processors.base import ChunkText, string_at

KEY: Final = "yml_content"


class YmlProcessor:
    """Keeps one growing text per place in the value, named by its JSON pointer (RFC 6901)."""

    def __init__(self) -> None:
        self._pointers: dict[Path, str] = {}
        self._finished = False

    def can_process(self, tool_name: str | None, value: Any) -> bool:  # noqa: ARG002  # the protocol's
        """Accept objects and arrays of any tool."""
        return isinstance(value, dict | list)

    def process(self, chunk: ChunkText) -> YmlOutput | None:
        """Return the new text of each string; all of each at the end."""
        if self._finished:
            return None
        texts: dict[str, YmlText] = {}
        for path, op, value in chunk.patches:
            if path and path[-1] == KEY and (isinstance(value, str) or path in self._pointers):
                self._take(texts, path, op, value)
        if chunk.complete or chunk.done:
            self._finished = True
            if not self._pointers:
                return None
            return YmlOutput(
                id=chunk.card_id,
                status="completed" if chunk.complete else "failed",
                texts={
                    pointer: YmlText(text=string_at(chunk.value, path))
                    for path, pointer in self._pointers.items()
                },
            )
        return YmlOutput(id=chunk.card_id, status="loading", texts=texts) if texts else None

    def _take(self, texts: dict[str, YmlText], path: Path, op: str, value: Any) -> None:
        pointer = self._pointers.get(path)
        new = value if isinstance(value, str) else ""
        if pointer is None:
            self._pointers[path] = pointer = _pointer(path)
        elif op == "set":  # the key was repeated: the earlier text is void
            texts[pointer] = YmlText(text=new)
            return
        entry = texts.setdefault(pointer, YmlText(text_chunk=""))
        if entry.text is None:
            entry.text_chunk = (entry.text_chunk or "") + new
        else:
            entry.text += new


def _pointer(path: Path) -> str:
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)
