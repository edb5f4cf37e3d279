"""Stream filters and splitters: their contracts, chains of filters, and the parts of a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field


class StreamFilter(Protocol):
    """
    Filters the text of one chunk, holding back only what it cannot decide yet.

    A deterministic fold: the joined output depends on the text only, never on how it was split into
    deltas, nor on a `dump` and `load` in between.
    """

    @property
    def bound(self) -> int:
        """The largest value that `held` can have between two calls, in characters."""

    @property
    def held(self) -> int:
        """Characters held back: neither passed on nor dropped yet."""

    def feed(self, delta: str) -> str:
        """Take *delta* and return the text that may go out now."""

    def finish(self) -> str:
        """End the text and return the rest. Feed nothing after it."""

    def dump(self) -> dict[str, Any]:
        """Return the whole state as JSON; {} before the first delta. Small: bounded by `bound`."""

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a *state* that `dump` returned, with the same settings."""


@runtime_checkable
class ReadsJson(Protocol):
    """A stream filter that has another one for chunks of format ``json``, which decodes their strings."""

    def for_json(self) -> StreamFilter:
        """Make that filter, in its first state."""


def json_filter(plain: StreamFilter) -> StreamFilter:
    """Return the filter of JSON text that *plain*, in its first state, stands for; else *plain* itself."""
    return plain.for_json() if isinstance(plain, ReadsJson) else plain


class TextFilter(ABC):
    """
    Base of filters that hold nothing back: each delta is answered at once.

    The output must not depend on how the text was split: decide by character, not by word, because a
    delta may end inside a word.
    """

    bound: int = 0
    held: int = 0

    @abstractmethod
    def feed(self, delta: str) -> str:
        """Return the text that replaces *delta*."""

    def finish(self) -> str:
        """Return "": nothing was held back."""
        return ""

    def dump(self) -> dict[str, Any]:
        """Return {}: there is no state."""
        return {}

    def load(self, state: dict[str, Any]) -> None:  # noqa: B027  # no subclass has to
        """Do nothing: there is no state."""


class ChainedFilter:
    """
    Several filters as one: each is fed the output of the one before.

    Args:
        filters: In the order in which they see the text.
    """

    def __init__(self, *filters: StreamFilter) -> None:
        self._filters = filters

    @property
    def bound(self) -> int:
        """The sum of the bounds."""
        return sum(part.bound for part in self._filters)

    @property
    def held(self) -> int:
        """Characters that all filters together hold back."""
        return sum(part.held for part in self._filters)

    def feed(self, delta: str) -> str:
        """Feed *delta* through the chain and return the output of the last filter."""
        for part in self._filters:
            delta = part.feed(delta) if delta else ""
        return delta

    def finish(self) -> str:
        """End the text and return the rest of all filters."""
        rest = ""
        for part in self._filters:
            rest = (part.feed(rest) if rest else "") + part.finish()
        return rest

    def dump(self) -> dict[str, Any]:
        """Return the state of all filters."""
        states = [part.dump() for part in self._filters]
        return {"filters": states} if any(states) else {}

    def for_json(self) -> StreamFilter:
        """Make the chain for JSON text."""
        return ChainedFilter(*map(json_filter, self._filters))

    def load(self, state: dict[str, Any]) -> None:
        """Continue from *state*. The state of a single filter goes to the first of the chain."""
        states = state.get("filters", [state])
        for part, of_part in zip(self._filters, states, strict=False):
            if of_part:
                part.load(of_part)


SectionKind = Literal["text", "reasoning"]
"""The kind of chunk that a part becomes."""


@dataclass(frozen=True, slots=True)
class SectionStart:
    """A named part begins. *marker* is the input that began it; it belongs to no text."""

    name: str
    kind: SectionKind
    info: str
    marker: str


@dataclass(frozen=True, slots=True)
class SectionText:
    """More text of the open part, or of the text around the parts; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class SectionEnd:
    """The open part ends. *marker* is the input that ended it; "" where the chunk ended."""

    marker: str


SectionPart = SectionStart | SectionText | SectionEnd


class Splitter(Protocol):
    """
    Cuts one text into parts, holding back only text that may still become a marker.

    A deterministic fold, like `StreamFilter`: texts and markers, joined, are the input. Every method may
    raise `TimeoutError`: a pattern exceeded its time budget. Then discard the splitter and show its
    `held_text`, followed by the text that the failed call was given.
    """

    @property
    def held_text(self) -> str:
        """Input that was taken and not returned yet, unchanged."""

    def passes(self, text: str) -> bool:
        """
        Whether *text*, not empty, goes out unchanged and at once; if so, it counts as fed.

        A cheap shortcut: where it returns False, call `feed`.
        """

    def feed(self, delta: str) -> list[SectionPart]:
        """Take *delta* and return the parts that are certain now."""

    def finish(self) -> list[SectionPart]:
        """End the text and return the rest. An open part ends with marker ""."""

    def dump(self) -> dict[str, Any]:
        """Return the whole state as JSON; {} before the first delta. Small."""

    def load(self, state: dict[str, Any]) -> None:
        """Continue from *state*. An open part whose rule no longer exists lasts to the end of the text."""


class SectionRule(BaseModel):
    """
    A named part of plain text, and the patterns that begin and end it.

    Patterns are regular expressions in the form that `riverdelta_workers.filters.partial` allows. A
    group ``info`` of *start* becomes the part's info. *end* may refer to a group of *start* as
    ``(?P=group)``, which stands for the text that the group matched. Rules are tried in order. Parts do
    not nest: inside a part only its own end is searched.
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
"""Reasoning tags of open models (kind reasoning), and fenced code (kind text)."""
