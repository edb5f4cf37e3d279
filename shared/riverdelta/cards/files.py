"""
`metric` and `dashboard`: stream the files in a tool call's arguments.

Arguments: an object with ``files``, a list of objects with ``yml_content`` and a ``name``, or an ``id``
when the file existed before (the tool updates or opens it). A file is shown once its name (or id) is
complete and there is content. Files are shown in order: once one lacks a name or content, no later one is
shown, nor is one behind the last of `FILES_MAX`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from uuid import NAMESPACE_OID, uuid5

from riverdelta.cards.file_results import finished_card, makes_new, verbs_of
from riverdelta.core.json_stream import Patch, Path
from riverdelta.core.outputs import ReasoningFile, Status
from riverdelta.core.processors.base import ChunkText, ObjectProcessor, ToolResult, string_at
from riverdelta.core.processors.string_field import NewText

CONTENT: Final = "yml_content"
FILES_MAX: Final = 500
"""Files that a card shows: each part of the card lists the ids of all."""

CUT_OFF: Final = "The files were cut off"
REPEATED: Final = "The files were given twice"


class FileKind(NamedTuple):
    """
    The kind of files that a processor shows.

    Attributes:
        file_type: Value on the wire, and the noun in titles.
        id_suffix: Last part of the name that a file's id is derived from.
        tools: Tools that create, update or open such files; their names begin with that verb.
    """

    file_type: str
    id_suffix: str
    tools: tuple[str, ...]

    def id_of(
        self, tool_name: str | None, tool_call_id: str, labels: Mapping[str, str]
    ) -> str | None:
        """
        Return a file's id; None: it has none (yet).

        An ``id`` counts only where the files existed before, and there it wins over the ``name``; where
        the tool is not known, the ``name`` wins. The id of a name is always the same.
        """
        name, id_ = labels.get("name"), labels.get("id")
        if id_ is not None and (name is None if tool_name is None else not makes_new(tool_name)):
            return id_
        if name is None:
            return None
        return str(uuid5(NAMESPACE_OID, f"{tool_call_id}:{name}:{self.id_suffix}"))


METRIC: Final = FileKind(
    "metric", "metric_file", ("create_metrics", "update_metrics", "open_metrics")
)
DASHBOARD: Final = FileKind(
    "dashboard", "dashboard_file", ("create_dashboards", "update_dashboards", "open_dashboards")
)


class _File:
    """A file of the list. *id* is set when it is shown; *content* is the path of its text."""

    __slots__ = ("content", "id", "labels")

    def __init__(self) -> None:
        self.labels: dict[str, str] = {}
        """``name`` and ``id``, once they are complete."""
        self.content: Path | None = None
        self.id: str | None = None


class FilesProcessor(ObjectProcessor):
    """
    Makes the card of files of one kind.

    The card stays ``loading`` until the tool's result. A file whose id is already shown (the same name
    twice) is left out. If ``files`` is repeated after something was shown, the card fails and its texts
    are void: JSON's last value wins, and it does not contain what was shown.
    """

    def __init__(self, kind: FileKind) -> None:
        super().__init__(kind.tools)
        self._kind = kind
        self._shown: dict[str, _File] = {}
        self._file: _File | None = None
        """The last object of the list; None: there is none, or no more files are shown."""
        self._ended = False
        self._repeated = False
        self._label: Path | None = None
        """Path of the name or id that is being read."""
        self._label_parts: list[str] = []
        self._new_texts: dict[str, NewText] = {}
        self._finished = False

    def process(self, chunk: ChunkText) -> ReasoningFile | None:
        """Return the new text of each file; all of each at the end."""
        if self._finished:
            return None
        self._read(chunk)
        if chunk.complete or chunk.done:
            self._finished = True
            return self._finished_card(chunk) if self._shown else None
        if not self._new_texts:
            return None
        new_texts, self._new_texts = self._new_texts, {}
        files = {
            file_id: self._entry(file_id, "loading", text=new.full, text_chunk=new.chunk)
            for file_id, new in new_texts.items()
        }
        return self._card(chunk, files, "loading")

    def complete(self, result: ToolResult) -> ReasoningFile:
        """Return the finished card; see `file_results` for what a result may be."""
        return finished_card(
            result,
            self._kind.file_type,
            lambda labels: self._kind.id_of(result.tool_name, result.tool_call_id, labels),
        )

    # -- reading ---------------------------------------------------------------------------------

    def _read(self, chunk: ChunkText) -> None:
        for patch in chunk.patches:
            path = patch.path
            if self._label is not None and path != self._label:
                self._end_label(chunk)
            file = self._file
            if file is not None and file.id is not None and path == file.content:
                self._content(file, patch)
            elif path and path[0] == "files":
                self._place(chunk, patch)
        if chunk.complete and self._label is not None:
            self._end_label(chunk)

    def _place(self, chunk: ChunkText, patch: Patch) -> None:
        """Handle a patch in ``files`` that is not text of a shown file."""
        depth = len(patch.path)
        if depth == 1:
            self._file = None
            self._ended = self._repeated = bool(self._shown)
        elif self._ended:
            return
        elif depth == 2:
            lacking = self._file is not None and not self._is_settled(chunk, self._file)
            full = len(self._shown) >= FILES_MAX
            self._ended = full or lacking or not isinstance(patch.path[1], int) or patch.value != {}
            self._file = None if self._ended else _File()
        elif depth == 3 and self._file is not None:
            self._member(chunk, self._file, patch)

    def _is_settled(self, chunk: ChunkText, file: _File) -> bool:
        """Whether *file* is shown, or left out because its id is already shown."""
        return file.id is not None or (
            file.content is not None and self._id_of(chunk, file) in self._shown
        )

    def _member(self, chunk: ChunkText, file: _File, patch: Patch) -> None:
        key = patch.path[2]
        if key == CONTENT:
            if isinstance(patch.value, str) and patch.value and file.content is None:
                file.content = patch.path
                self._show(chunk, file, patch.value)
        elif key in {"name", "id"}:
            if patch.op == "set":
                self._label, self._label_parts = patch.path, []
            if isinstance(patch.value, str):
                self._label_parts.append(patch.value)

    def _end_label(self, chunk: ChunkText) -> None:
        path, self._label = self._label, None
        file, text = self._file, "".join(self._label_parts)
        if file is None or path is None or not text:
            return
        file.labels.setdefault(str(path[2]), text)
        if file.id is None and file.content is not None:
            self._show(chunk, file, string_at(chunk.value, file.content))

    def _show(self, chunk: ChunkText, file: _File, text: str) -> None:
        file_id = self._id_of(chunk, file)
        if file_id is not None and file_id not in self._shown:
            file.id = file_id
            self._shown[file_id] = file
            self._new_texts[file_id] = NewText(text)

    def _id_of(self, chunk: ChunkText, file: _File) -> str | None:
        return self._kind.id_of(chunk.tool_name, chunk.card_id, file.labels)

    def _content(self, file: _File, patch: Patch) -> None:
        """Add text to a shown file."""
        file_id = file.id or ""
        if patch.op == "set":  # the key was repeated
            text = patch.value if isinstance(patch.value, str) else ""
            self._new_texts[file_id] = NewText(text, replaces=True)
            return
        before = self._new_texts.get(file_id)
        new = (
            NewText(patch.value)
            if before is None
            else before._replace(text=before.text + patch.value)
        )
        self._new_texts[file_id] = new

    # -- writing ---------------------------------------------------------------------------------

    def _finished_card(self, chunk: ChunkText) -> ReasoningFile:
        whole = chunk.complete and not self._repeated
        status: Status = "loading" if whole else "failed"
        reason = None if whole else REPEATED if self._repeated else CUT_OFF
        files = {}
        for file_id, file in self._shown.items():
            text = "" if self._repeated else string_at(chunk.value, file.content or ())
            files[file_id] = self._entry(file_id, status, text=text, text_chunk=None)
        return self._card(chunk, files, status, reason)

    def _entry(
        self, file_id: str, status: Status, *, text: str | None, text_chunk: str | None
    ) -> dict[str, Any]:
        return {
            "id": file_id,
            "file_type": self._kind.file_type,
            "file_name": self._shown[file_id].labels.get("name", file_id),
            "status": status,
            "file": {"text": text, "text_chunk": text_chunk},
        }

    def _card(
        self,
        chunk: ChunkText,
        files: dict[str, dict[str, Any]],
        status: Status,
        reason: str | None = None,
    ) -> ReasoningFile:
        verb = verbs_of(chunk.tool_name).present
        # Validated as a whole: takes half the time of making nested models one by one.
        return ReasoningFile.model_validate(
            {
                "id": chunk.card_id,
                "title": f"{verb} {self._kind.file_type}s",
                "secondary_title": reason,
                "file_ids": list(self._shown),
                "files": files,
                "status": status,
            }
        )


def metric_processor() -> FilesProcessor:
    """Make the processor ``metric``."""
    return FilesProcessor(METRIC)


def dashboard_processor() -> FilesProcessor:
    """Make the processor ``dashboard``."""
    return FilesProcessor(DASHBOARD)
