"""Patches: changes of a JSON value, and how a reader applies them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
Op: TypeAlias = Literal["append", "set"]


class Patch(NamedTuple):
    """
    One change of a value; see `apply_patches`.

    Attributes:
        path: Keys and indexes from the root; () is the root itself.
        op: ``"set"``: the value at *path* is now *value*. ``"append"``: the string there grows by *value*.
        value: A scalar, a string (all of it that was known then, perhaps ""), ``{}`` or ``[]``.
    """

    path: Path
    op: Op
    value: Any


def apply_patches(document: Any, patches: Iterable[Sequence[Any]]) -> Any:
    """
    Apply *patches* to *document* and return it; start with None. The reference for all readers.

    Containers of *document* are changed in place; *patches* are not changed.

    Args:
        document: A value made only by applying all patches before these.
        patches: `Patch`, or the ``[path, op, value]`` of an event.

    Raises:
        LookupError, TypeError: The patches do not belong to *document*: some are missing. A caller bug;
            start again from a snapshot's text.
    """
    root = [document]
    for path, op, value in patches:
        container: Any = root
        slot: Any = 0
        for step in path:
            container, slot = container[slot], step
        if op == "append":
            text = container[slot]
            container[slot] = None  # with one reference, CPython appends in place
            text += value
            container[slot] = text
            continue
        fresh = value.copy() if isinstance(value, dict | list) else value
        if isinstance(container, list) and slot == len(container):
            container.append(fresh)
        else:
            container[slot] = fresh
    return root[0]
