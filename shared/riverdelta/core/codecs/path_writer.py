"""
JSON from values that come by path: `$.city` is "Bos", then "ton"; `$.days[0]` is 1.

Gemini streams the arguments of a call this way. What has gone out can only grow, so a path may go
on with the value that is being written, or name one that comes after it. The model writes its
arguments from left to right; a path that goes back cannot be written.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from riverdelta.core.codecs.json_text import encode, encode_inside

Path = tuple[str | int, ...]

_MAX_DEPTH = 100
"""Below `JsonStream`'s limit, so that what is written can be read."""

_SEGMENT = re.compile(
    r"""\.(?P<name>[^.*\[\]'"]+)|\[(?P<index>0|[1-9]\d{0,8})\]"""
    r"""|\['(?P<single>(?:[^'\\]|\\.)*)'\]|\[(?P<double>"(?:[^"\\]|\\.)*")\]"""
)


def parse_path(written: Any) -> Path | None:
    """
    Read a path that names one place, as RFC 9535 writes it: `$.a.b[0]["c d"]`.

    None: it is not such a path, or does not begin at a member of the arguments.
    """
    if type(written) is not str or not written.startswith("$"):
        return None
    path, at = list[str | int](), 1
    while at < len(written):
        segment = _SEGMENT.match(written, at)
        if segment is None or len(path) == _MAX_DEPTH:
            return None
        try:
            path.append(_value(segment))
        except ValueError:
            return None
        at = segment.end()
    return tuple(path) if path and type(path[0]) is str else None


def _value(segment: re.Match[str]) -> str | int:
    if segment["name"] is not None:
        return segment["name"]
    if segment["index"] is not None:
        return int(segment["index"])
    if segment["double"] is not None:
        return str(orjson.loads(segment["double"]))
    quoted = re.sub(r"\\.|\"", _requoted, segment["single"])
    return str(orjson.loads(f'"{quoted}"'))


def _requoted(mark: re.Match[str]) -> str:
    return {"\\'": "'", '"': '\\"'}.get(mark[0], mark[0])


class PathWriter:
    """
    Writes one JSON object, a value at a time.

    It keeps the last path, and the names that the objects on it have so far: no values.
    """

    def __init__(self) -> None:
        self._path: Path = ()
        self._in_string = False
        """The last value is a string that nothing has ended yet."""
        self._names: list[list[str]] = []
        """For each open container the names it has; none for an array."""

    @property
    def path(self) -> Path:
        """Where the last value stands; empty before the first."""
        return self._path

    def write(self, path: Path, value: Any) -> str | None:
        """
        Write *value* at *path*; a string goes on with the string that is there.

        Returns:
            The text to add. None: the value cannot stand behind what is written; nothing changed.
        """
        is_text = type(value) is str
        if path == self._path:
            if self._in_string and is_text:
                return encode_inside(value)
            if self._in_string or type(path[-1]) is int:
                return None
            return self._member(len(path) - 1, path, value)  # said again: the last one counts
        same = self._shared(path)
        return None if same is None else self._member(same, path, value)

    def close(self) -> str:
        """Write all that is left: the object ends here."""
        if not self._path:
            return "{}"
        return self._end_value() + self._end_containers(0) + "}"

    def dump(self) -> list[Any]:
        """Encode it as JSON values."""
        return [list(self._path), self._in_string, self._names]

    @classmethod
    def load(cls, state: list[Any]) -> PathWriter:
        """Undo `dump`."""
        writer = cls()
        writer._path, writer._in_string, writer._names = tuple(state[0]), state[1], state[2]
        return writer

    def _shared(self, path: Path) -> int | None:
        """Count the segments that *path* shares with the last one; None: it cannot follow it."""
        same = 0
        for new, old in zip(path, self._path, strict=False):
            if new != old or type(new) is not type(old):
                break
            same += 1
        if self._path and (same == len(path) or same == len(self._path)):
            return None  # a value in the place of an object, or the other way round
        new = path[same]
        if self._path:
            old = self._path[same]
            if type(new) is int:
                follows = type(old) is int and new == old + 1
            else:
                follows = type(old) is str and new not in self._names[same]
            if not follows:
                return None
        inner = path[same + 1 :]
        return None if any(type(segment) is int and segment for segment in inner) else same

    def _member(self, at: int, path: Path, value: Any) -> str:
        """Write the member or element at depth *at*, with all that stands between it and *value*."""
        written = f'"{encode_inside(value)}' if type(value) is str else encode(value)
        parts = []
        if self._path:
            parts += [self._end_value(), self._end_containers(at), ","]
        else:
            parts.append("{")
            self._names = [[]]
        for depth in range(at, len(path)):
            segment = path[depth]
            if depth > at:
                parts.append("[" if type(segment) is int else "{")
                self._names.append([])
            if type(segment) is str:
                parts.append(f"{encode(segment)}:")
                if segment not in self._names[depth]:
                    self._names[depth].append(segment)
        self._path = path
        self._in_string = type(value) is str
        return "".join(parts) + written

    def _end_value(self) -> str:
        return '"' if self._in_string else ""

    def _end_containers(self, at: int) -> str:
        """Close the containers inside depth *at*, from the inside out."""
        inner = self._path[at + 1 :]
        del self._names[at + 1 :]
        return "".join("]" if type(segment) is int else "}" for segment in reversed(inner))
