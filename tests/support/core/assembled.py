"""What a reader must have of a recording in the end, and how two such results differ."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

Call = tuple[str | None, str | None, str]
"""A tool call's id, name and arguments."""


@dataclass
class Assembled:
    """One response: what a reader must have seen of it when it is over."""

    text: str = ""
    """All text in order; where there are several blocks, one after the other."""
    reasoning: str = ""
    """All reasoning; the parts of one Responses item are joined by a blank line."""
    refusal: str = ""
    tool_calls: list[Call] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    """The provider's own object."""
    finish: str | None = None
    """The provider's own word."""
    error: str | None = None
    """The code of the error that ended it; with one, *usage* and *finish* mean nothing."""


def differences(ours: Assembled, theirs: Assembled) -> list[str]:
    """
    Name the fields in which two responses differ; empty: they are the same.

    Arguments that both are JSON are compared as values, since some are encoded by us; empty ones
    mean `{}`. After an error, usage and the finish reason do not count.
    """
    names = ["text", "reasoning", "refusal", "error"]
    if theirs.error is None:
        names += ["usage", "finish"]
    found = [
        f"{name}: ours {getattr(ours, name)!r}, theirs {getattr(theirs, name)!r}"
        for name in names
        if getattr(ours, name) != getattr(theirs, name)
    ]
    mine, its = [[_comparable(call) for call in side.tool_calls] for side in (ours, theirs)]
    if mine != its:
        found.append(f"tool_calls: ours {mine!r}, theirs {its!r}")
    return found


def joined(text: str) -> str:
    """Join surrogate pairs; a lone half becomes U+FFFD. Slow and plain on purpose."""
    units = re.findall("[\ud800-\udbff][\udc00-\udfff]|.", text, re.DOTALL)
    return "".join(
        unit.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        if len(unit) == 2
        else ("\ufffd" if "\ud800" <= unit <= "\udfff" else unit)
        for unit in units
    )


def _comparable(call: Call) -> tuple[str | None, str | None, Any]:
    call_id, name, arguments = call
    try:
        return call_id, name, json.loads(arguments or "{}")
    except ValueError:
        return call_id, name, arguments
