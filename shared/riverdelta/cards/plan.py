"""`plan`: stream the plan in the arguments of a tool call."""

from __future__ import annotations

from typing import Final

from riverdelta.core.outputs import ReasoningText
from riverdelta.core.processors.base import ChunkText, ObjectProcessor
from riverdelta.core.processors.string_field import StringField

TOOLS: Final = ("create_plan", "create_plan_investigative", "create_plan_straightforward")
FIELDS: Final = ("plan", "plan_markdown")
TITLE: Final = "Plan"
CUT_OFF: Final = "The plan was cut off"


class PlanProcessor(ObjectProcessor):
    """
    Streams the field ``plan`` (or ``plan_markdown``, whichever has text first).

    The card is completed with the arguments: it waits for no result. If the arguments were cut off, the
    card fails and keeps the text that came.
    """

    def __init__(self) -> None:
        super().__init__(TOOLS)
        self._field = StringField(FIELDS)
        self._finished = False

    def process(self, chunk: ChunkText) -> ReasoningText | None:
        """Return the plan's new text; all of it at the end."""
        if self._finished:
            return None
        new = self._field.read(chunk.patches)
        if chunk.complete or chunk.done:
            self._finished = True
            if not self._field.found:
                return None
            return ReasoningText(
                id=chunk.card_id,
                title=TITLE,
                secondary_title=None if chunk.complete else CUT_OFF,
                message=self._field.text(chunk.value),
                status="completed" if chunk.complete else "failed",
            )
        if new is None:
            return None
        return ReasoningText(
            id=chunk.card_id,
            title=TITLE,
            message=new.full,
            message_chunk=new.chunk,
            status="loading",
        )
