from typing import Any

import orjson
import pytest

from riverdelta import InvalidIdError, Observer, SettingsError
from riverdelta.core.codecs.calls import CALLS_MAX
from riverdelta.core.errors import LimitExceeded
from riverdelta.core.events import Event, json_schema
from riverdelta.core.fold import CHUNKS_MAX, RECENT_MESSAGES, ChatFold
from riverdelta.core.state import Entry
from riverdelta.pipeline import Pipeline
from tests.support.core.fold_tools import (
    NOW_MS,
    SCHEMA,
    chunk,
    control,
    delta,
    entries,
    facts,
    fold,
    new_state,
    start,
    view_of,
)

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def test_a_plain_reply_from_start_to_end() -> None:
    steps = [start("text"), chunk("Hello"), chunk(" world"), control("end")]
    assert facts(fold([[entry] for entry in entries(steps)])) == [
        ("message.started", {"role": "assistant", "source": "text", "metadata": {}}),
        ("step.started", {"step": 0, "model": None}),
        (
            "chunk.started",
            {
                "kind": "text",
                "format": "text",
                "index": 0,
                "tool_name": None,
                "tool_call_id": None,
                "section": None,
            },
        ),
        ("chunk.delta", {"offset": 0, "text": "Hello"}),
        ("chunk.delta", {"offset": 5, "text": " world"}),
        ("chunk.completed", {"length": 11}),
        (
            "step.completed",
            {"step": 0, "finish_reason": "stop", "raw_finish_reason": None, "usage": None},
        ),
        (
            "message.completed",
            {
                "finish_reason": "stop",
                "usage": None,
                "timings": {"ttft_ms": 10, "duration_ms": 30},
                "bytes": 11,
                "chunks": 2,
            },
        ),
    ]


def test_neighbouring_deltas_of_a_batch_merge_and_others_do_not() -> None:
    steps = [
        start("text"),
        chunk("a"),
        chunk("b"),
        control("annotate", name="n", data=1),
        chunk("c"),
    ]
    deltas = [data for type_, data in facts(fold([entries(steps)])) if type_ == "chunk.delta"]
    assert deltas == [{"offset": 0, "text": "ab"}, {"offset": 2, "text": "c"}]


def test_offsets_count_code_points() -> None:
    steps = [start("text"), chunk("ä🙂"), chunk("x")]
    deltas = [
        data
        for type_, data in facts(fold([[entry] for entry in entries(steps)]))
        if type_ == "chunk.delta"
    ]
    assert [data["offset"] for data in deltas] == [0, 2]


def test_usage_is_summed_over_steps_and_the_last_finish_reason_counts() -> None:
    tool = {"index": 0, "id": "t1", "function": {"name": "f", "arguments": "{}"}}
    steps = [
        start("openai-chat"),
        chunk(delta({"role": "assistant", "tool_calls": [tool]})),
        chunk(delta({}, "tool_calls", usage=USAGE)),
        control("tool_result", tool_call_id="t1", content={"rows": 3}),
        chunk(delta({"role": "assistant", "content": "Done"}) | {"id": "chatcmpl-2"}),
        chunk(delta({}, "stop", usage=USAGE) | {"id": "chatcmpl-2"}),
        control("end"),
    ]
    events = fold([entries(steps)])
    ends = [data for type_, data in facts(events) if type_ == "step.completed"]
    assert [(end["step"], end["finish_reason"]) for end in ends] == [(0, "tool_calls"), (1, "stop")]
    assert ends[0]["usage"]["raw"] == USAGE
    completed = events[-1].data
    assert completed["finish_reason"] == "stop"
    assert completed["usage"] == {
        "input_tokens": 10,
        "output_tokens": 14,
        "reasoning_tokens": 0,
        "cached_tokens": 0,
    }
    view = view_of(events)
    kinds = [(c["kind"], c["tool_name"], c["text"]) for c in view.messages[0]["chunks"]]
    assert kinds == [
        ("tool_call", "f", "{}"),
        ("tool_result", "f", '{"rows":3}'),
        ("text", None, "Done"),
    ]


def test_a_provider_error_fails_its_step_and_the_message_only_at_the_producers_end() -> None:
    steps = [
        start("openai-chat"),
        chunk(delta({"role": "assistant", "content": "Par"})),
        chunk({"error": {"code": "overloaded", "message": "try later"}}),
    ]
    events = fold([entries(steps)])
    assert [event.type for event in events[-2:]] == ["chunk.failed", "step.failed"]
    assert view_of(events).messages[0]["status"] == "open"
    ended = fold([entries([*steps, control("end")])])
    assert ended[-1].type == "message.failed"
    assert ended[-1].data["code"] == "source_error"
    assert "overloaded" in ended[-1].data["detail"]


def test_a_later_step_heals_a_failed_one() -> None:
    steps = [
        start("openai-chat"),
        chunk({"error": {"code": "overloaded", "message": "try later"}}),
        chunk(delta({"role": "assistant", "content": "Hi"})),
        chunk(delta({}, "stop", usage=USAGE)),
        control("end"),
    ]
    assert fold([entries(steps)])[-1].type == "message.completed"


def test_failing_closes_what_is_open_once_each() -> None:
    steps = [start("text"), chunk("a"), control("fail", code="producer_lost", detail="gone")]
    events = fold([entries(steps)])
    assert [event.type for event in events[-3:]] == [
        "chunk.failed",
        "step.failed",
        "message.failed",
    ]
    assert view_of(events).messages[0]["error"] == {"code": "producer_lost", "detail": "gone"}


def test_stopping_keeps_the_text_that_was_there() -> None:
    steps = [start("text"), chunk("partial"), control("stop", reason="enough")]
    events = fold([entries(steps)])
    assert [event.type for event in events[-3:]] == [
        "chunk.completed",
        "step.completed",
        "message.stopped",
    ]
    view = view_of(events)
    assert view.text("m") == "partial"
    assert view.messages[0]["status"] == "stopped"


@pytest.mark.parametrize(
    "late", [control("end"), chunk("late"), control("fail", code="c", detail="d")]
)
def test_the_first_end_in_stream_order_wins(late: tuple[str, bytes]) -> None:
    steps = [start("text"), chunk("a"), control("end")]
    assert facts(fold([entries([*steps, late])])) == facts(fold([entries(steps)]))


def test_a_start_that_comes_twice_opens_once() -> None:
    steps = [start("text"), start("text"), chunk("a")]
    types = [event.type for event in fold([entries(steps)])]
    assert types.count("message.started") == 1


def test_bad_chunks_are_dead_letters_and_the_stream_goes_on() -> None:
    steps = [
        start("openai-chat"),
        chunk(delta({"role": "assistant", "content": "a"})),
        chunk("not json"),
        chunk(delta({"content": "b"})),
    ]
    folder = ChatFold(new_state(), Pipeline())
    changes = folder.apply(entries(steps), NOW_MS)
    assert [(letter.code, letter.entry.data) for letter in changes.rejected] == [
        ("invalid_json", b"not json")
    ]
    events = [Event(raw) for raw in changes.events]
    assert [event.type for event in events if event.type == "input.rejected"] == ["input.rejected"]
    assert view_of(events).text("m") == "ab"


def test_entries_for_nobody_and_of_unknown_type_are_dead_letters() -> None:
    stray = Entry(1, "nobody", "chunk", 0, b"x")
    folder = ChatFold(new_state(), Pipeline())
    assert [letter.code for letter in folder.apply([stray], NOW_MS).rejected] == ["unknown_message"]
    odd = [start("text"), ("telepathy", b"{}")]
    changes = folder.apply(entries(odd, first=2), NOW_MS)
    assert [letter.code for letter in changes.rejected] == ["unknown_entry"]


def test_a_rejected_entry_moves_the_cursor_and_leaves_the_rest_alone() -> None:
    folder = ChatFold(new_state(), Pipeline())
    before = entries([start("text"), chunk("a")])
    folder.apply(before, NOW_MS)
    poison = Entry(3, "m", "chunk", 0, b"boom")
    changes = folder.reject(poison, "fold_error", "ValueError: boom", NOW_MS)
    assert [Event(raw).type for raw in changes.events] == ["input.rejected"]
    assert folder.state.processed == 3
    assert folder.state.messages["m"].rejected == 1


def test_messages_interleave_without_mixing() -> None:
    a = entries([start("text"), chunk("a1"), chunk("a2"), control("end")], "a")
    b = entries([start("text"), chunk("b1"), chunk("b2"), control("end")], "b")
    mixed = [entry for pair in zip(a, b, strict=True) for entry in pair]
    numbered = [entry._replace(number=i + 1) for i, entry in enumerate(mixed)]
    view = view_of(fold([numbered]))
    assert (view.text("a"), view.text("b")) == ("a1a2", "b1b2")


def test_snapshot_sources_reset_where_the_rule_says_so() -> None:
    steps = [
        start("text-snapshot", on_mismatch="reset"),
        chunk("Hello"),
        chunk("Bye"),
        control("end"),
    ]
    events = fold([entries(steps)])
    assert [event.type for event in events[3:6]] == ["chunk.delta", "chunk.reset", "chunk.delta"]
    assert events[5].data == {"offset": 0, "text": "Bye"}
    assert view_of(events).text("m") == "Bye"


def test_a_chat_remembers_fifty_messages_and_never_drops_an_open_one() -> None:
    folder = ChatFold(new_state(), Pipeline())
    folder.apply(entries([start("text")], "open", 1), NOW_MS)
    dropped: list[str] = []
    number = 2
    for i in range(RECENT_MESSAGES + 5):
        batch = entries([start("text"), chunk("x"), control("end")], f"m{i}", number)
        number += 3
        dropped += folder.apply(batch, NOW_MS).dropped
    assert dropped == [f"m{i}" for i in range(6)]
    assert "open" in folder.state.recent
    assert len(folder.state.recent) == RECENT_MESSAGES


def test_a_message_whose_end_somebody_has_yet_to_learn_of_is_not_dropped() -> None:
    class Other(Observer):
        """A second one."""

    folder = ChatFold(new_state(), Pipeline(observers=[Observer(), Other()]))
    dropped: list[str] = []
    for i in range(RECENT_MESSAGES + 2):
        batch = entries([start("text"), control("end")], f"m{i}", 1 + 2 * i)
        changes = folder.apply(batch, NOW_MS)
        assert [(c.message_id, c.observer) for c in changes.owed] == [
            (f"m{i}", "Observer"),
            (f"m{i}", "Other"),
        ]
        assert [Event(call.end).type for call in changes.owed] == ["message.completed"] * 2
        dropped += changes.dropped
        if i != 1:
            folder.state.owed -= {(f"m{i}", "Observer"), (f"m{i}", "Other")}
    assert dropped == ["m0", "m2"]


def test_two_observers_of_one_name_are_refused() -> None:
    class Named(Observer):
        name = "Observer"

    with pytest.raises(SettingsError, match="two observers are called 'Observer'"):
        Pipeline(observers=[Observer(), Named()])
    Named.name = "not an id"
    with pytest.raises(InvalidIdError):
        Pipeline(observers=[Named()])


def replacing(*ids: str) -> tuple[str, bytes]:
    return start("text", replaces=list(ids))


def test_a_message_that_replaces_others_takes_them_from_every_reader() -> None:
    old = entries([start("text"), chunk("old"), control("end")], "old", 1)
    later = entries([start("text"), chunk("later")], "later", 4)
    new = entries([replacing("old", "later", "never-seen"), chunk("new"), control("end")], "new", 6)
    late = entries([chunk("too late"), control("end")], "later", 9)
    events = fold([old, later, new, late])
    by_the_new = [event.type for event in events if event.message == "new"]
    assert by_the_new[:2] == ["message.started", "message.replaced"]
    stopped = [event for event in events if event.type == "message.stopped"]
    assert [(event.message, event.data) for event in stopped] == [("later", {"reason": "replaced"})]
    replaced = next(event for event in events if event.type == "message.replaced")
    assert replaced.data == {"messages": ["old", "later", "never-seen"]}
    assert [message["message"] for message in view_of(events).messages] == ["new"]
    assert [event.type for event in events if event.type == "input.rejected"] == []


def test_what_was_replaced_is_forgotten_first() -> None:
    folder = ChatFold(new_state(), Pipeline())
    number = 1
    for i in range(RECENT_MESSAGES):
        first = replacing("m7") if i == 8 else start("text")
        folder.apply(entries([first, control("end")], f"m{i}", number), NOW_MS)
        number += 2
    changes = folder.apply(entries([start("text")], "one-more", number), NOW_MS)
    assert list(changes.dropped) == ["m7"]


def test_the_published_schema_is_the_one_of_the_code() -> None:
    assert orjson.loads(SCHEMA.read_bytes()) == json_schema(), "run: make schema"


def test_a_turn_is_written_in_the_encoding_of_who_adopts_it() -> None:
    reply = [chunk(delta({"content": text})) for text in "Hi"]
    adopted = {"producer": "q", "source": "openai-chat", "mode": "append", "on_mismatch": "emit"}
    steps = [start("text", producer=""), control("adopt", **adopted), *reply, control("end")]
    folder = ChatFold(new_state(), Pipeline())
    batches = [folder.apply([entry], NOW_MS) for entry in entries(steps)]
    events = [Event(raw) for batch in batches for raw in batch.events]
    assert [batch.adopted for batch in batches[:3]] == [set(), {"m"}, set()]
    assert folder.state.recent["m"].producer == "q"
    assert [event.type for event in events][:2] == ["message.started", "step.started"]
    assert view_of(events).text("m") == "Hi"
    assert events[-1].type == "message.completed"


def test_a_turn_may_wait_again_and_be_adopted_again_before_anything_of_it_is_stored() -> None:
    folder = ChatFold(new_state(), Pipeline())
    encoding = {"source": "text", "mode": "append", "on_mismatch": "emit"}
    steps = [
        start("text", producer=""),
        control("adopt", producer="p", **encoding),
        control("adopt", producer=""),
        control("adopt", producer="q", **encoding),
        chunk("x"),
    ]
    producers = []
    for entry in entries(steps):
        folder.apply([entry], NOW_MS)
        producers.append(folder.state.messages["m"].producer)
    assert producers == ["", "p", "", "q", "q"]
    late = folder.apply(entries([control("adopt", producer="r", **encoding)], first=6), NOW_MS)
    assert [letter.code for letter in late.rejected] == ["bad_adopt"]
    assert folder.state.messages["m"].producer == "q"


BLOCK = '{"type":"text","text":"a"}'


@pytest.mark.parametrize(
    ("source", "raw"),
    [
        (
            "openai-chat",
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {
                            "tool_calls": [
                                {"index": n, "id": f"i{n}", "function": {"name": "n"}}
                                for n in range(CALLS_MAX + 1)
                            ]
                        },
                    }
                ]
            },
        ),
        (
            "anthropic+sse",
            "".join(
                f'data: {{"type":"content_block_start","index":{n},"content_block":{BLOCK}}}\n\n'
                f'data: {{"type":"content_block_stop","index":{n}}}\n\n'
                for n in range(CHUNKS_MAX + 1)
            ),
        ),
    ],
)
def test_an_entry_that_makes_too_many_chunks_is_refused(source: str, raw: Any) -> None:
    """The pump rejects it as one that breaks the fold: the stream goes on, and the message can end."""
    begin, many, *rest = entries([start(source), chunk(raw), chunk(b"{}"), control("end")])
    folder = ChatFold(new_state(), Pipeline())
    folder.apply([begin], NOW_MS)
    with pytest.raises(LimitExceeded, match="more than"):
        folder.apply([many], NOW_MS)

    folder = ChatFold(new_state(), Pipeline())
    folder.apply([begin], NOW_MS)
    changes = folder.reject(many, "fold_error", "too many", NOW_MS)
    changes.events += folder.apply(rest, NOW_MS).events
    assert [Event(raw).type for raw in changes.events][-1] == "message.completed"
