"""
Outputs: the parts of cards that processors make of a chunk, and how readers join them.

A card goes out in parts. A part carries new text in ``<name>_chunk`` and null in ``<name>``; the
finished card carries all text in ``<name>`` and null in ``<name>_chunk``. `reduce_output` is all that
a reader needs, and works on plain JSON, whatever the type of card:

- ``<name>_chunk``, a string, is appended to ``<name>`` (null counts as ""), and is null afterwards;
- null in ``<name>`` beside a ``<name>_chunk`` leaves the text as it is;
- objects are merged by key, to any depth;
- everything else, lists too, is replaced;
- in a card of type ``json``, ``patches`` are applied to ``value``, which is otherwise replaced whole.

Reducing all outputs of a chunk in order gives its finished output, and reducing a finished output onto
what came before gives the finished output itself.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from riverdelta.core.json_stream.patches import apply_patches

Status = Literal["loading", "completed", "failed"]

_SUFFIX: Final = "_chunk"


class Output(BaseModel):
    """
    Fields that all cards have.

    Attributes:
        id: The tool call's id, else the chunk's id: the same in all parts of a card.
        status: ``loading`` until the card is final; a tool's card waits for the tool's result.
    """

    model_config = ConfigDict(extra="forbid")

    id: str
    status: Status

    def wire(self) -> dict[str, Any]:
        """Return the plain JSON that events carry and `reduce_output` takes."""
        return self.model_dump(mode="json")


class ReasoningText(Output):
    """A card of text, for example a plan."""

    type: Literal["text"] = "text"
    title: str
    secondary_title: str | None = None
    message: str | None = None
    message_chunk: str | None = None


class ResponseText(Output):
    """Text of the reply itself that came as the arguments of a tool call."""

    type: Literal["text"] = "text"
    message: str | None = None
    message_chunk: str | None = None


class FileContent(BaseModel):
    """The text of a file. *modified*: the changed lines (first, last), null where unknown."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    text_chunk: str | None = None
    modified: list[tuple[int, int]] | None = None


class FileEntry(BaseModel):
    """One file of a card. *metadata* comes from the tool's result, for example ``{"error": …}``."""

    model_config = ConfigDict(extra="forbid")

    id: str
    file_type: str
    file_name: str
    version_number: int = 1
    status: Status
    file: FileContent
    metadata: list[dict[str, Any]] | None = None


class ReasoningFile(Output):
    """A card of files. A part lists all *file_ids*, and in *files* those that changed."""

    type: Literal["files"] = "files"
    title: str
    secondary_title: str | None = None
    file_ids: list[str]
    files: dict[str, FileEntry]


class Pill(BaseModel):
    """A small label with a *type*."""

    model_config = ConfigDict(extra="forbid")

    id: str
    text: str
    type: str


class PillContainer(BaseModel):
    """Pills under a title."""

    model_config = ConfigDict(extra="forbid")

    title: str
    pills: list[Pill]


class ReasoningPill(Output):
    """A card of pills; always sent whole."""

    type: Literal["pills"] = "pills"
    title: str
    secondary_title: str | None = None
    pill_containers: list[PillContainer]


class JsonOutput(Output):
    """A JSON value. A part has new *patches*; the finished card has *value* and null for *patches*."""

    type: Literal["json"] = "json"
    value: Any = None
    patches: list[tuple[tuple[str | int, ...], Literal["append", "set"], Any]] | None = None


class YmlText(BaseModel):
    """One string."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = None
    text_chunk: str | None = None


class YmlOutput(Output):
    """Strings found in a JSON value. *texts* is keyed by JSON pointer: ``/files/0/yml_content``."""

    type: Literal["yml"] = "yml"
    texts: dict[str, YmlText]


def reduce_output(before: Mapping[str, Any] | None, output: Mapping[str, Any]) -> dict[str, Any]:
    """
    Apply *output* to the card so far. The reference for all readers; the module lists the rules.

    Neither argument is changed; the result shares unchanged values with both.

    Args:
        before: The card that the outputs before give; None before the first.
        output: The next one, plain JSON.

    Raises:
        LookupError, TypeError: Patches of a ``json`` card that do not belong to *before*: outputs are
            missing. Start again from a snapshot.
    """
    if output.get("type") == "json":
        return _reduce_json(before, output)
    return _reduce(before, output)


def grow_output(card: dict[str, Any] | None, output: Mapping[str, Any]) -> dict[str, Any]:
    """
    Put *output* onto a card of the caller's own, in place: costs what is new, however long the card.

    Gives what `reduce_output` gives. *output* is not changed, and later calls change nothing of it.

    Args:
        card: What this function returned before; None before the first. Nobody else may hold its
            texts, or the first growth of each copies it.
        output: The next one, plain JSON.

    Raises:
        LookupError, TypeError: As for `reduce_output`; then *card* is void.
    """
    if output.get("type") == "json":
        return _grow_json({} if card is None else card, output)
    return _grow({} if card is None else card, output)


def merge_outputs(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """
    Join two consecutive outputs into one with the same effect. Associative.

    ``reduce(reduce(x, a), b) == reduce(x, merge(a, b))`` for outputs of one processor: their text fields
    come in pairs (``<name>`` with ``<name>_chunk``), and a field that is an object in one is an object or
    absent in the other. Neither argument is changed.

    Raises:
        LookupError, TypeError: As for `reduce_output`.
    """
    if second.get("type") == "json":
        return _merge_json(first, second)
    return _merge(first, second)


def _is_chunk(name: str, value: Any) -> bool:
    return name.endswith(_SUFFIX) and (value is None or isinstance(value, str))


def _has_chunk(output: Mapping[str, Any], name: str) -> bool:
    chunk_name = name + _SUFFIX
    return chunk_name in output and _is_chunk(chunk_name, output[chunk_name])


def _reduce(before: Mapping[str, Any] | None, output: Mapping[str, Any]) -> dict[str, Any]:
    after = {} if before is None else dict(before)
    chunks = []
    for name, value in output.items():
        if _is_chunk(name, value):
            chunks.append((name, value))
        elif isinstance(value, dict):
            base = after.get(name)
            after[name] = _reduce(base if isinstance(base, dict) else None, value)
        elif value is None and _has_chunk(output, name):
            after.setdefault(name, None)
        else:
            after[name] = value
    for chunk_name, chunk in chunks:
        after[chunk_name] = None
        if chunk is not None:
            name = chunk_name.removesuffix(_SUFFIX)
            text = after.get(name)
            after[name] = text + chunk if isinstance(text, str) else chunk
    return after


def _grow(card: dict[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
    """As `_reduce`, in place."""
    for name, value in output.items():
        if _is_chunk(name, value):
            continue
        if isinstance(value, dict):
            inner = card.get(name)
            card[name] = _grow(inner if isinstance(inner, dict) else {}, value)
        elif value is None and _has_chunk(output, name):
            card.setdefault(name, None)
        else:
            card[name] = value
    for chunk_name, chunk in output.items():
        if not _is_chunk(chunk_name, chunk):
            continue
        card[chunk_name] = None
        if chunk is not None:
            name = chunk_name.removesuffix(_SUFFIX)
            text = card.get(name)
            card[name] = None  # alone, the text can grow in place
            if isinstance(text, str):
                text += chunk
            else:
                text = chunk
            card[name] = text
    return card


def _grow_json(card: dict[str, Any], output: Mapping[str, Any]) -> dict[str, Any]:
    """As `_reduce_json`, in place."""
    patches = output.get("patches")
    value = apply_patches(card.get("value"), patches) if patches else output.get("value")
    card.update(output)
    # Later patches change the value in place: it must not be the output's own.
    card["value"] = value if patches else copy.deepcopy(value)
    card["patches"] = None
    return card


def _merge(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for name, value in second.items():
        if _is_chunk(name, value):
            known = first.get(name)
            if second.get(name.removesuffix(_SUFFIX)) is not None or not isinstance(known, str):
                merged[name] = value
            elif value is not None:
                merged[name] = known + value
        elif isinstance(value, dict) and isinstance(known := first.get(name), dict):
            merged[name] = _merge(known, value)
        elif value is None and _has_chunk(second, name):
            merged.setdefault(name, None)
        else:
            merged[name] = value
    return merged


def _reduce_json(before: Mapping[str, Any] | None, output: Mapping[str, Any]) -> dict[str, Any]:
    patches = output.get("patches")
    value = output.get("value")
    if patches:
        value = _patched(None if before is None else before.get("value"), patches)
    return {**(before or {}), **output, "value": value, "patches": None}


def _merge_json(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    earlier, later = first.get("patches"), second.get("patches")
    if later and earlier:
        return {**first, **second, "patches": [*earlier, *later]}
    if later:
        return _reduce_json(first, second)
    return {**first, **second}


def _patched(document: Any, patches: Iterable[Sequence[Any]]) -> Any:
    """Apply patches to a copy: containers on the way are copied once, *document* is unchanged."""
    root = [document]
    ours = {id(root)}
    for path, op, value in patches:
        container: Any = root
        slot: Any = 0
        for step in path:
            inner = container[slot]
            if id(inner) not in ours:
                inner = container[slot] = inner.copy()
                ours.add(id(inner))
            container, slot = inner, step
        fresh = container[slot] + value if op == "append" else value
        if isinstance(fresh, dict | list):
            fresh = fresh.copy()
        if isinstance(container, list) and slot == len(container):
            container.append(fresh)
        else:
            container[slot] = fresh
    return root[0]
