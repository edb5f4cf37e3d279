"""Wording that several commands share."""

from __future__ import annotations

import re
from typing import Final

_NOISE: Final = re.compile(r"\bValue error, ")
_WORDS: Final = (
    (re.compile(r"Input should be a valid integer.*"), "it must be a whole number"),
    (re.compile(r"Input should be a valid number.*"), "it must be a number"),
    (re.compile(r"Input should be a valid boolean.*"), "it must be true or false"),
    (re.compile(r"Input should be a valid (?:tuple|list).*"), "it must be a JSON list"),
    (re.compile(r"Input should be a valid dictionary.*"), "it must be a JSON object"),
    (re.compile(r"Input should be "), "it must be "),
    (re.compile(r"String should match pattern "), "it must match "),
    # A SecretStr counts its characters as items.
    (
        re.compile(r"(?:String|Value) should have at least (\d+) (?:character|item).*"),
        r"it must have at least \1 characters",
    ),
    (re.compile(r"Field required"), "it is missing"),
)
"""pydantic's messages, which typer and our settings pass on, and ours for them."""

_NO_PORT: Final = re.compile(r":(?!\d+(?:/|$)).*", re.DOTALL)


def count(number: int, noun: str) -> str:
    """Write a count: ``1 raw chunk``, ``2 raw chunks``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def friendly(complaint: str) -> str:
    """Describe what is wrong with a value, in our words instead of the library's."""
    complaint = _NOISE.sub("", complaint)
    for theirs, ours in _WORDS:
        complaint = theirs.sub(ours, complaint)
    return complaint


def redacted(url: str) -> str:
    """Return a URL without parts that may hold a password: user info, query, a port that is no number."""
    scheme, found, rest = url.partition("://")
    if not found:
        scheme, rest = "", url
    user, at, rest = rest.rpartition("@")
    if "?" in user:
        return f"{scheme}{found}***"
    rest = _NO_PORT.sub(":***", rest.partition("?")[0])
    return f"{scheme}{found}{'***@' if at else ''}{rest}"
