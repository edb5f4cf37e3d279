"""Sources text and text-snapshot: bytes cut anywhere, and bytes that are no text."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.codecs import SOURCES, default_mode, make_codec
from riverdelta.core.codecs.pieces import ChunkEnd, ChunkStart, Rejected, StepEnd, StepStart, Text
from tests.support.core.assembled import joined
from tests.support.core.codec_tools import fold, run

SAMPLE = "aé日🌊👩‍👩‍👧 z"


def _text(source: str, raws: list[bytes]) -> str:
    steps = fold(run(make_codec(source), raws))
    return steps[0].text if steps else ""


def test_an_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="openai-chat, openai-responses, anthropic"):
        make_codec("openai")
    assert all(make_codec(source).skipped == 0 for source in SOURCES)
    assert {source for source in SOURCES if default_mode(source) == "snapshot"} == {"text-snapshot"}


def test_text_is_one_step_with_one_chunk() -> None:
    assert run(make_codec("text"), [b"", b"Hello ", b"you"]) == [
        StepStart(None),
        ChunkStart("text", "text", mode="append"),
        Text("text", "Hello "),
        Text("text", "you"),
        ChunkEnd("text"),
        StepEnd("stop", None, None),
    ]
    assert run(make_codec("text"), [b""]) == []


def test_utf8_may_be_cut_at_any_byte() -> None:
    raw = SAMPLE.encode()
    for first, second in itertools.combinations(range(len(raw) + 1), 2):
        assert _text("text", [raw[:first], raw[first:second], raw[second:]]) == SAMPLE


def test_a_cut_character_survives_a_new_owner() -> None:
    codec, pieces = make_codec("text"), []
    for byte in (SAMPLE + "\ud83d\ude00").encode("utf-8", "surrogatepass"):
        pieces += codec.decode(bytes([byte]))
        state = json.loads(json.dumps(codec.dump()))
        codec = make_codec("text")
        codec.load(state)
    assert fold(pieces + codec.finish())[0].text == SAMPLE + "😀"


@pytest.mark.parametrize(
    ("raws", "text", "bad"),
    [
        ([b"a\xffb"], "ab", 1),
        ([b"a\xe6", b"bcd"], "abcd", 1),
        ([b"\xf0\x9f", b"\xff\xfe ok"], " ok", 1),
        ([b"\xc0\xaf", b"\xe2\x82\xac"], "€", 1),
        ([b"ok \xf0\x9f\x98"], "ok ", 1),
        ([b"\xff", b"\xfe", b"fine"], "fine", 2),
        ([b"\x80\x80\x80 fine"], " fine", 1),
    ],
)
def test_a_bad_byte_does_not_eat_good_text(raws: list[bytes], text: str, bad: int) -> None:
    pieces = run(make_codec("text"), raws)
    assert fold(pieces)[0].text == text
    assert [p.code for p in pieces if isinstance(p, Rejected)] == ["invalid_utf8"] * bad


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a\ud83d", "\ude00b"], "a😀b"),
        (["\ud83d", "", "\ude00"], "😀"),
        (["\ud83d", "x"], "\ufffdx"),
        (["\ude00x"], "\ufffdx"),
        (["x\ud83d"], "x\ufffd"),
        (["\ud83d\ud83d", "\ude00"], "\ufffd😀"),
        (["\ud83d\ude00"], "😀"),
    ],
)
def test_surrogate_halves(texts: list[str], expected: str) -> None:
    assert _text("text", [text.encode("utf-8", "surrogatepass") for text in texts]) == expected


@given(st.text(st.characters(codec=None)), st.lists(st.integers(0, 60)))
def test_any_string_cut_anywhere(text: str, cuts: list[int]) -> None:
    raw = text.encode("utf-8", "surrogatepass")
    borders = [0, *sorted(cuts), len(raw)]
    raws = [raw[start:end] for start, end in itertools.pairwise(borders)]
    pieces = run(make_codec("text"), raws)
    assert "".join(step.text for step in fold(pieces)) == joined(text)
    assert not [piece for piece in pieces if isinstance(piece, Rejected)]


@given(st.lists(st.binary()))
def test_any_bytes_give_the_good_text_among_them(raws: list[bytes]) -> None:
    good = b"".join(raws).decode("utf-8", "surrogateescape")
    expected = "".join(char for char in good if not "\udc80" <= char <= "\udcff")
    text = "".join(step.text for step in fold(run(make_codec("text"), raws)))
    if not any(byte == 0xED for raw in raws for byte in raw):  # else halves may have been joined
        assert text == expected


def test_snapshots_are_whole() -> None:
    pieces = run(make_codec("text-snapshot"), [b"Hel", b"Hello", "Hello 日".encode()])
    assert pieces == [
        StepStart(None),
        ChunkStart("text", "text", mode="snapshot"),
        Text("text", "Hel"),
        Text("text", "Hello"),
        Text("text", "Hello 日"),
        ChunkEnd("text"),
        StepEnd("stop", None, None),
    ]


def test_a_snapshot_cut_inside_a_character_comes_without_it() -> None:
    codec = make_codec("text-snapshot")
    assert codec.decode(b"caf\xc3")[-1] == Text("text", "caf")
    assert codec.decode("café".encode()) == [Text("text", "café")]
    assert codec.decode("café \ud83d".encode("utf-8", "surrogatepass")) == [Text("text", "café ")]
    assert codec.decode("café 😀".encode()) == [Text("text", "café 😀")]


def test_a_bad_snapshot_is_made_up_for_by_the_next() -> None:
    codec = make_codec("text-snapshot")
    codec.decode(b"a")
    assert [type(piece) for piece in codec.decode(b"a\xff\xffb")] == [Rejected]
    assert codec.decode(b"a b") == [Text("text", "a b")]
