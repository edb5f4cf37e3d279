import json
import threading
from typing import Any

import pytest

from riverdelta.cards import builtin_processors
from riverdelta.core.outputs import Output, ReasoningText, reduce_output
from riverdelta.core.parser import ChunkParser, complete_card
from riverdelta.core.processors import (
    Card,
    ChunkText,
    ProcessorRegistry,
    ToolResult,
)
from riverdelta.core.tracker import Mode
from riverdelta.streaming_parser import StreamingParser

PLAN = json.dumps({"plan": "look, then leap"})


def message_of(outputs: list[Card | None]) -> Any:
    card: dict[str, Any] | None = None
    for output in outputs:
        if isinstance(output, Output):
            card = reduce_output(card, output.wire())
    return card and card["message"]


@pytest.mark.parametrize("mode", ["append", "snapshot"])
def test_increments_and_snapshots_give_the_same_cards(mode: Mode) -> None:
    parser = StreamingParser(mode=mode)
    outputs, deltas = [], []
    for at in range(0, len(PLAN), 5):
        chunk = PLAN[at : at + 5] if mode == "append" else PLAN[: at + 5]
        output, delta = parser.process_chunk_with_tracking("c", chunk, "plan")
        outputs.append(output)
        deltas.append(delta)
    assert "".join(deltas) == parser.get_complete_text("c") == PLAN
    assert message_of(outputs) == "look, then leap"
    texts = [output for output in outputs if isinstance(output, ReasoningText)]
    assert "".join(text.message_chunk or "" for text in texts) == "look, then leap"
    assert (texts[-1].message, texts[-1].message_chunk) == ("look, then leap", None)


def test_both_calls_track_once() -> None:
    parser = StreamingParser(mode="append")
    parser.process_chunk("c", '{"plan":"a', "plan")
    output, delta = parser.process_chunk_with_tracking("c", "b", "plan")
    assert delta == "b"
    assert isinstance(output, ReasoningText)
    assert output.message_chunk == "b"
    assert parser.get_complete_text("c") == '{"plan":"ab'


def test_an_unchanged_or_shrunken_snapshot_gives_nothing_twice() -> None:
    parser = StreamingParser(on_mismatch="hold")
    whole = '{"plan":"abc"}'
    steps = [whole[:11], whole[:11], whole[:9], "", whole, whole, whole[:4]]
    outputs = [parser.process_chunk("c", step, "plan") for step in steps]
    assert [output is not None for output in outputs] == [
        True,
        False,
        False,
        False,
        True,
        False,
        False,
    ]
    assert message_of(outputs) == "abc"


def test_interleaved_ids_never_mix() -> None:
    parser = StreamingParser(mode="append")
    calls = {
        "a": ("plan", {"plan": "first plan"}),
        "b": ("plan", {"plan": "the other one"}),
        "c": ("field_text", {"final_response": "bye"}),
        "d": (None, {"plan": "no processor"}),
    }
    outputs: dict[str, list[Card | None]] = {chunk_id: [] for chunk_id in calls}
    texts = {chunk_id: json.dumps(value) for chunk_id, (_, value) in calls.items()}
    for at in range(max(map(len, texts.values()))):
        for chunk_id, (processor_type, _) in calls.items():
            output = parser.process_chunk(chunk_id, texts[chunk_id][at : at + 1], processor_type)
            outputs[chunk_id].append(output)
    assert [message_of(outputs[chunk_id]) for chunk_id in "abcd"] == [
        "first plan",
        "the other one",
        "bye",
        None,
    ]
    ids = {output.id for output in outputs["b"] if isinstance(output, Output)}
    assert ids == {"b"}
    assert {chunk_id: parser.get_complete_text(chunk_id) for chunk_id in texts} == texts


def test_a_tool_name_finds_its_processor_and_an_unknown_type_none() -> None:
    parser = StreamingParser()
    assert parser.process_chunk("a", PLAN, tool_name="create_plan", tool_call_id="t") is not None
    assert parser.process_chunk_with_tracking("b", PLAN, "no such thing") == (None, PLAN)
    assert parser.process_chunk_with_tracking("c", PLAN, tool_name="no such tool") == (None, PLAN)
    assert parser.process_chunk("d", PLAN, "no such thing", tool_name="create_plan") is None
    assert parser.process_chunk("e", PLAN, "plan", tool_name="my_own_plan") is not None
    assert all(parser.get_failure(chunk_id) is None for chunk_id in "abcde")


def test_a_reset_starts_json_and_processor_over() -> None:
    parser = StreamingParser(on_mismatch="reset")
    outputs = [
        parser.process_chunk("c", chunk, "plan")
        for chunk in ('{"plan":"wrong way', "[5", '{"plan":"right', '{"plan":"right way"}')
    ]
    assert outputs[1] is None
    assert message_of(outputs[2:3]) == "right"
    assert message_of(outputs[2:]) == "right way"


def test_a_cleared_chunk_starts_over() -> None:
    parser = StreamingParser()
    assert parser.get_complete_text("c") is None
    first = parser.process_chunk("c", PLAN, "plan")
    parser.clear_chunk("c")
    parser.clear_chunk("never seen")
    assert parser.get_complete_text("c") is None
    assert parser.process_chunk("c", PLAN, "plan") == first


def test_an_end_without_the_end_of_the_json_finishes_the_card() -> None:
    parser = StreamingParser()
    parser.process_chunk("c", '{"plan":"cut o', "plan")
    output = parser.process_chunk("c", '{"plan":"cut of', "plan", done=True)
    assert isinstance(output, ReasoningText)
    assert (output.message, output.status) == ("cut of", "failed")
    assert parser.process_chunk("c", '{"plan":"cut of', "plan", done=True) is None


@pytest.mark.parametrize("keywords", [{"mode": "guess"}, {"on_mismatch": "shrug"}])
def test_unknown_modes_are_refused(keywords: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="use one of"):
        StreamingParser(**keywords)


class Shout:
    """Plain text in capitals; breaks at a question mark."""

    def can_process(self, tool_name: str | None, value: Any) -> bool:
        return value is None

    def process(self, chunk: ChunkText) -> Card | None:
        if "?" in chunk.delta:
            raise RuntimeError("no questions")
        return {"said": chunk.delta.upper(), "so_far": len(chunk.complete_text), "done": chunk.done}


def test_a_processor_of_ones_own_for_plain_text() -> None:
    parser = StreamingParser(ProcessorRegistry(), mode="append")
    parser.register_processor("shout", Shout, tools=["speak"])
    assert parser.process_chunk("c", "hey", "shout") == {"said": "HEY", "so_far": 3, "done": False}
    assert parser.process_chunk("c", "", "shout", done=True) == {
        "said": "",
        "so_far": 3,
        "done": True,
    }
    assert parser.process_chunk("d", "du", tool_name="speak") is not None
    assert parser.process_chunk("e", "{}", tool_name="speak") is None  # refuses JSON


def test_an_exception_disables_the_processor_for_its_chunk_alone() -> None:
    parser = StreamingParser(mode="append")
    parser.register_processor("shout", Shout)
    parser.process_chunk("c", "hey", "shout")
    assert parser.process_chunk_with_tracking("c", "you?", "shout") == (None, "you?")
    failure = parser.get_failure("c")
    assert failure is not None
    assert failure.processor == "shout"
    assert str(failure.error) == "no questions"
    assert parser.process_chunk_with_tracking("c", "!", "shout") == (None, "!")
    assert parser.get_complete_text("c") == "heyyou?!"
    assert parser.process_chunk("d", "hey", "shout") is not None


def test_a_failure_is_reported_once_and_patches_go_on() -> None:
    def broken() -> Shout:
        raise ImportError("gone")

    registry = ProcessorRegistry()
    registry.register("broken", broken)
    parser = ChunkParser(registry, "m.0", read_text=str, processor_type="broken")
    first, second = parser.add("[1,"), parser.add("2]")
    assert first.failure is not None
    assert (first.failure.processor, type(first.failure.error)) == ("broken", ImportError)
    assert second.failure is None
    assert second.patches == [((0,), "set", 1), ((1,), "set", 2)][1:]
    assert parser.processor_type is None
    assert parser.add("[3]", reset=True).failure is None  # disabled for the chunk, reset or not
    assert complete_card(registry, ToolResult(None, "t", {}), "broken").failure is not None


def test_a_chunk_parser_says_where_json_ends_being_json() -> None:
    parser = ChunkParser(ProcessorRegistry(), "m.0", read_text=str)
    parsed = parser.add("[1,x")
    assert parsed.patches == [((), "set", []), ((0,), "set", 1)]
    assert parsed.json_error is not None
    assert parsed.json_error.offset == 3
    assert parser.add("]").json_error is None
    assert parser.value == [1]
    assert parser.add("", done=True).json_error is None
    assert parser.add("[2", reset=True).patches == [((), "set", [])]
    cut_off = parser.add("", done=True)
    assert cut_off.json_error is not None


def test_a_disabled_processor_stays_away_and_text_chunks_have_no_patches() -> None:
    registry = builtin_processors()
    parser = ChunkParser(registry, "m.0", read_text=str, tool_name="create_plan", disabled=True)
    assert parser.add(PLAN).output is None
    text = ChunkParser(registry, "m.1", read_text=str, is_json=False)
    assert text.add("[1]") == ([], None, None, None)


def test_eight_threads_with_their_own_ids_and_a_shared_one_lose_nothing() -> None:
    parser = StreamingParser(mode="append")
    shared: list[Card | None] = [parser.process_chunk("shared", '{"plan":"', "plan")]
    own: dict[str, list[Card | None]] = {f"t{i}": [] for i in range(8)}
    text = json.dumps({"plan": "0123456789" * 30})

    def work(chunk_id: str) -> None:
        for char in text:
            own[chunk_id].append(parser.process_chunk(chunk_id, char, "plan"))
            shared.append(parser.process_chunk("shared", "y", "plan"))

    threads = [threading.Thread(target=work, args=(chunk_id,)) for chunk_id in own]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.append(parser.process_chunk("shared", '"}', "plan"))
    assert all(message_of(outputs) == "0123456789" * 30 for outputs in own.values())
    pieces = [output.message_chunk or "" for output in shared if isinstance(output, ReasoningText)]
    assert "".join(pieces) == message_of(shared) == "y" * 8 * len(text)
