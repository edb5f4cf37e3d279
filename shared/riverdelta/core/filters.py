"""What stream filters and splitters promise, how several filters make one, and the parts of a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field


class StreamFilter(Protocol):
    """
    Passes one chunk's text on, holding back only what it cannot judge yet.

    A deterministic fold: what went out, joined, depends on the text, never on how it was split into
    deltas, nor on a `dump` and `load` in between.
    """

    @property
    def bound(self) -> int:
        """The most characters that `held` can ever be between two calls."""

    @property
    def held(self) -> int:
        """Characters taken and not yet answered for: neither passed on nor dropped."""

    def feed(self, delta: str) -> str:
        """Take *delta* and return what may go out now."""

    def finish(self) -> str:
        """Take the end of the chunk and return the rest. Nothing may be fed after it."""

    def dump(self) -> dict[str, Any]:
        """Everything remembered, as JSON; {} before the first delta. Small: bounded by `bound`."""

    def load(self, state: dict[str, Any]) -> None:
        """Take up where the filter that made *state* by `dump` was, with the same settings."""


class TextFilter(ABC):
    """
    Base of filters that hold nothing back: each answers for a delta at once.

    What goes out must not depend on the splits: judge characters, not words, of which a delta may
    have a half only.
    """

    bound: int = 0
    held: int = 0

    @abstractmethod
    def feed(self, delta: str) -> str:
        """Return what readers get in place of *delta*."""

    def finish(self) -> str:
        """Nothing was held back."""
        return ""

    def dump(self) -> dict[str, Any]:
        """Nothing is remembered."""
        return {}

    def load(self, state: dict[str, Any]) -> None:  # noqa: B027  # no subclass has to
        """Nothing was remembered."""


class ChainedFilter:
    """
    Several filters as one, each fed what the one before lets out.

    Args:
        filters: In the order in which they see the text.
    """

    def __init__(self, *filters: StreamFilter) -> None:
        self._filters = filters

    @property
    def bound(self) -> int:
        """The most that all of them together hold back."""
        return sum(part.bound for part in self._filters)

    @property
    def held(self) -> int:
        """What all of them together hold back."""
        return sum(part.held for part in self._filters)

    def feed(self, delta: str) -> str:
        """Take *delta* and return what the last one lets out."""
        for part in self._filters:
            delta = part.feed(delta) if delta else ""
        return delta

    def finish(self) -> str:
        """Take the end of the chunk and return the rest of all of them."""
        rest = ""
        for part in self._filters:
            rest = (part.feed(rest) if rest else "") + part.finish()
        return rest

    def dump(self) -> dict[str, Any]:
        """Everything remembered, by all of them."""
        states = [part.dump() for part in self._filters]
        return {"filters": states} if any(states) else {}

    def load(self, state: dict[str, Any]) -> None:
        """Take up where others were; what a single filter made is the first one's."""
        states = state.get("filters", [state])
        for part, of_part in zip(self._filters, states, strict=False):
            if of_part:
                part.load(of_part)


SectionKind = Literal["text", "reasoning"]
"""What a part's chunk is to readers."""


@dataclass(frozen=True, slots=True)
class SectionStart:
    """A named part begins; *marker* is the input it was recognised by, no part of any text."""

    name: str
    kind: SectionKind
    info: str
    marker: str


@dataclass(frozen=True, slots=True)
class SectionText:
    """More text of the part that is open, or of the text around the parts; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class SectionEnd:
    """The open part ends; *marker* is "" where the chunk ended instead."""

    marker: str


SectionPart = SectionStart | SectionText | SectionEnd


class Splitter(Protocol):
    """
    Cuts one text into parts, holding back only what may yet turn out to be a marker.

    A deterministic fold, as a `StreamFilter`: texts and markers, joined, are the input. Every method
    may raise `TimeoutError`: a pattern ran without end. Then the splitter is to be given up; its
    `held_text`, and behind it the text that it was given, are still to be shown.
    """

    @property
    def held_text(self) -> str:
        """What was taken and not given out yet, as it came."""

    def passes(self, text: str) -> bool:
        """
        Whether *text*, not empty, goes out as it is and at once; if so, it counts as fed.

        The cheap question: False where only `feed` can tell.
        """

    def feed(self, delta: str) -> list[SectionPart]:
        """Take *delta* and return what is certain now."""

    def finish(self) -> list[SectionPart]:
        """Take the end of the text: the rest, and the end of the open part, its marker ""."""

    def dump(self) -> dict[str, Any]:
        """Everything remembered, as JSON; {} before the first delta. Small."""

    def load(self, state: dict[str, Any]) -> None:
        """Take up where *state* was dumped; the end of a part whose rule is gone is not looked for."""


class SectionRule(BaseModel):
    """
    A named part of plain text, by the patterns that begin and end it.

    Patterns are regular expressions in the form that `riverdelta_workers.filters.partial` allows. A
    group ``info`` of *start* becomes the part's info. *end* may name a group of *start* as
    ``(?P=group)``: it stands for what that group matched. Rules are tried in order; nothing nests:
    inside a part only its own end is looked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    start: str = Field(min_length=1)
    end: str = Field(min_length=1)
    kind: SectionKind = "text"


DEFAULT_SECTIONS: Final = (
    SectionRule(name="think", start="<think>", end="</think>", kind="reasoning"),
    SectionRule(name="thinking", start="<thinking>", end="</thinking>", kind="reasoning"),
    # CommonMark: three backticks or more, indented by three spaces at most; info without backticks.
    SectionRule(
        name="code",
        start=r"^ {0,3}(?P<fence>`{3,32})(?!`)(?P<info>[^`\n]{0,200})$\n?",
        end=r"^ {0,3}(?P=fence)`{0,32}[ \t\r]{0,16}$",
    ),
)
"""Reasoning tags of open models, and fenced code, which stays text."""
