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
