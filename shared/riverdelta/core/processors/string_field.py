"""Read one string field at the top of a JSON object as it grows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from riverdelta.core.json_stream import Patch
from riverdelta.core.processors.base import string_at


class NewText(NamedTuple):
    """New text of a field. *replaces*: the key was repeated, and the earlier text is void."""

    text: str
    replaces: bool = False

    @property
    def full(self) -> str | None:
        """For the field ``<name>`` of an output."""
        return self.text if self.replaces else None

    @property
    def chunk(self) -> str | None:
        """For the field ``<name>_chunk`` of an output."""
        return None if self.replaces else self.text


class StringField:
    """
    Reads the first of several fields that has text.

    Args:
        names: Keys of the object; any order.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._candidates = frozenset((name,) for name in names)
        self._path: tuple[str | int, ...] | None = None

    @property
    def found(self) -> bool:
        """Whether one of the fields had text."""
        return self._path is not None

    def read(self, patches: Iterable[Patch]) -> NewText | None:
        """Read new patches and return the new text of the field; None: nothing new."""
        parts: list[str] = []
        replaces = False
        for path, op, value in patches:
            if path != self._path:
                if self._path is None and path in self._candidates and value:
                    self._take(path, value, parts)
            elif op == "append":
                parts.append(value)
            else:
                replaces = True
                parts = [value] if isinstance(value, str) else []
        return NewText("".join(parts), replaces) if parts or replaces else None

    def _take(self, path: tuple[str | int, ...], value: Any, parts: list[str]) -> None:
        if isinstance(value, str):
            self._path = path
            parts.append(value)

    def text(self, value: Any) -> str:
        """Return the whole field of the object *value*; call it once, at the end."""
        return string_at(value, self._path or ())
