"""The first entry of a message, as whoever opens it stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict


class Encoding(TypedDict):
    """How the raw chunks of a message are encoded; see `Producer.message`."""

    source: str
    mode: str
    on_mismatch: str


def start_entry(
    producer: str,
    encoding: Encoding,
    *,
    metadata: Mapping[str, Any],
    about: Mapping[str, str | None],
    replaces: Sequence[str],
) -> dict[str, Any]:
    """
    Make the first entry of a message, a JSON object.

    Args:
        producer: Id of the producer that writes the message; "": a turn that waits for one.
        encoding: Of the chunks that follow.
        metadata: What readers get with ``message.started``.
        about: What only observers get; None is left out.
        replaces: Ids of messages whose place this one takes.
    """
    start: dict[str, Any] = {
        **encoding,
        "producer": producer,
        "metadata": dict(metadata),
        "about": {name: value for name, value in about.items() if value is not None},
    }
    if replaces:
        start["replaces"] = list(replaces)
    return start
