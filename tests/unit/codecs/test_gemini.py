"""Source gemini: what recordings do not show."""

import json
from typing import Any

import pytest
from google.genai.types import GenerateContentResponse

from riverdelta.broker.producer.encode import encode_chunk
from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkStart,
    Piece,
    Rejected,
    StepEnd,
    StepFail,
    StepStart,
    Text,
)
from tests.support.core.codec_tools import RECORDINGS, check_order, fold, lines_of, merged, run

USAGE = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}


def reply(*parts: Any, **more: Any) -> dict[str, Any]:
    """Make a chunk with parts; fields of the candidate may follow."""
    return {
        "candidates": [{"content": {"role": "model", "parts": list(parts)}, **more}],
        "responseId": "r1",
        "modelVersion": "m",
    }


def called(**call: Any) -> dict[str, Any]:
    return {"functionCall": call}


def pieces_of(*documents: Any) -> list[Piece]:
    """Give all pieces of a message."""
    pieces = run(make_codec("gemini"), [json.dumps(document).encode() for document in documents])
    check_order(pieces)
    return pieces


def skipped(*documents: Any) -> int:
    codec = make_codec("gemini")
    run(codec, [json.dumps(document).encode() for document in documents])
    return codec.skipped


def ends(pieces: list[Piece]) -> list[Piece]:
    return [piece for piece in pieces if isinstance(piece, StepEnd | StepFail)]


def test_texts_of_one_kind_are_one_chunk_and_keep_their_place() -> None:
    pieces = pieces_of(
        reply({"text": "hm", "thought": True}),
        reply({"text": " ok", "thought": True}, {"text": "A"}),
        reply({"text": "B"}, called(name="f", args={"x": 1}), {"text": "C"}),
        reply(finishReason="STOP"),
    )
    assert merged(pieces) == [
        StepStart("m"),
        ChunkStart("0", "reasoning"),
        Text("0", "hm ok"),
        ChunkEnd("0"),
        ChunkStart("1", "text"),
        Text("1", "AB"),
        ChunkEnd("1"),
        ChunkStart("2", "tool_call", "json", "f"),
        Text("2", '{"x":1}'),
        ChunkEnd("2"),
        ChunkStart("3", "text"),
        Text("3", "C"),
        ChunkEnd("3"),
        StepEnd("tool_calls", "STOP", None),
    ]


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("IMAGE_PROHIBITED_CONTENT", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("CONTINUATION", "pause"),
        ("UNEXPECTED_TOOL_CALL", "error"),
        ("NO_IMAGE", "other"),
        ("SOMETHING_NEW", "other"),
        ("max_tokens", "length"),
    ],
)
def test_finish_reasons_are_normalised_with_the_word_beside(word: str, reason: str) -> None:
    assert ends(pieces_of(reply({"text": "x"}, finishReason=word))) == [
        StepEnd(reason, word, None)  # type: ignore[arg-type]
    ]


@pytest.mark.parametrize("word", ["FINISH_REASON_UNSPECIFIED", "", None, "null", 0])
def test_words_that_say_nothing_end_nothing(word: Any) -> None:
    assert ends(pieces_of(reply({"text": "x"}, finishReason=word))) == [StepEnd(None, None, None)]


def test_a_finish_in_every_chunk_and_content_after_it_are_one_step() -> None:
    pieces = pieces_of(
        {**reply({"text": "A"}, finishReason="STOP"), "usageMetadata": {"promptTokenCount": 1}},
        {**reply({"text": "B"}, finishReason="STOP"), "usageMetadata": USAGE},
        {**reply(finishReason="MAX_TOKENS"), "usageMetadata": {"trafficType": "ON_DEMAND"}},
    )
    (end,) = ends(pieces)
    assert isinstance(end, StepEnd)
    assert end.finish_reason == "length"
    assert end.usage is not None
    assert end.usage[:4] == (7, 5, 0, 0)
    assert fold(pieces)[0].text == "AB"


def test_usage_counts_thoughts_as_output_and_what_tools_gave_back_as_input() -> None:
    usage = {
        **USAGE,
        "thoughtsTokenCount": 20,
        "toolUsePromptTokenCount": 3,
        "cachedContentTokenCount": 4,
    }
    (end,) = ends(pieces_of({**reply({"text": "x"}, finishReason="STOP"), "usageMetadata": usage}))
    assert isinstance(end, StepEnd)
    assert end.usage is not None
    assert end.usage == (10, 25, 20, 4, usage)


def test_another_response_is_another_step_but_new_ids_are_not() -> None:
    other = {**reply({"text": "C"}, finishReason="STOP"), "responseId": "r2"}
    stable = pieces_of(reply({"text": "A"}), reply({"text": "B"}), other)
    assert [step.text for step in fold(stable)] == ["AB", "C"]
    finished = pieces_of(reply({"text": "A"}, finishReason="STOP"), other)
    assert [step.text for step in fold(finished)] == ["A", "C"]
    rotating = [{**reply({"text": text}), "responseId": text} for text in "ABC"]
    assert [step.text for step in fold(pieces_of(*rotating))] == ["ABC"]


def test_a_tool_result_ends_a_step_that_only_waits() -> None:
    codec = make_codec("gemini")
    codec.decode(json.dumps(reply({"text": "A"}, finishReason="STOP")).encode())
    assert ends(codec.settle()) == [StepEnd("stop", "STOP", None)]
    codec.decode(json.dumps({**reply({"text": "A"}), "responseId": "r2"}).encode())
    assert codec.settle() == []


def test_only_the_first_candidate_is_read() -> None:
    both = {
        "candidates": [
            {"index": 0, "content": {"parts": [{"text": "A"}]}},
            {"index": 1, "content": {"parts": [{"text": "x"}]}},
        ]
    }
    other = reply({"text": "y"}, index=1)
    assert fold(pieces_of(both, other, reply({"text": "B"}, index=0)))[0].text == "AB"
    assert skipped(both, other) == 2
    late = [reply({"text": "A"}, index=0), other, reply({"text": "B"}, index=0)]
    assert fold(pieces_of(*late))[0].text == "AB"
    assert skipped(*late) == 1
    assert (
        fold(pieces_of(reply({"text": "A"}, index=1), reply({"text": "B"}, index=1)))[0].text
        == "AB"
    )


def test_an_index_that_counts_chunks_is_no_other_answer() -> None:
    numbered = [reply({"text": str(number)}, index=number) for number in range(12)]
    for count in (2, 5, 12):
        assert fold(pieces_of(*numbered[:count]))[0].text == "".join(map(str, range(count)))


# -- calls ---------------------------------------------------------------------------------------


def part(path: str, **value: Any) -> dict[str, Any]:
    return {"jsonPath": path, **value}


def test_calls_that_come_whole_are_whole() -> None:
    pieces = pieces_of(
        reply(called(name="f"), called(name="g", id="1", args={}), called(name="h", args='{"a":1}'))
    )
    assert fold(pieces)[0].tool_calls == [
        (None, "f", "{}"), ("1", "g", "{}"), (None, "h", '{"a":1}')
    ]  # fmt: skip
    assert not [piece for piece in pieces if isinstance(piece, ChunkFail)]


@pytest.mark.parametrize(
    "last",
    [
        reply(finishReason="STOP"),
        reply(finishReason="MAX_TOKENS"),
        reply(called(name="g")),
        reply(called(name="f", willContinue=True)),
        reply(called(id="other", partialArgs=[part("$.b", numberValue=1)])),
        {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}},
    ],
)
@pytest.mark.parametrize("partial", [[], [part("$.a", stringValue="x")]])
def test_a_call_without_its_last_part_does_not_look_whole(
    partial: list[Any], last: dict[str, Any]
) -> None:
    begun = called(name="f", id="c", partialArgs=partial, willContinue=True)
    pieces = pieces_of(reply(begun), last)
    failed = [piece.key for piece in pieces if isinstance(piece, ChunkFail)]
    assert failed[:1] == ["0"] or isinstance(pieces[-1], StepFail)
    assert ChunkEnd("0") not in pieces
    arguments = fold(pieces)[0].tool_calls[0][2]
    with pytest.raises(ValueError):  # noqa: PT011  # whatever json says about it
        json.loads(arguments)


@pytest.mark.parametrize(
    "lost",
    [
        part("$.a", numberValue=1),
        part("$..", numberValue=1),
        part("$.c"),
        {"numberValue": 1},
        "text",
        5,
    ],
)
def test_a_call_that_lost_an_argument_does_not_look_whole(lost: Any) -> None:
    pieces = pieces_of(
        reply(called(name="f", partialArgs=[part("$.a", numberValue=2)], willContinue=True)),
        reply(called(partialArgs=[part("$.b", stringValue="x")], willContinue=True)),
        reply(called(partialArgs=[lost], willContinue=True)),
        reply(called(partialArgs=[part("$.d", boolValue=False)])),
        reply(finishReason="STOP"),
    )
    assert [piece.key for piece in pieces if isinstance(piece, ChunkFail)] == ["0"]
    assert [piece.code for piece in pieces if isinstance(piece, Rejected)] == ["unusable_arguments"]


def test_parts_of_a_call_may_repeat_its_name_or_id() -> None:
    pieces = pieces_of(
        reply(called(name="f", id="1", willContinue=True)),
        reply(called(name="f", partialArgs=[part("$.a", stringValue="x")], willContinue=True)),
        reply(called(id="1", partialArgs=[part("$.a", stringValue="y")], willContinue=True)),
        reply(called(args={"b": [1, {"c": None}]})),
    )
    assert fold(pieces)[0].tool_calls == [("1", "f", '{"a":"xy","b":[1,{"c":null}]}')]
    assert ChunkEnd("0") in pieces


def test_a_path_without_a_value_may_end_the_value_before_it() -> None:
    pieces = pieces_of(
        reply(called(name="f", partialArgs=[part("$.a", numberValue=1)], willContinue=True)),
        reply(called(partialArgs=[part("$.a")], willContinue=True)),
        reply(called()),
    )
    assert fold(pieces)[0].tool_calls == [(None, "f", '{"a":1}')]
    assert ChunkEnd("0") in pieces


def test_parts_of_a_call_that_never_began_are_counted() -> None:
    stray = reply(called(partialArgs=[part("$.a", numberValue=1)]))
    pieces = pieces_of(stray)
    assert [piece.code for piece in pieces if isinstance(piece, Rejected)] == ["not_understood"]
    assert skipped(reply({"text": "A"}), stray, reply(called())) == 2


# -- what is no text and no function call --------------------------------------------------------


def test_tools_that_google_runs_are_calls_and_results() -> None:
    pieces = pieces_of(
        reply({"executableCode": {"language": "PYTHON", "code": "1+1", "id": "e"}}),
        reply({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2", "id": "e"}}),
        reply({"toolCall": {"toolType": "GOOGLE_MAPS", "id": "t", "args": {"q": "Nile"}}}),
        reply({"toolResponse": {"toolType": "GOOGLE_MAPS", "id": "t", "response": {"n": 1}}}),
        reply({"text": "2"}, finishReason="STOP"),
    )
    shown = [piece for piece in pieces if isinstance(piece, ChunkStart | Text)][:8]
    assert shown == [
        ChunkStart("0", "tool_call", "json", "code_execution", "e"),
        Text("0", '{"language":"PYTHON","code":"1+1"}'),
        ChunkStart("1", "tool_result", "json", "code_execution", "e"),
        Text("1", '{"outcome":"OUTCOME_OK","output":"2"}'),
        ChunkStart("2", "tool_call", "json", "GOOGLE_MAPS", "t"),
        Text("2", '{"q":"Nile"}'),
        ChunkStart("3", "tool_result", "json", "GOOGLE_MAPS", "t"),
        Text("3", '{"n":1}'),
    ]
    assert ends(pieces) == [StepEnd("stop", "STOP", None)]  # nothing for the client to run


def test_the_words_of_an_audio_part_are_text() -> None:
    sound = {"inlineData": {"mimeType": "audio/pcm", "data": "AAAA"}}
    said = reply({**sound, "audioTranscription": {"text": "Hello"}})
    assert fold(pieces_of(said))[0].text == "Hello"
    assert skipped(said) == 1


@pytest.mark.parametrize(
    ("document", "count"),
    [
        (reply({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}), 1),
        (reply({"fileData": {"fileUri": "gs://x"}}), 1),
        (reply({"text": "", "thoughtSignature": "AAAA"}), 1),
        (reply({"text": 5}, None, 7, {"brandNew": 1}), 3),
        (reply({"text": "x"}, groundingMetadata={"webSearchQueries": ["q"]}), 1),
        (reply({"text": "x"}, citationMetadata={"citations": [1]}, groundingMetadata={}), 1),
        (reply({"text": "x"}, safetyRatings=[{"category": "c"}]), 0),
        ({"candidates": []}, 1),
        ({}, 1),
    ],
)
def test_what_is_not_taken_is_counted(document: dict[str, Any], count: int) -> None:
    assert skipped(document) == count


def test_a_reply_of_which_nothing_was_understood_says_so() -> None:
    picture = reply({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, finishReason="STOP")
    (rejected,) = [piece for piece in pieces_of(picture) if isinstance(piece, Rejected)]
    assert rejected.code == "not_understood"
    assert "inlineData (1)" in rejected.detail


# -- blocks and failures -------------------------------------------------------------------------


def test_a_blocked_prompt_ends_as_filtered_with_the_providers_words() -> None:
    feedback = {"blockReason": "OTHER", "blockReasonMessage": "Not allowed."}
    pieces = pieces_of({"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 4}})
    assert pieces[1:4] == [ChunkStart("0", "refusal"), Text("0", "Not allowed."), ChunkEnd("0")]
    (end,) = ends(pieces)
    assert isinstance(end, StepEnd)
    assert end[:2] == ("content_filter", "OTHER")
    assert end.usage is not None
    assert end.usage.input_tokens == 4


def test_a_filtered_reply_shows_the_providers_words_once() -> None:
    last = reply(finishReason="SAFETY", finishMessage="It was unsafe.")
    pieces = pieces_of(reply({"text": "So"}), last, last)
    (step,) = fold(pieces)
    assert (step.text, step.refusal, step.finish) == ("So", "It was unsafe.", "SAFETY")


def test_a_malformed_call_fails_with_the_providers_words() -> None:
    pieces = pieces_of(reply(finishReason="MALFORMED_FUNCTION_CALL", finishMessage="Malformed: f("))
    assert ends(pieces) == [StepFail("MALFORMED_FUNCTION_CALL", "Malformed: f(")]


ERROR = {"error": {"code": 429, "message": "Quota exceeded.", "status": "RESOURCE_EXHAUSTED"}}


@pytest.mark.parametrize(
    ("document", "failure"),
    [
        (ERROR, StepFail("RESOURCE_EXHAUSTED", "Quota exceeded.")),
        ([ERROR], StepFail("RESOURCE_EXHAUSTED", "Quota exceeded.")),
        ({"error": "gone"}, StepFail("provider_error", "gone")),
        ({"response": ERROR}, StepFail("RESOURCE_EXHAUSTED", "Quota exceeded.")),
        ({"code": 503, "message": "busy", "status": "UNAVAILABLE"}, StepFail("503", "busy")),
    ],
)
def test_failures_in_their_known_shapes(document: Any, failure: StepFail) -> None:
    assert ends(pieces_of(document)) == [failure]
    pieces = pieces_of(reply({"text": "A"}), document, reply({"text": "late"}))
    assert ends(pieces) == [failure]
    assert fold(pieces)[0].text == "A"


# -- the same in other clothes -------------------------------------------------------------------


@pytest.mark.parametrize("name", ["partial-arguments", "code-execution", "thoughts", "blocked"])
def test_objects_of_googles_own_sdk_say_the_same(name: str) -> None:
    lines = lines_of(RECORDINGS / "gemini" / f"{name}.jsonl")
    if name == "partial-arguments":  # pydantic takes no half of a pair
        lines = [line for line in lines if b"\\ud8" not in line and b"\\ude" not in line]
    objects = [GenerateContentResponse.model_validate_json(line) for line in lines]
    again = [encode_chunk(one, text_source=False) for one in objects]
    ours, theirs = fold(run(make_codec("gemini"), again)), fold(run(make_codec("gemini"), lines))
    for step in (*ours, *theirs):
        step.usage = None  # the provider's own object, under either name
    assert ours == theirs


def test_a_whole_answer_as_an_array_or_wrapped_is_read() -> None:
    documents = [reply({"text": "A"}), reply({"text": "B"}, finishReason="STOP")]
    plain = pieces_of(*documents)
    assert pieces_of(documents) == plain
    assert pieces_of(*({"response": document, "traceId": "t"} for document in documents)) == plain


def test_done_ends_the_step() -> None:
    codec = make_codec("gemini")
    raws = [json.dumps(reply({"text": "A"}, finishReason="STOP")).encode(), b"[DONE]", b"[DONE]"]
    pieces = [piece for raw in raws for piece in codec.decode(raw)]
    assert ends(pieces) == [StepEnd("stop", "STOP", None)]
    assert codec.skipped == 1
    assert codec.finish() == []
