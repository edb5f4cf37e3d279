"""What providers and gateways really send: every known oddity, and others of its kind."""

import json
from typing import Any

import orjson
import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import ChunkFail, Rejected, StepEnd, StepFail, Text
from riverdelta.core.codecs.provider import find_lost
from riverdelta.core.codecs.sse import MAX_FRAME_BYTES
from tests.support.core.codec_tools import check_order, fold, merged, run
from tests.support.core.oddities import Oddity, differences, oddities, reply

ALL = oddities()


@pytest.mark.parametrize("odd", ALL, ids=lambda odd: odd.name)
def test_readers_get_what_the_stream_says(odd: Oddity) -> None:
    got = reply(odd.source, odd.raws)
    assert differences(odd.answers, got) == []
    assert got["ends"] == [got["end"]]
    together = reply(odd.source, odd.raws, batch=True)
    answers = [{k: v for k, v in answer.items() if k != "streams"} for answer in odd.answers]
    assert differences(answers, together) == []


@pytest.mark.parametrize("odd", ALL, ids=lambda odd: odd.name)
def test_a_new_owner_at_every_chunk_changes_nothing(odd: Oddity) -> None:
    unbroken, codec = make_codec(odd.source), make_codec(odd.source)
    raws = [raw[at : at + 7] for raw in odd.raws for at in range(0, len(raw), 7)]
    raws = raws if odd.source.endswith("+sse") else odd.raws
    expected = run(unbroken, raws)
    pieces = []
    for raw in raws:
        pieces += codec.decode(raw)
        state = orjson.loads(orjson.dumps(codec.dump()))
        codec = make_codec(odd.source)
        codec.load(state)
    pieces += codec.finish()
    check_order(pieces)
    assert merged(pieces) == merged(expected)
    assert codec.skipped == unbroken.skipped


@pytest.mark.parametrize(
    "odd", [odd for odd in ALL if odd.source.endswith("+sse")], ids=lambda odd: odd.name
)
def test_odd_bytes_cut_anywhere(odd: Oddity) -> None:
    raw = b"".join(odd.raws)
    expected = merged(run(make_codec(odd.source), [raw]))
    for cut in range(len(raw) + 1):
        assert merged(run(make_codec(odd.source), [raw[:cut], raw[cut:]])) == expected
    one_by_one = [raw[at : at + 1] for at in range(len(raw))]
    assert merged(run(make_codec(odd.source), one_by_one)) == expected


IMAGE = "iVBOR" * (1024 * 1024)
U = {"input_tokens": 4, "output_tokens": 3}


def _frames(*events: dict[str, Any]) -> list[bytes]:
    raw = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    return [raw[at : at + 65536] for at in range(0, len(raw), 65536)]


def test_an_image_larger_than_a_frame_does_not_hide_the_end() -> None:
    message = {"id": "i1", "type": "message", "content": [{"type": "output_text", "text": "Here."}]}
    image = {"id": "i2", "type": "image_generation_call", "result": IMAGE, "size": 'l"\\'}
    response = {"id": "r1", "status": "completed", "output": [message, image], "usage": U}
    codec = make_codec("openai-responses+sse")
    pieces = []
    for raw in _frames(
        {"type": "response.created", "response": {"id": "r1"}},
        {
            "type": "response.output_text.delta",
            "item_id": "i1",
            "output_index": 0,
            "delta": "Here.",
        },
        {"type": "response.output_item.done", "output_index": 1, "item": image},
        {"type": "response.completed", "response": response},
    ):
        pieces += codec.decode(raw)
        state = orjson.dumps(codec.dump())
        assert len(state) < 2 * MAX_FRAME_BYTES
        codec = make_codec("openai-responses+sse")
        codec.load(orjson.loads(state))
    pieces += codec.finish()
    check_order(pieces)
    (step,) = fold(pieces)
    assert (step.text, step.finish, step.usage) == ("Here.", "completed", U)
    assert step.tool_calls == [("i2", "image_generation", '{"size":"l\\"\\\\"}')]
    assert not [piece for piece in pieces if isinstance(piece, Rejected)]
    assert codec.skipped >= 2


@pytest.mark.parametrize("ends", [True, False])
def test_content_larger_than_a_frame_fails_the_step_if_its_end_is_lost(ends: bool) -> None:
    big = {"id": "i1", "type": "message", "content": [{"type": "output_text", "text": IMAGE}]}
    delta = {"type": "response.output_text.delta", "output_index": 0, "delta": "Here."}
    done = {"type": "response.output_item.done", "output_index": 0, "item": big}
    end = {"type": "response.completed", "response": {"id": "r1", "status": "completed"}}
    lost = {"type": "response.completed", "response": {"id": "r1", "output": [big], "usage": U}}
    pieces = run(
        make_codec("openai-responses+sse"), _frames(delta, *([done, end] if ends else [lost]))
    )
    check_order(pieces)
    assert [piece.code for piece in pieces if isinstance(piece, Rejected)] == ["frame_too_large"]
    if ends:
        assert pieces[-1] == StepEnd("stop", "completed", None)
    else:
        assert isinstance(pieces[-1], StepFail)
        assert pieces[-1].code == "frame_too_large"


def test_a_call_larger_than_a_frame_never_looks_whole() -> None:
    call = {
        "id": "a",
        "type": "function_call",
        "call_id": "ka",
        "name": "write",
        "arguments": IMAGE,
    }
    added = {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**call, "arguments": ""},
    }
    done = {"type": "response.output_item.done", "output_index": 0, "item": call}
    pieces = run(make_codec("openai-responses+sse"), _frames(added, done))
    assert isinstance(pieces[-1], StepFail)
    assert not [piece for piece in pieces if isinstance(piece, Text)]


def test_skipped_counts_every_payload_that_was_not_taken() -> None:
    codec = make_codec("openai-chat")
    for delta in (
        {"role": "assistant", "content": "Hi"},
        {"content": 5},
        {"reasoning": True, "novelty": [1]},
        {"tool_calls": "f"},
    ):
        codec.decode(json.dumps({"id": "c1", "choices": [{"index": 0, "delta": delta}]}).encode())
    assert codec.skipped == 4


def test_what_was_not_understood_is_named_and_counted() -> None:
    codec = make_codec("anthropic")
    raws = [b'{"type":"novel_event"}'] * 3 + [b'{"type":"other"}', b'{"type":"ping"}']
    (said,) = run(codec, raws)
    assert isinstance(said, Rejected)
    assert said.code == "not_understood"
    assert "novel_event (3), other (1)" in said.detail
    assert codec.skipped == 5


def test_a_call_that_was_cut_fails_with_its_chunk() -> None:
    event = {"type": "content_block_start", "index": 0}
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    pieces = run(make_codec("anthropic"), [json.dumps({**event, "content_block": block}).encode()])
    (cut,) = [piece for piece in pieces if isinstance(piece, ChunkFail)]
    assert cut.code == "incomplete"


def test_names_of_what_was_lost_outlive_the_step_and_stay_few() -> None:
    codec = make_codec("anthropic+sse")
    unknown = [{"type": f"odd_{number}"} for number in range(20)] + [{"type": "odd_0"}]
    run(codec, _frames(*unknown, {"type": "ping"}, {"type": "message_stop"}))
    found = find_lost(codec.dump())
    assert found["odd_0"] == 2
    assert found["others"] == 12
    assert (sum(found.values()), codec.skipped) == (21, 23)


def test_readers_get_how_much_was_skipped() -> None:
    for documents, sentence in (
        ([{"foo": 1}], "; 1 payload was skipped."),
        ([{"foo": 1}, {"bar": 2}], "; 2 payloads were skipped."),
    ):
        got = reply("gemini", [json.dumps(document).encode() for document in documents])
        assert got["rejected"]
        assert f"Nothing of this reply was understood{sentence}" in got["says"][0]


CHAT_PART = {"type": "image_url", "image_url": {"url": IMAGE}}
INLINE = {"inlineData": {"mimeType": "image/png", "data": IMAGE}}
COUNTS = {"promptTokenCount": 4, "candidatesTokenCount": 3}
LARGE: dict[str, list[dict[str, Any]]] = {
    "openai-chat+sse": [
        {
            "choices": [
                {"delta": {"content": "Here.", "images": [CHAT_PART]}, "finish_reason": "stop"}
            ],
            "usage": U,
        }
    ],
    "gemini+sse": [
        {
            "candidates": [
                {"content": {"parts": [{"text": "Here."}, INLINE]}, "finishReason": "STOP"}
            ],
            "usageMetadata": COUNTS,
        }
    ],
    "bedrock-converse+sse": [
        {"contentBlockDelta": {"delta": {"text": "Here."}}},
        {"contentBlockDelta": {"delta": {"image": {"source": {"bytes": IMAGE}}}}},
        {"messageStop": {"stopReason": "end_turn"}},
        {"metadata": {"usage": {"inputTokens": 4, "outputTokens": 3}}},
    ],
    "openai-responses+sse": [
        {"type": "response.output_text.delta", "output_index": 0, "delta": "Here."},
        {
            "type": "response.completed",
            "response": {"id": "r1", "status": "completed", "instructions": IMAGE, "usage": U},
        },
    ],
}


@pytest.mark.parametrize("source", LARGE)
def test_large_frames_of_every_source_say_their_text_and_end(source: str) -> None:
    got = reply(source, _frames(*LARGE[source]))
    assert (got["text"], got["finishes"], got["says"]) == (["Here."], ["stop"], [])
    assert (got["usage"]["input_tokens"], got["usage"]["output_tokens"]) == (4, 3)


def test_a_reply_of_one_frame_that_is_lost_fails() -> None:
    long = {"choices": [{"delta": {"content": IMAGE}, "finish_reason": "stop"}]}
    got = reply("openai-chat+sse", _frames(long))
    assert got["ends"] == ["message.failed"]
    assert any("frame_too_large" in said for said in got["says"])


def test_a_call_with_an_emptied_argument_never_looks_whole() -> None:
    call = {"functionCall": {"name": "upload", "args": {"data": IMAGE}}}
    got = reply("gemini+sse", _frames({"candidates": [{"content": {"parts": [call]}}]}))
    assert not [call for call in got["tool_calls"] if call["whole"]]
    assert got["ends"] == ["message.failed"]
