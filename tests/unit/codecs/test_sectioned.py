"""Replies that are cut into sections: what `test_sectioned_property.py` does not draw."""

from typing import Any

import orjson
import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import ChunkStart, Text
from riverdelta.core.codecs.sectioned import MAX_SECTIONS, SectionedCodec
from riverdelta.core.events import Event
from riverdelta.core.filters import SectionRule
from riverdelta.core.fold import ChatFold
from riverdelta.pipeline import Pipeline
from riverdelta_workers.filters import Sections
from tests.support.core.cutting import CHUNKS, CUT_ALL, CUT_ASKED, REPLY, Cut, chunks_of
from tests.support.core.fold_tools import (
    NOW_MS,
    chunk,
    control,
    entries,
    facts,
    fold,
    new_state,
    start,
)

WHOLE = [Cut("text", None, REPLY)]


def said(source: str, *raws: str | dict[str, Any], **options: Any) -> list[tuple[str, bytes]]:
    return [start(source, **options), *(chunk(raw) for raw in raws), control("end")]


def events_of(steps: list[tuple[str, bytes]], pipeline: Pipeline = CUT_ALL) -> list[Event]:
    return fold([entries(steps)], pipeline=pipeline)


def test_what_readers_get() -> None:
    events = events_of(said("text", *REPLY))
    assert chunks_of(events) == CHUNKS
    started = [data for type_, data in facts(events) if type_ == "chunk.started"]
    assert started[2] == {
        "kind": "text",
        "format": "text",
        "index": 2,
        "tool_name": None,
        "tool_call_id": None,
        "section": {"name": "code", "info": "python"},
    }
    ends = [event.type for event in events if event.type in {"chunk.started", "chunk.completed"}]
    assert ends == ["chunk.started", "chunk.completed"] * 4


def test_off_is_off() -> None:
    assert chunks_of(events_of(said("text", REPLY), CUT_ASKED)) == WHOLE
    assert chunks_of(events_of(said("text", REPLY), Pipeline())) == WHOLE


@pytest.mark.parametrize(
    ("fields", "cut_asked", "cut_all"),
    [
        ({}, False, True),
        ({"processor": "sections"}, True, True),
        ({"processor": "yml"}, False, False),
        ({"kind": "reasoning"}, False, False),
        ({"kind": "tool_result", "processor": "sections"}, False, False),
        ({"kind": "tool_call", "processor": "sections"}, False, False),
    ],
)
def test_which_chunks_are_cut(fields: dict[str, str], *, cut_asked: bool, cut_all: bool) -> None:
    steps = said("chunks", {"chunk": "a", "text": REPLY} | fields)
    whole = [Cut(fields.get("kind", "text"), None, REPLY)]
    assert chunks_of(events_of(steps, CUT_ASKED)) == (CHUNKS if cut_asked else whole)
    assert chunks_of(events_of(steps, CUT_ALL)) == (CHUNKS if cut_all else whole)


def test_a_block_without_text_is_an_empty_chunk_and_so_is_an_empty_part() -> None:
    steps = said("chunks", {"chunk": "a"}, {"chunk": "a", "done": True})
    assert chunks_of(events_of(steps)) == [Cut("text", None, "")]
    steps = said("text", "<think></think>")
    assert chunks_of(events_of(steps)) == [Cut("reasoning", ("think", ""), "")]


def test_what_is_open_fails_with_its_step() -> None:
    steps = said(
        "openai-chat",
        {"id": "r", "choices": [{"index": 0, "delta": {"content": "a<think>b</thi"}}]},
        {"error": {"code": "overloaded", "message": "later"}},
    )
    assert chunks_of(events_of(steps)) == [
        Cut("text", None, "a"),
        Cut("reasoning", ("think", ""), "b</thi", "failed"),
    ]


def test_text_that_may_start_over_is_not_cut() -> None:
    """What was shown cannot be taken back from chunks that have ended."""
    steps = said("text-snapshot", "<think>a</think>", "b", on_mismatch="reset")
    events = events_of(steps)
    assert chunks_of(events) == [Cut("text", None, "b")]
    assert "chunk.reset" in [event.type for event in events]
    appended = {"chunk": "a", "mode": "append", "text": REPLY}
    assert chunks_of(events_of(said("chunks", appended, on_mismatch="reset"))) == CHUNKS


def test_a_chunk_that_began_without_text_may_go_on_with_a_run() -> None:
    """As with a codec that opens a chunk before its first text."""
    inner = make_codec("openai-chat")
    codec = SectionedCodec(inner, Sections, mode="append", on_mismatch="emit", only_asked=False)
    inner.decode = lambda raw: [ChunkStart("text", "text")] if not raw else []  # type: ignore[method-assign]
    inner.decode_run = lambda raws: ("text", [raw.decode() for raw in raws], None)  # type: ignore[method-assign]
    assert codec.decode(b"") == []
    raws = iter([b"a", b"b"])
    assert codec.decode_run(raws) == (
        "",
        [],
        [ChunkStart("text", "text", mode="append"), Text("text", "a")],
    )
    assert codec.decode_run(raws) == ("", [], [Text("text", "b")])


WILD = Pipeline(
    splitter=lambda: Sections([SectionRule(name="wild", start="<(?:a|aa)+b>", end="</a>")]),
    cut_all=True,
)


@pytest.mark.parametrize("before", ["", "before ", "<aab>in</a>"])
def test_an_own_pattern_without_end_costs_the_parts_and_no_text(before: str) -> None:
    long = "<" + "a" * 40
    texts = [before, long[:1], long[1:], "c> and on", " <aab>"]
    steps = said("text", *filter(None, texts))
    folder, events = ChatFold(new_state(), WILD), list[Event]()
    for entry in entries(steps):
        events += [Event(raw) for raw in folder.apply([entry], NOW_MS).events]
        for message in folder.state.messages.values():
            state = orjson.loads(orjson.dumps(message.codec.dump()))
            message.codec = WILD.codec("text", "append", "emit", state)
    rest = f"{long}c> and on <aab>"
    assert chunks_of(events) == (
        [Cut("text", ("wild", ""), "in"), Cut("text", None, rest)]
        if before.startswith("<")
        else [Cut("text", None, before + rest)]
    )
    failed = [event for event in events if event.type == "processor.failed"]
    assert [event.data for event in failed] == [{"processor": "sections", "code": "timeout"}]


def test_a_wild_end_lets_the_text_go_on_outside_the_part() -> None:
    rule = SectionRule(name="wild", start="<a>", end="(?:a|aa)+b")
    pipeline = Pipeline(splitter=lambda: Sections([rule]), cut_all=True)
    events = events_of(said("text", "<a>x", "a" * 40 + "c", " on"), pipeline)
    assert chunks_of(events) == [
        Cut("text", ("wild", ""), "x"),
        Cut("text", None, "a" * 40 + "c on"),
    ]
    assert [event.type for event in events].count("processor.failed") == 1


@pytest.mark.parametrize("pieces", [1, 7, 1500])
def test_past_the_last_section_all_text_is_ordinary(pieces: int) -> None:
    """However the text was split: a section costs a chunk, so their number is bounded."""
    unit = "<think>a</think>"
    text = unit * (MAX_SECTIONS + 3) + "and <thin"
    length = -(-len(text) // pieces)
    raws = [text[at : at + length] for at in range(0, len(text), length)]
    events = events_of(said("text", *raws))
    assert chunks_of(events) == [
        *[Cut("reasoning", ("think", ""), "a")] * MAX_SECTIONS,
        Cut("text", None, unit * 3 + "and <thin"),
    ]
    failed = [event.data for event in events if event.type == "processor.failed"]
    assert failed == [{"processor": "sections", "code": "too_many_sections"}]


def test_the_sections_of_earlier_owners_count() -> None:
    unit = "<think>a</think>"
    codec = CUT_ALL.codec("text", "append", "emit")
    codec.decode((unit * (MAX_SECTIONS - 1)).encode())
    state = orjson.loads(orjson.dumps(codec.dump()))
    after = CUT_ALL.codec("text", "append", "emit", state)
    starts = [piece for piece in after.decode((unit * 2).encode()) if type(piece) is ChunkStart]
    assert [start.section is not None for start in starts] == [True, False]


def resumed(before: Pipeline, after: Pipeline) -> list[Cut]:
    """Switch from one pipeline to another in the middle of the code, a marker being held back."""
    at = REPLY.index("``\nDone")
    first, second = entries(said("text", REPLY[:at], REPLY[at:])), list[Event]()
    folder = ChatFold(new_state(), before)
    second += [Event(raw) for raw in folder.apply(first[:2], NOW_MS).events]
    message = folder.state.messages["m"]
    state = orjson.loads(orjson.dumps(message.codec.dump()))
    message.codec = after.codec("text", "append", "emit", state)
    second += [Event(raw) for raw in ChatFold(folder.state, after).apply(first[2:], NOW_MS).events]
    return chunks_of(second)


def test_a_message_goes_on_as_it_began_where_the_settings_change() -> None:
    assert resumed(CUT_ALL, CUT_ASKED) == CHUNKS
    assert resumed(CUT_ASKED, CUT_ALL) == WHOLE


def test_a_part_whose_rule_is_gone_goes_on_to_the_end_of_its_block() -> None:
    think_only = Pipeline(splitter=lambda: Sections([SectionRule(name="x", start="<x>", end="y")]))
    assert resumed(CUT_ALL, think_only) == [
        *CHUNKS[:2],
        CHUNKS[2]._replace(text="print(1)\n```\nDone."),
    ]
