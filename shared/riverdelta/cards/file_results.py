"""
Makes the finished card of a tool that creates, updates or opens files, out of what it answered.

A result is an object, or a string that spells one, with ``files`` (what there is now) and perhaps
``failed_files``. Entries are objects with a ``name`` or ``id``; of ``files`` perhaps with ``yml_content``
and ``version_number``, of ``failed_files`` perhaps with an ``error``; or just names. A list is taken for
``files``. Other entries are not counted. Anything else cannot be read, nor an object with an ``error``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from riverdelta.cards.results import (
    UnreadableResult,
    counted,
    list_in,
    read_result,
    text_in,
)
from riverdelta.core.outputs import FileContent, FileEntry, ReasoningFile, Status
from riverdelta.core.processors.base import ToolResult

IdOf = Callable[[Mapping[str, str]], str | None]


class Words(NamedTuple):
    """What titles call the thing that a tool does."""

    verb: str
    present: str
    past: str


_CREATE: Final = Words("create", "Creating", "Created")
_WORDS: Final = (
    _CREATE,
    Words("update", "Updating", "Updated"),
    Words("open", "Opening", "Opened"),
)


def words_of(tool_name: str | None) -> Words:
    """Words for a tool, by how its name begins; it creates where that says nothing."""
    found = (words for words in _WORDS if (tool_name or "").startswith(words.verb))
    return next(found, _CREATE)


def makes_new(tool_name: str | None) -> bool:
    """Whether a tool makes files, rather than work on those that are there."""
    return words_of(tool_name) is _CREATE


def finished_card(result: ToolResult, file_type: str, id_of: IdOf) -> ReasoningFile:
    """
    Make the card.

    Args:
        result: With the card so far, the texts in it stay, and every file in it gets a last status.
        file_type: The noun of titles too.
        id_of: Gives the id of the file with this ``name`` and ``id``.
    """
    verb, _, past = words_of(result.tool_name)
    files = _shown(result.card)
    try:
        content = read_result(result.content)
        done = _labelled(list_in(content, "files"), id_of)
        failed = _labelled(list_in(content, "failed_files"), id_of) if _has_failed(content) else []
    except UnreadableResult as reason:
        return _card(
            result,
            files,
            file_type=file_type,
            status="failed",
            title=f"Failed to {verb} {file_type}s",
            secondary_title=str(reason),
        )
    for status, entries in (("completed", done), ("failed", failed)):
        for file_id, entry in entries:
            files[file_id] = _reported(files.get(file_id, {}), entry, status)
    errors = [error for _, entry in failed if (error := text_in(entry, "error"))]
    if done:
        title = f"{past} {counted(len(done), file_type)}"
        title += f", {len(failed)} failed" if failed else ""
    elif failed:
        title = f"Failed to {verb} {counted(len(failed), file_type)}"
    else:
        title = f"{past} no {file_type}s"
    overall: Status = "failed" if failed and not done else "completed"
    return _card(
        result,
        files,
        file_type=file_type,
        status=overall,
        title=title,
        secondary_title=errors[0] if errors else None,
    )


def _has_failed(content: Any) -> bool:
    return isinstance(content, dict) and content.get("failed_files") is not None


def _labelled(entries: list[Any], id_of: IdOf) -> list[tuple[str, dict[str, Any]]]:
    """Read the entries that name a file, with its id."""
    found = []
    for entry in entries:
        labels = {"name": entry} if isinstance(entry, str) and entry else entry
        if not isinstance(labels, dict):
            continue
        known = {key: text for key in ("name", "id") if (text := text_in(labels, key))}
        file_id = id_of(known) or known.get("id")
        if file_id is not None:
            found.append((file_id, labels))
    return found


def _shown(card: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    files = (card or {}).get("files")
    return {id_: dict(file) for id_, file in files.items()} if isinstance(files, dict) else {}


def _reported(file: dict[str, Any], entry: dict[str, Any], status: str) -> dict[str, Any]:
    """What is known of a file, and what the result says of it."""
    file = {**file, "status": status}
    if name := text_in(entry, "name"):
        file["file_name"] = name
    if text := text_in(entry, "yml_content"):
        file["file"] = {"text": text}
    version = entry.get("version_number")
    if type(version) is int:
        file["version_number"] = version
    if error := text_in(entry, "error"):
        file["metadata"] = [{"error": error}]
    return file


def _card(
    result: ToolResult,
    files: dict[str, dict[str, Any]],
    *,
    file_type: str,
    status: Status,
    title: str,
    secondary_title: str | None,
) -> ReasoningFile:
    return ReasoningFile(
        id=result.tool_call_id,
        title=title,
        secondary_title=secondary_title,
        file_ids=list(files),
        files={
            file_id: FileEntry(
                id=file_id,
                file_type=file_type,
                file_name=file.get("file_name", file_id),
                version_number=file.get("version_number", 1),
                status=file["status"] if file.get("status") in {"completed", "failed"} else status,
                file=FileContent(text=file.get("file", {}).get("text")),
                metadata=file.get("metadata"),
            )
            for file_id, file in files.items()
        },
        status=status,
    )
