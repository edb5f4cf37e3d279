"""What the fold makes of chunks of JSON text: patches, cards, and what a tool's result adds."""

import json
from typing import Any

import pytest

from riverdelta import apply_patches
from riverdelta.cards.files import FILES_MAX
from riverdelta.core.events import Event
from riverdelta.core.fold import ChatFold
from riverdelta.core.processors import ProcessorRegistry
from riverdelta.core.processors.base import ChunkText, ObjectProcessor, ToolResult
from riverdelta.pipeline import Pipeline
from tests.support.core.fold_tools import (
    ARGUMENTS,
    NOW_MS,
    call,
    chunk,
    control,
    entries,
    fold,
    new_state,
    start,
    steps_of,
    view_of,
)


def of_type(events: list[Event], type_: str) -> list[dict[str, Any]]:
    return [event.data for event in events if event.type == type_]


def test_patches_rebuild_the_arguments_while_they_arrive() -> None:
    events = fold([[entry] for entry in entries(steps_of(ARGUMENTS))])
    document: Any = None
    for event in events:
        if event.type == "chunk.patch":
            document = apply_patches(document, event.data["patches"])
    assert document == json.loads(ARGUMENTS)


def test_a_card_grows_with_the_file_and_its_reduction_is_the_snapshots() -> None:
    events = fold([[entry] for entry in entries(steps_of(ARGUMENTS))])
    outputs = of_type(events, "chunk.output")
    assert len(outputs) > 3
    assert {data["processor"] for data in outputs} == {"metric"}
    (card,) = view_of(events).messages[0]["chunks"][0]["outputs"].values()
    (file,) = card["files"].values()
    assert (file["file_name"], file["file"]["text"]) == ("sales", "a: 1\nb: 2\n")


def test_a_tools_result_completes_the_card_of_its_call() -> None:
    result = control("tool_result", tool_call_id="call-1", content={"files": [{"name": "sales"}]})
    events = fold([entries(steps_of(ARGUMENTS, result))])
    (view,) = view_of(events).messages
    (card,) = view["chunks"][0]["outputs"].values()
    assert card["status"] == "completed"
    (file,) = card["files"].values()
    assert file["file"]["text"] == "a: 1\nb: 2\n"
    assert [c["kind"] for c in view["chunks"]] == ["tool_call", "tool_result"]


def test_text_that_is_no_json_is_said_once_and_goes_on_as_text() -> None:
    events = fold([[entry] for entry in entries(steps_of('{"files": oops, "more": 1}'))])
    assert of_type(events, "processor.failed") == [{"processor": "json", "code": "invalid_json"}]
    assert view_of(events).messages[0]["chunks"][0]["text"] == '{"files": oops, "more": 1}'
    assert events[-1].type == "message.completed"


def test_plain_text_costs_no_parser() -> None:
    folder = ChatFold(new_state(), Pipeline(ProcessorRegistry()))
    folder.apply(entries([start("text"), chunk("hello")]), NOW_MS)
    (open_chunk,) = folder.state.messages["m"].open_chunks.values()
    assert open_chunk.parser is None


class Broken:
    """A processor with a bug."""

    def can_process(self, tool_name: str | None, value: Any) -> bool:
        return True

    def process(self, chunk: ChunkText) -> dict[str, Any] | None:
        raise ZeroDivisionError


def test_a_processor_that_raises_is_disabled_for_its_chunk_and_said_once() -> None:
    registry = ProcessorRegistry()
    registry.register("broken", Broken, ["create_metrics"])
    folder = ChatFold(new_state(), Pipeline(registry))
    events = [Event(raw) for raw in folder.apply(entries(steps_of(ARGUMENTS)), NOW_MS).events]
    assert of_type(events, "processor.failed") == [{"processor": "broken", "code": "exception"}]
    assert view_of(events).messages[0]["chunks"][0]["text"] == ARGUMENTS


@pytest.mark.parametrize("batch", [1, 3, 1000])
@pytest.mark.parametrize("raises_at", ["first", "done", "result"])
def test_a_processor_that_raises_fails_its_message_where_that_is_asked_for(
    raises_at: str, batch: int
) -> None:
    class Fragile(Broken):
        def process(self, chunk: ChunkText) -> dict[str, Any] | None:
            return super().process(chunk) if raises_at == "first" or chunk.done else None

        def complete(self, result: ToolResult) -> dict[str, Any] | None:
            raise ZeroDivisionError

    class AtResult(Fragile):
        def process(self, chunk: ChunkText) -> dict[str, Any] | None:
            return None

    registry = ProcessorRegistry()
    factory = AtResult if raises_at == "result" else Fragile
    registry.register("fragile", factory, ["create_metrics"])
    pipeline = Pipeline(registry, on_processor_failure="fail_message")
    folder, result = (
        ChatFold(new_state(), pipeline),
        control("tool_result", tool_call_id="call-1", content=[]),
    )
    every = entries(steps_of(ARGUMENTS, result))
    events = [
        Event(raw)
        for at in range(0, len(every), batch)
        for raw in folder.apply(every[at : at + batch], NOW_MS).events
    ]
    assert of_type(events, "processor.failed") == [{"processor": "fragile", "code": "exception"}]
    detail = "processor fragile raised at chunk m.0"
    assert events[-1].type == "message.failed"
    assert events[-1].data == {"code": "processor_failed", "detail": detail}
    assert [event.type for event in events if event.ends_message] == ["message.failed"]
    assert folder.state.messages == {}


def test_the_other_messages_of_a_chat_go_on_when_a_processor_fails_one() -> None:
    registry = ProcessorRegistry()
    registry.register("broken", Broken, ["create_metrics"])
    folder = ChatFold(new_state(), Pipeline(registry, on_processor_failure="fail_message"))
    batch = [
        *entries([start("chunks"), call("{")], "bad"),
        *entries([start("text"), chunk("well"), control("end")], "good", 3),
        *entries([call("}"), control("end")], "bad", 6),
    ]
    events = [Event(raw) for raw in folder.apply(batch, NOW_MS).events]
    ends = [(event.message, event.type) for event in events if event.ends_message]
    assert ends == [("bad", "message.failed"), ("good", "message.completed")]


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"files": 3}', '{"files": [{}]}'])
def test_wrong_shapes_give_no_card_and_no_error(text: str) -> None:
    events = fold([[entry] for entry in entries(steps_of(text))])
    assert of_type(events, "chunk.output") == []
    assert events[-1].type == "message.completed"


def test_a_reset_starts_json_and_card_over() -> None:
    snapshot = {
        "chunk": "t",
        "kind": "tool_call",
        "tool_name": "create_metrics",
        "mode": "snapshot",
    }
    texts = [ARGUMENTS[:40], ARGUMENTS]
    other = json.dumps({"files": [{"name": "other", "yml_content": "c: 3\n"}]})
    steps = [
        start("chunks", on_mismatch="reset"),
        *(chunk(snapshot | {"text": text, "tool_call_id": "call-1"}) for text in [*texts, other]),
        control("end"),
    ]
    events = fold([[entry] for entry in entries(steps)])
    assert "chunk.reset" in [event.type for event in events]
    (view,) = view_of(events).messages
    (card,) = view["chunks"][0]["outputs"].values()
    assert [file["file_name"] for file in card["files"].values()] == ["other"]


@pytest.mark.parametrize(
    "text",
    [json.dumps([1] * 100_000), json.dumps([[]] * 50_000), json.dumps({"a": "x" * 200_000})],
    ids=["numbers", "lists", "one string"],
)
def test_no_event_of_a_long_document_has_many_patches(text: str) -> None:
    """However long one piece is: making an event and reading it holds an interpreter."""
    steps = [start("chunks"), call(text, tool="any"), call("", tool="any", done=True)]
    events = fold([entries([*steps, control("end")])])
    patches = [event.data["patches"] for event in events if event.type == "chunk.patch"]
    assert len(patches) == -(-len(text) // (16 * 1024))
    assert max(map(len, patches)) <= 16 * 1024
    value = None
    for some in patches:
        value = apply_patches(value, some)
    assert value == json.loads(text)


def test_a_processor_sees_no_text_ahead_of_its_delta() -> None:
    seen: list[tuple[str, str]] = []

    class Watching(ObjectProcessor):
        def process(self, chunk: ChunkText) -> None:
            seen.append((chunk.delta, chunk.complete_text))

    registry = ProcessorRegistry()
    registry.register("watching", lambda: Watching(("any",)), ("any",))
    text = json.dumps({"a": "x" * 50_000})
    steps = [start("chunks"), call(text, tool="any"), call("", tool="any", done=True)]
    fold([entries(steps)], pipeline=Pipeline(processors=registry))
    assert len(seen) > 3
    read = ""
    for delta, complete_text in seen:
        read += delta
        assert complete_text == read
    assert read == text


def test_a_card_shows_so_many_files_and_no_more() -> None:
    files = [{"name": f"f{n}", "yml_content": "a: 1"} for n in range(FILES_MAX + 5)]
    events = fold([entries(steps_of(json.dumps({"files": files}), size=50_000))])
    (message,) = view_of(events).messages
    (card,) = message["chunks"][0]["outputs"].values()
    assert card["file_ids"] == list(card["files"])
    assert [file["file_name"] for file in card["files"].values()] == [
        file["name"] for file in files[:FILES_MAX]
    ]
