"""The page folds events in JavaScript: it has to come to what the reference, in Python, comes to."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import riverdelta_gateway
from riverdelta.core.events import Event
from tests.support.core.codec_tools import lines_of, recordings
from tests.support.core.fold_tools import chunk, control, entries, fold, start, view_of

VIEW = Path(riverdelta_gateway.__file__).with_name("static") / "view.js"
IN_NODE = Path(__file__).parents[2] / "support" / "gateway" / "fold_in_node.mjs"
SOURCES = (
    "openai-chat",
    "openai-responses",
    "anthropic",
    "gemini",
    "bedrock-converse",
    "chunks",
)

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None, reason="needs Node, which runs the page's own code"
)


def in_node(runs: list[list[Event]]) -> Any:
    encoded = json.dumps([[json.loads(event.raw) for event in run] for run in runs])
    done = subprocess.run(
        ["node", IN_NODE, VIEW], input=encoded, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def assert_folds_alike(runs: list[list[Event]]) -> None:
    for run, messages in zip(runs, in_node(runs), strict=True):
        assert messages == json.loads(json.dumps(view_of(run).messages))


def test_every_recording() -> None:
    runs = []
    for source in SOURCES:
        for path in recordings(source):
            raws = [chunk(line) for line in lines_of(path)]
            runs.append(fold([entries([start(source), *raws, control("end")])]))
    assert len(runs) > 20
    assert_folds_alike(runs)


CARDS = {
    "create_plan": {"plan": "# Plan\n1. look 🧭\n2. build"},
    "search_data_catalog": {"search_requirements": "x", "specific_queries": ["revenue", "churn"]},
    "create_metrics": {
        "files": [
            {"name": "sales", "yml_content": "a: 1\nb: é\n"},
            {"name": "costs", "yml_content": "c: 3\n" * 40},
        ]
    },
    "message_user_clarifying_question": {"text": "Which quarter?"},
}


@pytest.mark.parametrize("tool", CARDS)
def test_cards_while_they_grow(tool: str) -> None:
    arguments = json.dumps(CARDS[tool])
    call = {"chunk": "t", "kind": "tool_call", "tool_name": tool, "tool_call_id": "call-1"}
    pieces = [chunk(call | {"text": arguments[at : at + 7]}) for at in range(0, len(arguments), 7)]
    steps = [start("chunks"), *pieces, chunk(call | {"text": "", "done": True}), control("end")]
    events = fold([[entry] for entry in entries(steps)])
    assert any(event.type == "chunk.output" for event in events)
    assert_folds_alike([events[:at] for at in range(1, len(events) + 1)])


@pytest.mark.parametrize("processor", ["json", "yml"])
def test_cards_that_carry_patches_and_paths(processor: str) -> None:
    call = {"chunk": "t", "kind": "tool_call", "tool_name": "any", "processor": processor}
    text = json.dumps({"a": [1, {"yml_content": "x: 1\ny: 2"}], "b": None, "c": "text"})
    pieces = [chunk(call | {"text": char}) for char in text]
    steps = [start("chunks"), *pieces, chunk(call | {"text": "", "done": True})]
    events = fold([[entry] for entry in entries(steps)])
    assert any(event.type == "chunk.output" for event in events)
    assert_folds_alike([events[:at] for at in range(1, len(events) + 1)])


def test_resets_failures_stops_and_annotations() -> None:
    steps = [
        start("text-snapshot", on_mismatch="reset"),
        chunk("one"),
        chunk("two"),
        control("annotate", name="title", data={"text": "T"}),
        control("stop", reason="enough"),
    ]
    failed = [start("text"), chunk("x"), control("fail", code="c", detail="d")]
    assert_folds_alike([fold([[entry] for entry in entries(run)]) for run in (steps, failed)])


@pytest.mark.parametrize("split", [1, 1000])
@pytest.mark.parametrize("processor", [None, "json", "yml"])
@pytest.mark.parametrize(
    "value",
    [
        {"__proto__": {"polluted": 1, "yml_content": "a: 1"}},
        {"constructor": {"prototype": {"polluted": 1}}},
        [{"__proto__": [{"__proto__": {"polluted": "text", "toString": "x"}}]}],
    ],
)
def test_names_that_every_object_inherits_are_names_like_others(
    value: Any, processor: str | None, split: int
) -> None:
    call = {"chunk": "t", "kind": "tool_call", "tool_name": "any", "processor": processor}
    text = json.dumps(value)
    pieces = [chunk(call | {"text": text[at : at + split]}) for at in range(0, len(text), split)]
    steps = [start("chunks"), *pieces, chunk(call | {"text": "", "done": True})]
    assert_folds_alike([fold([[entry] for entry in entries(steps)])])


def test_outputs_of_any_names_are_folded_as_the_reference_does() -> None:
    def output(card: Any) -> Event:
        data = {"processor": "own", "output": card}
        event = {"v": 1, "seq": 9, "epoch": "e1", "chat": "c", "message": "m", "chunk": "m.0"}
        return Event(json.dumps(event | {"type": "chunk.output", "ts": 0, "data": data}).encode())

    call = {"chunk": "t", "kind": "tool_call", "tool_name": "any"}
    begun = fold([entries([start("chunks"), chunk(call | {"text": "{"})])])
    cards = [
        {"__proto__": {"polluted": None, "polluted_chunk": "a"}, "toString": {"valueOf": 1}},
        {"__proto__": {"polluted": None, "polluted_chunk": "b"}, "toString": {"x_chunk": "y"}},
        {"__proto__": None, "__proto___chunk": "text", "type": "constructor"},
    ]
    assert_folds_alike([[*begun, *map(output, cards[:at])] for at in range(1, len(cards) + 1)])
