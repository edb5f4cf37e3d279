"""Read tool results, for processors whose cards are completed by them."""

from __future__ import annotations

import json
from typing import Any


class UnreadableResult(Exception):
    """A result that no card can show; the text is a reason for people."""


def read_result(content: Any) -> Any:
    """
    Return the JSON object or array of a result, which may also be a string of JSON.

    Raises:
        UnreadableResult: It is neither, or an object with the text of an ``error``.
    """
    if isinstance(content, str | bytes):
        try:
            content = json.loads(content)
        except (ValueError, RecursionError):
            raise UnreadableResult("The tool's result is not JSON") from None
    if not isinstance(content, dict | list):
        raise UnreadableResult("The tool's result is neither an object nor a list")
    if isinstance(content, dict) and isinstance(error := content.get("error"), str) and error:
        raise UnreadableResult(error)
    return content


def list_in(content: Any, *names: str) -> list[Any]:
    """
    Return *content* if it is a list, else the list under the first of *names* that it has.

    Raises:
        UnreadableResult: There is no such list.
    """
    if isinstance(content, list):
        return content
    for name in names:
        if name in content:
            found = content[name]
            if isinstance(found, list):
                return found
            raise UnreadableResult(f"The tool's result has no list in {name!r}")
    raise UnreadableResult(f"The tool's result has no {' or '.join(map(repr, names))}")


def text_in(entry: Any, *names: str) -> str | None:
    """Return the first of *names* that is a text in *entry*; None: there is none."""
    if isinstance(entry, dict):
        for name in names:
            if isinstance(text := entry.get(name), str) and text:
                return text
    return None


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 metric``, ``2 metrics``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
