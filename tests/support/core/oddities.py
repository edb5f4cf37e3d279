"""
Streams that providers and gateways really send, and what readers must get of them.

In ``tests/recordings/oddities``, ``expected.json`` has one entry for each file beside it; ``more.json`` and
``providers.json`` (the same kinds with other providers, some with the public ``report`` of it) have entries
with their input in them. An entry's ``expect`` has only what matters:

- ``text``, ``reasoning``: the texts of the chunks of that kind; a string: joined.
- ``tool_calls``: all of them, each completed; ``incomplete_call``: none that is completed can be run
  (``"said"``: none is completed at all); ``calls``: the names of all, each with whether it completed.
- ``end``, ``finish_reason``, ``usage``, ``steps``.
- ``says``: a failure's words, as readers or the log have them.
- ``rejected``: some input was; ``streams``: some chunk came in several deltas.

``or`` has other right answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from riverdelta.core.fold import ChatFold
from riverdelta.core.state import ChatState, Entry, LogWindow
from riverdelta.pipeline import Pipeline

ODDITIES = Path(__file__).parents[2] / "recordings" / "oddities"


class Oddity(NamedTuple):
    """One odd stream."""

    name: str
    source: str
    raws: list[bytes]
    answers: list[dict[str, Any]]


def oddities() -> list[Oddity]:
    """Read all of them."""
    return list(_read_oddities())


def _read_oddities() -> Iterator[Oddity]:
    for name, case in json.loads((ODDITIES / "expected.json").read_text()).items():
        if case["source"].endswith("+sse"):
            raws = [(ODDITIES / f"{name}.sse").read_bytes()]
        else:
            raws = (ODDITIES / f"{name}.jsonl").read_bytes().splitlines()
        yield Oddity(name, case["source"], raws, [case["expect"], *case.get("or", ())])
    for file in ("more.json", "providers.json"):
        for name, case in json.loads((ODDITIES / file).read_text()).items():
            raws = [
                chunk.encode() if isinstance(chunk, str) else json.dumps(chunk).encode()
                for chunk in case["chunks"]
            ]
            yield Oddity(name, case["source"], raws, [case["expect"], *case.get("or", ())])


def reply(source: str, raws: Iterable[bytes], *, batch: bool = False) -> dict[str, Any]:
    """
    Fold a message of these raw chunks; give what a reader has in the end.

    Args:
        source: How they are encoded.
        raws: The raw chunks; the producer's end follows.
        batch: Fold them all at once, and not one by one.
    """
    fold = ChatFold(ChatState(chat="c", epoch="e1", log=LogWindow(1 << 24)), Pipeline())
    start = {"source": source, "producer": "p", "mode": "append", "on_mismatch": "emit"}
    steps = [("start", orjson.dumps({**start, "metadata": {}}))]
    steps += [("chunk", raw) for raw in raws]
    steps.append(("end", b"{}"))
    entries = [Entry(n, "m", type_, n, data) for n, (type_, data) in enumerate(steps, start=1)]
    batches = [entries] if batch else [[entry] for entry in entries]
    changes = [fold.apply(part, 1) for part in batches]
    events = [orjson.loads(raw) for each in changes for raw in each.events]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    got = read(events)
    got["says"] += [f"{hidden.code}: {hidden.text}" for each in changes for hidden in each.hidden]
    return got


def read(events: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add events up to what a reader has in the end."""
    chunks: dict[str, dict[str, Any]] = {}
    got: dict[str, Any] = {"steps": 0, "ends": [], "finishes": [], "says": []}
    got.update(rejected=False, streams=False)
    for event in events:
        kind, data, chunk = event["type"], event["data"], chunks.get(event.get("chunk", ""), {})
        if kind == "chunk.started":
            chunks[event["chunk"]] = {**data, "text": "", "status": "open"}
        elif kind == "chunk.delta":
            assert chunk["status"] == "open"
            assert data["offset"] == len(chunk["text"])
            got["streams"] = got["streams"] or bool(chunk["text"])
            chunk["text"] += data["text"]
        elif kind in ("chunk.completed", "chunk.failed"):
            assert chunk["status"] == "open"
            chunk["status"] = kind.removeprefix("chunk.")
        elif kind == "step.started":
            got["steps"] += 1
        elif kind == "step.completed":
            got["finishes"].append(data["finish_reason"])
        elif kind in ("message.completed", "message.failed", "message.stopped"):
            got.update(data, end=kind)
            got["ends"].append(kind)
        if kind in ("step.failed", "message.failed", "input.rejected"):
            got["says"].append(f"{data['code']}: {data['detail']}")
            got["rejected"] = got["rejected"] or kind != "step.failed"
    assert not [chunk for chunk in chunks.values() if chunk["status"] == "open"]
    for name in ("text", "reasoning", "refusal"):
        got[name] = [c["text"] for c in chunks.values() if c["kind"] == name and c["text"]]
    got["tool_calls"] = [
        {
            "name": c["tool_name"],
            "id": c["tool_call_id"],
            "arguments": parsed(c["text"]),
            "format": c["format"],
            "whole": c["status"] == "completed",
        }
        for c in chunks.values()
        if c["kind"] == "tool_call"
    ]
    return got


def parsed(text: str) -> Any:
    """Parse JSON; what is none stays the text it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def differences(answers: Iterable[dict[str, Any]], got: dict[str, Any]) -> list[str]:
    """Compare a reply with the right answers; empty: it is one of them."""
    found = [
        [
            f"{name}: want {want}, got {got}"
            for name, want in answer.items()
            if not _is(name, want, got)
        ]
        for answer in answers
    ]
    return [] if [] in found else found[0]


def _is(name: str, want: Any, got: dict[str, Any]) -> bool:
    have: Any = got["tool_calls"] if name == "incomplete_call" else got.get(name)
    right: bool = want == have
    if name in ("text", "reasoning", "refusal") and isinstance(want, str):
        right = "".join(have) == want
    elif name == "calls":
        right = want == [[call["name"], call["whole"]] for call in got["tool_calls"]]
    elif name == "usage":
        right = have is not None and all(have[field] == number for field, number in want.items())
    elif name == "says":
        right = re.search(want, "\n".join(have), re.IGNORECASE) is not None
    elif name == "tool_calls":
        right = len(want) == len(have) and all(
            call["whole"] and all(call[field] == value for field, value in wanted.items())
            for wanted, call in zip(want, have, strict=True)
        )
    elif name == "incomplete_call":
        runnable = [call for call in have if call["whole"]]
        if want != "said":
            runnable = [call for call in runnable if isinstance(call["arguments"], dict)]
        right = bool(have) and not runnable
    return right
