"""Sources with +sse: the bytes of a response, cut anywhere."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.codecs import SOURCES, make_codec
from riverdelta.core.codecs.pieces import ChunkEnd, ChunkStart, Rejected, StepEnd, Text
from riverdelta.core.codecs.sse import MAX_FRAME_BYTES, Frame, SseDecoder, TooLarge
from tests.support.core.codec_tools import RECORDINGS, fold, lines_of, merged, run

PROVIDERS = tuple(source.removesuffix("+sse") for source in SOURCES if source.endswith("+sse"))
BOM = b"\xef\xbb\xbf"


def framed(path: Path, newline: bytes = b"\r\n") -> bytes:
    """Frame a recording with all that the standard allows: comments, odd fields, split data."""
    frames = [BOM + b": comment" + newline + b"retry: 100" + newline + newline]
    for number, line in enumerate(lines_of(path)):
        data = [line]
        if number % 3 == 0:  # a line break is legal between the tokens of a document
            data = [line[:1], line[1:-1], line[-1:]]
        fields = [b"event: " + json.loads(line).get("type", "x").encode(), b": ping", b"id"]
        fields += [(b"data:" if number % 2 else b"data: ") + part for part in data]
        frames.append(newline.join(fields) + newline * 2)
    return b"".join(frames)


@pytest.mark.parametrize("newline", [b"\r\n", b"\n", b"\r"], ids=["crlf", "lf", "cr"])
@pytest.mark.parametrize("source", PROVIDERS)
def test_cut_at_every_byte(source: str, newline: bytes) -> None:
    path = RECORDINGS / source / "text.jsonl"
    expected = merged(run(make_codec(source), lines_of(path)))
    raw = framed(path, newline)

    for cut in range(len(raw) + 1):
        codec = make_codec(f"{source}+sse")
        pieces = codec.decode(raw[:cut])
        state = json.loads(json.dumps(codec.dump()))
        codec = make_codec(f"{source}+sse")
        codec.load(state)
        pieces += codec.decode(raw[cut:]) + codec.finish()
        assert merged(pieces) == expected

    one_by_one = [raw[at : at + 1] for at in range(len(raw))]
    assert merged(run(make_codec(f"{source}+sse"), one_by_one)) == expected


def _data(raws: list[bytes]) -> list[bytes]:
    decoder = SseDecoder()
    frames = [frame for raw in raws for frame in decoder.feed(raw)]
    assert not any(isinstance(frame, TooLarge) for frame in frames)
    return [frame.data for frame in frames if isinstance(frame, Frame)]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data:a\r\rdata:  b\n\n", [b"a", b" b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\n\n", [b""]),
        (b"data\ndata\n\n", [b"\n"]),
        (b"data: a\n", []),
        (b": data: a\n\n", []),
        (b"event: x\nid: 1\nretry: 5\n\n", []),
        (b"dataa: a\n\n", []),
        (b" data: a\n\n", []),
        (b"\n\n\ndata: a\r\n\r\n\r\n", [b"a"]),
        (BOM + b"data: a\n\n", [b"a"]),
        (BOM + BOM + b"data: a\n\n", []),
        (b"\n" + BOM + b"data: a\n\n", []),
        (b"data: a\r\ndata: b\r\n\r\ndata: c\n\n", [b"a\nb", b"c"]),
    ],
)
def test_frames_as_the_standard_has_them(raw: bytes, expected: list[bytes]) -> None:
    assert _data([raw]) == expected
    for first, second in itertools.combinations(range(len(raw) + 1), 2):
        assert _data([raw[:first], raw[first:second], raw[second:]]) == expected


@given(st.lists(st.sampled_from([b"data", b":", b" ", b"\r", b"\n", b"x", BOM[:1], BOM[1:]])))
def test_how_bytes_are_cut_says_nothing(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    assert _data(parts) == _data([whole]) == _data([whole[at : at + 1] for at in range(len(whole))])
    lines = whole.removeprefix(BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    assert _data([whole]) == _slow_frames(lines[:-1])


def _slow_frames(lines: list[bytes]) -> list[bytes]:
    frames: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        name, _, value = line.partition(b":")
        if not line and data:
            frames.append(b"\n".join(data))
            data = []
        elif name == b"data":
            data.append(value.removeprefix(b" "))
    return frames


def test_done_ends_the_chunks_of_a_step_that_waits_for_its_usage() -> None:
    chunk = {"id": "c1", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    end = {"id": "c1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    codec = make_codec("openai-chat+sse")
    codec.decode(f"data: {json.dumps(chunk)}\n\ndata: {json.dumps(end)}\n\n".encode())
    assert codec.decode(b"data: [DONE]\n\n") == [ChunkEnd("text")]
    assert codec.settle() == [StepEnd("stop", "stop", None)]
    assert codec.finish() == []
    assert make_codec("anthropic+sse").decode(b"data: [DONE]\n\n") == []


def test_a_bad_frame_leaves_the_others_alone() -> None:
    good = b'data: {"id":"c1","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    pieces = make_codec("openai-chat+sse").decode(b"data: {no\n\n" + good + b"data: 5\n\n")
    assert [type(piece).__name__ for piece in pieces] == [
        "Rejected",
        "StepStart",
        "ChunkStart",
        "Text",
        "Rejected",
    ]


def test_a_last_frame_without_its_blank_line() -> None:
    start = b'data: {"type":"message_start","message":{"id":"m"}}\n\n'
    stop = b'data: {"type":"message_stop"}'
    for end in (b"", b"\n", b"\r"):
        assert run(make_codec("anthropic+sse"), [start, stop + end])[-1] == StepEnd(
            None, None, None
        )
        assert not make_codec("anthropic+sse").finish()
    pieces = run(make_codec("anthropic+sse"), [start, stop[:-1]])
    assert [piece.code for piece in pieces if isinstance(piece, Rejected)] == ["invalid_json"]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_frame_that_is_too_large_is_dropped_to_its_blank_line(newline: bytes) -> None:
    delta = b'{"id":"c1","choices":[{"index":0,"delta":{"content":"ok"}}]}'
    codec = make_codec("openai-chat+sse")
    pieces = codec.decode(b"data: " + b"x" * (MAX_FRAME_BYTES // 2))
    pieces += codec.decode(b"y" * MAX_FRAME_BYTES)
    state = codec.dump()
    assert len(json.dumps(state)) < 1000
    codec = make_codec("openai-chat+sse")
    codec.load(state)
    pieces += codec.decode(b"y" + newline + b"data: more" + newline)
    pieces += codec.decode(newline + b"data: " + delta + newline * 2)
    assert [type(piece).__name__ for piece in pieces] == [
        "Rejected",
        "StepStart",
        "ChunkStart",
        "Text",
    ]
    assert isinstance(pieces[0], Rejected)
    assert pieces[0].code == "frame_too_large"


def test_an_sdk_recording_framed_by_a_provider() -> None:
    path = RECORDINGS / "anthropic" / "text.jsonl"
    pieces = run(make_codec("anthropic+sse"), [framed(path)])
    assert isinstance(pieces[1], ChunkStart)
    assert isinstance(pieces[2], Text)
    assert fold(pieces)[0].text == "Rivers meet the sea: 🌊 naïve 日本語."
