"""Chats of every kind for `test_everything`: seeded, with all that a backend may push in any place."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field
from typing import Any

from riverdelta.cards import builtin_processors
from riverdelta.core.codecs import SOURCES
from riverdelta.core.filter_results import Call, FilterResult
from riverdelta.core.processors.base import ChunkText
from riverdelta.core.state import Entry
from riverdelta.core.tracker import MISMATCH_RULES
from riverdelta.pipeline import Pipeline
from riverdelta_workers.filters import Redact, Sections
from tests.support.core.codec_tools import lines_of, recordings
from tests.support.core.fold_tools import control, start
from tests.support.core.secrets_tools import SECRETS

Steps = list[tuple[str, bytes]]

PLANTED = {name: secret for name, secret in SECRETS.items() if name != "private_key"}
_WORDS = ["so ", "the river ", "runs, ", "é🌊 ", "\n", "a < b ", "`x` ", "boom ", "al ", "key-"]
_FENCE = f"\n``` {PLANTED['aws_key']}\n"
_MARKS = ["<think>", "</think>", "\n```python\n", "\n```\n", "<thi", "``", _FENCE]
_SEARCH = "search_data_catalog"
_TOOLS = ["create_metrics", _SEARCH, _SEARCH, "create_plan", "done", "boom_tool", "other"]
MALFORMED = (b"{", b'{"tool_call_id": "t"}')
"""Control entries that no producer of ours sends."""

_RECORDED = {
    source: [lines_of(path) for path in recordings(source) if path.stat().st_size < 5_000]
    for source in (
        "openai-chat",
        "openai-responses",
        "anthropic",
        "chunks",
        "gemini",
        "bedrock-converse",
    )
}


class Boom:
    """A processor of somebody's own: its card comes at the end, and it raises where it sees ``boom``."""

    def can_process(self, tool_name: str | None, value: Any) -> bool:
        """Take anything."""
        del tool_name, value
        return True

    def process(self, chunk: ChunkText) -> dict[str, Any] | None:
        """Card at the end."""
        if "boom" in chunk.complete_text:
            raise RuntimeError("boom")
        return {"id": chunk.card_id, "text": chunk.complete_text} if chunk.done else None

    def complete(self, result: Any) -> dict[str, Any] | None:
        """Raise for some results, pass over others."""
        if result.content == "boom":
            raise RuntimeError("boom")
        if result.content is None:
            return None
        return {"id": result.tool_call_id, "card": result.card}


@dataclass
class Story:
    """A chat's entries, and what goes wrong with which of them."""

    entries: list[Entry]
    pipeline: Pipeline
    poison: set[int] = field(default_factory=set)
    filter_results: dict[int, FilterResult] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """By message: all that a plain one said, from its start to its end, with nothing else between."""


def make_pipeline(chance: random.Random) -> Pipeline:
    """Choose what stands between raw chunks and readers."""
    processors = builtin_processors()
    tools = ["boom_tool"] if chance.random() < 0.7 else ["boom_tool", "create_plan", "other"]
    processors.register("boom", Boom, tools)
    return Pipeline(
        processors=processors,
        stream_filter=Redact if chance.random() < 0.6 else None,
        splitter=Sections,
        cut_all=chance.random() < 0.5,
        on_processor_failure="fail_message" if chance.random() < 0.15 else "disable",
        version=str(chance.random()),
    )


def make_story(chance: random.Random) -> Story:
    """Make up a chat."""
    story = Story([], make_pipeline(chance))
    messages: dict[str, Steps] = {}
    for number in range(chance.choice([1, 1, 2, 3])):
        name = f"m{number}"
        messages[name] = _message(name, list(messages), story, chance)
    story.entries = _braided(messages, chance)
    for entry in story.entries:
        _mishap(entry, story, chance)
    return story


def prose(chance: random.Random, most: int = 14) -> str:
    """Make up a text with secrets, parts and odd characters."""
    kinds = chance.choices([_WORDS, _MARKS, list(PLANTED.values())], [6, 2, 1], k=most)
    parts = [_part(chance.choice(kind), chance) for kind in kinds]
    return "".join(parts[: chance.randint(0, most)])


def _part(part: str, chance: random.Random) -> str:
    # A letter beside it would make some secrets something else.
    return f" {part} " if part in PLANTED.values() else part + chance.choice(["", " "])


def split(text: Any, chance: random.Random) -> list[Any]:
    """Cut a text, or bytes, anywhere."""
    size = chance.choice([3, 8, 8, 40, 1000])
    out, at = [], 0
    while at < len(text):
        step = chance.randint(1, size)
        out.append(text[at : at + step])
        at += step
    return out


def _message(name: str, before: list[str], story: Story, chance: random.Random) -> Steps:
    source = chance.choice([*SOURCES, "text", "openai-chat", "chunks", "text-snapshot"])
    options: dict[str, Any] = {}
    if chance.random() < 0.3:
        options["mode"] = chance.choice(["append", "snapshot"])
    if chance.random() < 0.5:
        options["on_mismatch"] = chance.choice(MISMATCH_RULES)
    said = _said(source, chance)
    steps: Steps = [start(source, **options), *said]
    plain = chance.random() < 0.3
    if plain and "mode" not in options and source == "text":
        raw = b"".join(data for _, data in said)
        story.texts[name] = raw.decode("utf-8", "surrogatepass")
    if not plain:
        for _ in range(chance.choice([0, 1, 1, 2, 4])):
            _interrupt(steps, source, chance)
    if before and chance.random() < 0.3:
        replaced = chance.sample(before, chance.randint(1, len(before)))
        steps[0] = start(source, **options, replaces=[*replaced, "absent"])
    ends = [control("end"), control("stop", reason="enough"), control("fail", code="c", detail="d")]
    if plain or chance.random() < 0.8:
        steps.append(ends[0] if plain else chance.choice([ends[0], ends[0], *ends]))
        if not plain and chance.random() < 0.3:
            steps += [*said[:2], chance.choice(ends)]
    return steps


def _said(source: str, chance: random.Random) -> Steps:
    inner = source.removesuffix("+sse")
    if inner in _RECORDED and (inner not in _MAKERS or chance.random() < 0.4):
        raws = chance.choice(_RECORDED[inner])[:60]
    elif inner == "text":
        whole = prose(chance).encode()
        if chance.random() < 0.2:
            whole += "\ud83d\ude00 \ud83d!".encode("utf-8", "surrogatepass")
        raws = split(whole, chance)
    elif inner == "text-snapshot":
        raws = [text.encode() for text in _snapshots(prose(chance), chance)]
    else:
        documents = _MAKERS[inner](chance)
        encoded = [json.dumps(d, ensure_ascii=chance.random() < 0.5) for d in documents]
        raws = [text.encode("utf-8", "surrogatepass") for text in encoded]
    if source.endswith("+sse"):
        raws = split(b"".join(b"data: " + raw + b"\n\n" for raw in raws), chance)
    return [("chunk", raw) for raw in raws]


def _snapshots(text: str, chance: random.Random) -> list[str]:
    so_far = list(itertools.accumulate(split(text, chance)))
    if chance.random() < 0.4 and so_far:
        at = chance.randrange(len(so_far))
        so_far[at] = chance.choice(["", "other ", so_far[at][3:], "x" + so_far[at]])
        so_far.append(so_far[-1] + prose(chance, 3))
    return so_far


def arguments(chance: random.Random) -> str:
    """Encode the arguments of a call: mostly JSON, some of it what the cards know."""
    text = prose(chance, 4)
    values: list[Any] = [
        {"files": [{"name": "sales", "yml_content": text}, {"name": "x", "yml_content": "a: 1\n"}]},
        {"plan": text},
        {"search_requirements": text, "specific_queries": ["a", text]},
        {"final_response": text},
        {"a": [1, 2.5, None, True, {"b": text}], "a b": "\ud83d\ude00é"},
        [],
        text,
    ]
    encoded = json.dumps(chance.choice(values), ensure_ascii=chance.random() < 0.5)
    encoded = encoded.encode("utf-8", "replace").decode()
    if chance.random() < 0.15:
        return encoded[: chance.randint(0, len(encoded))]
    return encoded + chance.choice(["", "", " ", "x"])


def _direct(chance: random.Random) -> list[dict[str, Any]]:
    chunks = []
    for number in range(chance.randint(1, 4)):
        kind = chance.choice(["text", "reasoning", "tool_call", "tool_call", "tool_result"])
        key = chance.choice(["a", "b", f"k{number}", "tool_result"])
        first: dict[str, Any] = {"chunk": key, "kind": kind}
        text = prose(chance)
        if kind == "tool_call":
            first |= {"tool_name": chance.choice(_TOOLS), "tool_call_id": f"t{number}"}
            text = arguments(chance)
        if chance.random() < 0.5:
            first["processor"] = chance.choice(["sections", "json", "yml", "boom", "absent"])
        pieces = split(text, chance)
        if chance.random() < 0.2:
            first["mode"] = "snapshot"
            pieces = list(itertools.accumulate(pieces))
        documents = [first, *({"chunk": key, "text": piece} for piece in pieces)]
        if chance.random() < 0.7:
            documents[-1]["done"] = True
        chunks.append(documents)
    return _shuffled(chunks, chance)


def _openai(chance: random.Random) -> list[dict[str, Any]]:
    documents = []
    for step in range(chance.choice([1, 1, 2])):
        runs: list[list[dict[str, Any]]] = [[{"content": p}] for p in split(prose(chance), chance)]
        runs = [[delta for run in runs for delta in run]]
        if chance.random() < 0.4:
            runs.append([{"reasoning_content": p} for p in split(prose(chance), chance)])
        for index in range(chance.choice([0, 0, 1, 2])):
            call = {"index": index, "id": f"t{step}{index}"}
            named = {"function": {"name": chance.choice(_TOOLS), "arguments": ""}}
            pieces = split(arguments(chance), chance)
            more = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
            runs.append([{"tool_calls": [d]} for d in [call | named, *more]])
        choices: list[dict[str, Any]] = [{"delta": d} for d in _shuffled(runs, chance)]
        if chance.random() < 0.9:
            choices.append({"delta": {}, "finish_reason": "stop"})
        documents += [
            {"id": f"r{step}", "model": "x", "choices": [{"index": 0} | choice]}
            for choice in choices
        ]
    return documents


def _anthropic(chance: random.Random) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = [{"type": "message_start", "message": {"model": "x"}}]
    for index in range(chance.randint(1, 3)):
        kind, name = chance.choice(
            [("text", "text"), ("thinking", "thinking"), ("tool_use", "partial_json")]
        )
        block: dict[str, Any] = {"type": kind}
        text = prose(chance)
        if kind == "tool_use":
            block |= {"id": f"t{index}", "name": chance.choice(_TOOLS), "input": {}}
            text = arguments(chance)
        types = {"text": "text_delta", "thinking": "thinking_delta"}
        deltas = [
            {"type": types.get(name, "input_json_delta"), name: p} for p in split(text, chance)
        ]
        out.append({"type": "content_block_start", "index": index, "content_block": block})
        out += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        if chance.random() < 0.9:
            out.append({"type": "content_block_stop", "index": index})
    if chance.random() < 0.15:
        return [*out, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}]
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    return [*out, delta, {"type": "message_stop"}]


def _responses(chance: random.Random) -> list[dict[str, Any]]:
    item = {"type": "message", "id": "i", "role": "assistant", "content": []}
    place = {"item_id": "i", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": ""}
    text = prose(chance)
    deltas = [
        {"type": "response.output_text.delta", **place, "delta": p} for p in split(text, chance)
    ]
    return [
        {"type": "response.created", "response": {"id": "r", "model": "x"}},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **place, "part": part},
        *deltas,
        {"type": "response.output_text.done", **place, "text": text},
        {"type": "response.completed", "response": {"id": "r", "status": "completed"}},
    ]


_MAKERS = {
    "chunks": _direct,
    "openai-chat": _openai,
    "anthropic": _anthropic,
    "openai-responses": _responses,
}


def _shuffled(runs: list[list[Any]], chance: random.Random) -> list[Any]:
    """Put the items of *runs* between each other, each run in its order."""
    left, out = [list(run) for run in runs if run], []
    while left:
        run = chance.choice(left)
        out += run[: (count := chance.randint(1, 5))]
        del run[:count]
        left = [run for run in left if run]
    return out


def _interrupt(steps: Steps, source: str, chance: random.Random) -> None:
    """Put something between the chunks of a message, anywhere behind its start."""
    at = chance.randint(1, len(steps))
    call_id = chance.choice(["t0", "t0", "t1", "t00", "t00", "call_1", "none"])
    text = prose(chance)
    content = chance.choice([None, "boom", text, [1, "ü"], {"results": [text]}, {"files": [text]}])
    results = control("tool_result", tool_call_id=call_id, content=content)
    other = chance.choice(
        [
            [control("annotate", name="title", data={"text": "Q3 🙂"})],
            [results],
            [results],
            [control("restart", on_overlap="nonsense")],
            [("restart", MALFORMED[0])],
            [("tool_result", MALFORMED[1])],
            [("added", b"{}")],
            [("chunk", b"\xff{")],
            *itertools.repeat(None, 8),
        ]
    )
    if other is None:
        rule = chance.choice(["stitch", "stitch", "append", "reset"])
        again = _said(source, chance) if chance.random() < 0.3 else steps[1:at]
        again = [step for step in again if step[0] == "chunk"]
        again = again[chance.choice([0, 0, 0, len(again) // 2]) :]
        keep = chance.choice([[], steps[at:], steps[at:]])
        other = [control("restart", on_overlap=rule), *again, *keep]
        del steps[at:]
    steps[at:at] = other


def _braided(messages: dict[str, Steps], chance: random.Random) -> list[Entry]:
    runs = [
        [Entry(0, name, type_, 10 * at, data) for at, (type_, data) in enumerate(steps)]
        for name, steps in messages.items()
    ]
    apart = chance.random() < 0.3
    whole = [entry for run in runs for entry in run] if apart else _shuffled(runs, chance)
    return [entry._replace(number=number) for number, entry in enumerate(whole, 1)]


def _mishap(entry: Entry, story: Story, chance: random.Random) -> None:
    if entry.message in story.texts or chance.random() > 0.01:
        return
    if chance.random() < 0.3:
        story.poison.add(entry.number)
    elif entry.type == "chunk":
        call = chance.choice(
            [
                Call("a", "dropped"),
                Call("a", "changed"),
                Call("a", "failed_passed", "timeout", "took 1 s"),
                Call("a", "failed_blocked", "timeout", "took 1 s"),
            ]
        )
        data = entry.data if call.outcome in ("changed", "failed_passed") else None
        story.filter_results[entry.number] = FilterResult(data, (call,))
