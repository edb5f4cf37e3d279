"""`search_data_catalog`: show the search as pills, then its results."""

from __future__ import annotations

from typing import Any, Final

from riverdelta.cards.results import (
    UnreadableResult,
    counted,
    list_in,
    read_result,
    text_in,
)
from riverdelta.core.outputs import Pill, PillContainer, ReasoningPill
from riverdelta.core.processors.base import ChunkText, ObjectProcessor, ToolResult

TOOLS: Final = ("search_data_catalog",)
QUERIES: Final = (
    # field, title of the container, type of the pills
    ("specific_queries", "Specific queries", "specific_query"),
    ("exploratory_topics", "Exploratory topics", "exploratory_topic"),
)
SEARCHING: Final = "Searching the data catalog"
FAILED: Final = "The data catalog could not be searched"


class SearchDataCatalogProcessor(ObjectProcessor):
    """
    Makes one card when the arguments are complete, and another when the tool has answered.

    Arguments: ``search_requirements`` (text, the second title), ``specific_queries`` and
    ``exploratory_topics`` (lists of texts, a container of pills each). One of them is enough.

    A result is a list, or an object with a list in ``results`` or ``items``: of texts, or of objects with a
    ``name``, ``title`` or ``text`` and optionally ``id`` and ``type``. Other entries are ignored.
    """

    def __init__(self) -> None:
        super().__init__(TOOLS)
        self._finished = False

    def process(self, chunk: ChunkText) -> ReasoningPill | None:
        """Return the card of the search once its arguments are complete, nothing before."""
        if self._finished or not chunk.complete:
            return None
        self._finished = True
        arguments = chunk.value
        if not isinstance(arguments, dict):
            return None
        requirements = arguments.get("search_requirements")
        if not isinstance(requirements, str) or not requirements:
            requirements = None
        containers = [
            PillContainer(
                title=title,
                pills=[
                    Pill(id=f"{chunk.card_id}:{field}:{number}", text=text, type=type_)
                    for number, text in enumerate(_texts(arguments.get(field)))
                ],
            )
            for field, title, type_ in QUERIES
        ]
        containers = [container for container in containers if container.pills]
        if requirements is None and not containers:
            return None
        return ReasoningPill(
            id=chunk.card_id,
            title=SEARCHING,
            secondary_title=requirements,
            pill_containers=containers,
            status="loading",
        )

    def complete(self, result: ToolResult) -> ReasoningPill:
        """Return the card of the results."""
        try:
            items = list_in(read_result(result.content), "results", "items")
        except UnreadableResult as reason:
            return ReasoningPill(
                id=result.tool_call_id,
                title=FAILED,
                secondary_title=str(reason),
                pill_containers=[],
                status="failed",
            )
        found = [(item, text) for item in items if (text := _label(item)) is not None]
        pills = [
            Pill(
                id=text_in(item, "id") or f"{result.tool_call_id}:result:{number}",
                text=text,
                type=text_in(item, "type") or "data_catalog_item",
            )
            for number, (item, text) in enumerate(found)
        ]
        title = f"{counted(len(pills), 'data catalog item')} found"
        return ReasoningPill(
            id=result.tool_call_id,
            title=title if pills else "No data catalog items found",
            pill_containers=[PillContainer(title="Results", pills=pills)] if pills else [],
            status="completed",
        )


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str) and text] if type(value) is list else []


def _label(item: Any) -> str | None:
    return (item or None) if isinstance(item, str) else text_in(item, "name", "title", "text")
