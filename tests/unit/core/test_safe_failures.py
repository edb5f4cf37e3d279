"""Plant a marker wherever a secret or an exception's text can enter, and search all that readers get."""

from typing import Any

import orjson
import pytest

from riverdelta.core.changes import Changes
from riverdelta.core.events import Event
from riverdelta.core.fold import ChatFold
from riverdelta.core.state import Entry
from riverdelta.pipeline import Pipeline
from riverdelta_workers.filters import Redact, Sections
from tests.support.core.fold_tools import NOW_MS, new_state

MARK = "postgres://marker:hidden@10.0.0.7"
SECRET = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2


def fold_all(
    source: str, steps: list[tuple[str, Any]], pipeline: Pipeline, **opening: Any
) -> list[Changes]:
    start = {"source": source, "producer": "p", "mode": "append", "on_mismatch": "emit"}
    start |= {"metadata": {}} | opening
    folder = ChatFold(new_state(), pipeline)
    batches = []
    for number, (type_, data) in enumerate([("start", start), *steps], start=1):
        raw = data if isinstance(data, bytes) else orjson.dumps(data)
        batches.append(folder.apply([Entry(number, "m", type_, number, raw)], NOW_MS))
    return batches


def emitted(batches: list[Changes]) -> list[Event]:
    return [Event(raw) for batch in batches for raw in batch.events]


FAILURES: list[tuple[str, list[tuple[str, Any]]]] = [
    ("openai-chat", [("chunk", {"error": {"message": MARK, "code": "rate_limit"}})]),
    ("openai-chat", [("chunk", {"error": {"message": "x", "type": f"no such key {MARK}"}})]),
    ("openai-chat", [("chunk", b'{"choices": ' + MARK.encode())]),
    ("anthropic", [("chunk", {"type": "error", "error": {"type": "overloaded", "message": MARK}})]),
    ("chunks", [("chunk", {"chunk": "a", "kind": MARK, "text": "x"})]),
    ("text", [("chunk", b"Hello"), ("restart", {"on_overlap": MARK})]),
    ("text", [(MARK, b"{}")]),
]


@pytest.mark.parametrize(("source", "steps"), FAILURES)
def test_readers_get_codes_and_sentences_and_the_log_has_the_text(
    source: str, steps: list[tuple[str, Any]]
) -> None:
    batches = fold_all(source, [*steps, ("end", {})], Pipeline())
    failed = [e for e in emitted(batches) if e.type in {"input.rejected", "step.failed"}]
    assert failed
    hidden = [failure for batch in batches for failure in batch.hidden]
    for event in emitted(batches):
        assert MARK not in event.raw.decode()
    for event, failure in zip(failed, hidden, strict=True):
        assert event.data["detail"].endswith(f"The id of this error is {failure.id}.")
    assert all(failure.text for failure in hidden)


def test_the_text_of_an_exception_of_the_fold_is_in_the_dead_letter_only() -> None:
    folder = ChatFold(new_state(), Pipeline())
    start = Entry(1, "m", "start", 0, b"{}")
    changes = folder.reject(start, "fold_error", f"KeyError: {MARK}", NOW_MS)
    assert MARK.encode() not in b"".join(changes.events)
    (letter,) = changes.rejected
    assert letter.detail == f"KeyError: {MARK} (error m:1)"
    types = [Event(raw).type for raw in changes.events]
    assert types == ["message.started", "message.failed", "input.rejected"]


def test_what_a_producer_says_to_observers_never_reaches_readers() -> None:
    about = dict.fromkeys(("conversation", "user", "operation_name", "service_name"), MARK)
    batches = fold_all("text", [("chunk", b"Hello"), ("end", {})], Pipeline(), about=about)
    assert MARK not in b"".join(event.raw for event in emitted(batches)).decode()
    assert batches[0].messages["m"].about == about


@pytest.mark.parametrize(
    ("source", "steps"),
    [
        ("text", [("fail", {"code": "mine", "detail": f"With {SECRET} it failed"})]),
        ("text", [("fail", {"code": SECRET, "detail": "It failed"})]),
        ("text", [("stop", {"reason": SECRET})]),
        ("text", [("annotate", {"name": "title", "data": {"title": f"On {SECRET}"}})]),
        ("text", [("annotate", {"name": "n", "data": [{SECRET: [SECRET, 1, None]}]})]),
        (
            "openai-chat",
            [
                (
                    "chunk",
                    {
                        "model": SECRET,
                        "choices": [
                            {"index": 0, "delta": {"content": "x"}, "finish_reason": SECRET}
                        ],
                    },
                ),
                ("end", {}),
            ],
        ),
        ("openai-chat", [("chunk", {"error": {"message": "x", "code": SECRET}})]),
        ("text", [("annotate", {"name": SECRET, "data": 1})]),
        (
            "openai-chat",
            [
                ("chunk", {"choices": [{"index": 0, "delta": {"content": "x"}}]}),
                ("chunk", {"choices": [], "usage": {"prompt_tokens": 1, "tier": SECRET}}),
                ("end", {}),
            ],
        ),
        ("chunks", [("chunk", {"chunk": "a", "kind": "tool_call", "tool_name": SECRET})]),
        ("text", [("chunk", f"```{SECRET}\nx\n```\n".encode()), ("end", {})]),
    ],
)
def test_redact_covers_what_is_no_chunks_text(source: str, steps: list[tuple[str, Any]]) -> None:
    cutting = Pipeline(splitter=Sections, cut_all=True)
    shown = {
        hides: b"".join(e.raw for e in emitted(fold_all(source, steps, pipeline))).decode()
        for hides, pipeline in ((False, cutting), (True, cutting.with_filter(Redact)))
    }
    assert SECRET in shown[False], "the marker was planted"
    assert SECRET not in shown[True]


def test_operators_can_have_the_text_and_it_is_filtered_like_all_text() -> None:
    steps: list[tuple[str, Any]] = [
        ("chunk", {"error": {"message": f"no such key {SECRET}", "code": "auth"}}),
        ("end", {}),
    ]
    shown = emitted(fold_all("openai-chat", steps, Pipeline(failure_texts=True)))
    details = [event.data["detail"] for event in shown if event.type == "step.failed"]
    assert details == [f"no such key {SECRET}"]
    hiding = Pipeline(stream_filter=Redact, failure_texts=True)
    for event in emitted(fold_all("openai-chat", steps, hiding)):
        assert SECRET not in event.raw.decode()


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_redact_reads_the_escapes_of_a_calls_json(size: int) -> None:
    arguments = f'{{"{escaped(SECRET)}": "on {escaped(SECRET)}", "at": "x\\n{SECRET}"}}'
    about = {"chunk": "a", "kind": "tool_call", "format": "json", "tool_name": "search"}
    parts = [arguments[at : at + size] for at in range(0, len(arguments), size)]
    steps = [("chunk", {**about, "text": part}) for part in parts]
    shown = emitted(fold_all("chunks", [*steps, ("end", {})], Pipeline(stream_filter=Redact)))
    text = "".join(event.data["text"] for event in shown if event.type == "chunk.delta")
    hidden = "[github_token]"
    assert orjson.loads(text) == {hidden: f"on {hidden}", "at": f"x\n{hidden}"}
    for event in shown:
        assert SECRET not in str(event.data)


def notes(batches: list[Changes], key: str) -> list[Any]:
    found = (event.data for event in emitted(batches) if event.type == "message.annotated")
    return [data["data"][key] for data in found if key in data["data"]]


def test_a_title_in_parts_is_one_text() -> None:
    parts = [{"title_chunk": part} for part in ("About ", SECRET[:9], SECRET[9:], " and so on")]
    for ends in ([], [{"title": f"About {SECRET} and so on"}]):
        steps = [("annotate", {"name": "title", "data": data}) for data in [*parts, *ends]]
        batches = fold_all("text", [*steps, ("end", {})], Pipeline(stream_filter=Redact))
        shown = "".join(notes(batches, "title_chunk"))
        assert "About [github_token] and so on".startswith(shown)
        assert bool(ends) or shown.endswith("so on")
        assert notes(batches, "title") == ["About [github_token] and so on"] * len(ends)
    plain = fold_all("text", [*steps, ("end", {})], Pipeline())
    assert notes(plain, "title_chunk") == [part["title_chunk"] for part in parts]
