"""
Make the finished card of a tool that creates, updates or opens files, from the tool's result.

A result is an object, or a string of JSON with one. It has ``files`` (the files as they are now) and
optionally ``failed_files``. Entries are names, or objects with a ``name`` or ``id``; of ``files``
optionally with ``yml_content`` and ``version_number``, of ``failed_files`` optionally with an ``error``.
A list counts as ``files``. Other entries are ignored. Any other result, and an object with an ``error``,
counts as unreadable.
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


class Verbs(NamedTuple):
    """Verb forms for the titles of a tool's cards."""

    verb: str
    present: str
    past: str


_CREATE: Final = Verbs("create", "Creating", "Created")
_VERBS: Final = (
    _CREATE,
    Verbs("update", "Updating", "Updated"),
    Verbs("open", "Opening", "Opened"),
)


def verbs_of(tool_name: str | None) -> Verbs:
    """Return the verbs of a tool, by the start of its name; "create" where no prefix matches."""
    found = (verbs for verbs in _VERBS if (tool_name or "").startswith(verbs.verb))
    return next(found, _CREATE)


def makes_new(tool_name: str | None) -> bool:
    """Whether a tool makes new files, rather than working on existing ones."""
    return verbs_of(tool_name) is _CREATE


def finished_card(result: ToolResult, file_type: str, id_of: IdOf) -> ReasoningFile:
    """
    Make the card.

    Args:
        result: If it carries the card so far, texts are kept and every file gets its final status.
        file_type: Also the noun in titles.
        id_of: Returns the id of the file with this ``name`` and ``id``.
    """
    verb, _, past = verbs_of(result.tool_name)
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
    """Return the entries that name a file, each with its id."""
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
    """Merge what is known of a file with the result's entry."""
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
