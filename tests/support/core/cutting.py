"""What readers get of a text that is cut, and a slow way to know what they should."""

from collections.abc import Sequence
from typing import NamedTuple

from riverdelta.core.events import Event
from riverdelta.core.filters import SectionStart, SectionText
from riverdelta.pipeline import Pipeline
from riverdelta_workers.filters import Sections
from tests.support.core.fold_tools import view_of
from tests.support.core.sections_tools import oracle

CUT_ALL = Pipeline(splitter=Sections, cut_all=True)
CUT_ASKED = Pipeline(splitter=Sections)


class Cut(NamedTuple):
    """A chunk, as readers see it."""

    kind: str
    section: tuple[str, str] | None
    text: str
    status: str = "completed"


def cut_whole(text: str) -> list[Cut]:
    """Read the whole text at once, by stdlib re: the chunks that it makes."""
    cuts, between = list[Cut](), True
    for part in oracle(text):
        if isinstance(part, SectionStart):
            cuts.append(Cut(part.kind, (part.name, part.info), ""))
            between = False
        elif not isinstance(part, SectionText):
            between = True
        elif between:
            cuts.append(Cut("text", None, part.text))
        else:
            cuts[-1] = cuts[-1]._replace(text=part.text)
    return cuts or [Cut("text", None, "")]


def chunks_of(events: Sequence[Event], message: str = "m") -> list[Cut]:
    """Give the chunks of a message, reduced from its events."""
    return [
        Cut(
            chunk["kind"],
            chunk["section"] and (chunk["section"]["name"], chunk["section"]["info"]),
            chunk["text"],
            chunk["status"],
        )
        for chunk in view_of(events).message(message)["chunks"]
    ]


REPLY = "<think>Hm.</think>\nSo:\n```python\nprint(1)\n```\nDone."
CHUNKS = [
    Cut("reasoning", ("think", ""), "Hm."),
    Cut("text", None, "\nSo:\n"),
    Cut("text", ("code", "python"), "print(1)\n"),
    Cut("text", None, "\nDone."),
]
