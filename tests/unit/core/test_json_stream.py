"""JsonStream by example; test_json_stream_property.py says what holds for every document."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import ChunkStart, Text
from riverdelta.core.json_stream import (
    JsonStream,
    JsonStreamError,
    Patch,
    apply_patches,
    wire_number,
)
from riverdelta.core.json_stream.stream import MAX_PATH, MAX_PATHS

RECORDINGS = [Path(__file__).parents[2] / "recordings"]
if os.environ.get(
    "RIVERDELTA_STREAMS"
):  # as tests/support/core/codec_tools.py, which imports the SDKs
    RECORDINGS.append(Path(os.environ["RIVERDELTA_STREAMS"]))

FEEDS: list[tuple[str, list[list[tuple[Any, ...]]]]] = [
    # pieces, cut at |                  patches of each piece
    ("[|]", [[((), "set", [])], []]),
    ('"Hel|lo"', [[((), "set", "Hel")], [((), "append", "lo")]]),
    ('"|"', [[((), "set", "")], []]),
    ('"|a"', [[((), "set", "")], [((), "append", "a")]]),
    ('"a|"', [[((), "set", "a")], []]),
    ('{"a|b":|"x"|}', [[((), "set", {})], [], [(("ab",), "set", "x")], []]),
    ("[1|2|,3]", [[((), "set", [])], [], [((0,), "set", 12), ((1,), "set", 3)]]),
    ("[-1.5|e+|3|]", [[((), "set", [])], [], [], [((0,), "set", -1500.0)]]),
    ("tru|e", [[], [((), "set", True)]]),
    ("nul|l", [[], [((), "set", None)]]),
    ("4|2| ", [[], [], [((), "set", 42)]]),
    ('"a\\|nb"', [[((), "set", "a")], [((), "append", "\nb")]]),
    ('"a\\u00|e9|!"', [[((), "set", "a")], [((), "append", "é")], [((), "append", "!")]]),
    ('"\\uD83D|\\uDE00"', [[((), "set", "")], [((), "append", "😀")]]),
    ('"\\ud83d\\ude|00"', [[((), "set", "")], [((), "append", "😀")]]),
    ('"\\uDBFF\\uDFFF|\\uD800\\uDC00"', [[((), "set", "\U0010ffff")], [((), "append", "\U00010000")]]),
    ('{"a":"x","a|":["y"]}', [
        [((), "set", {}), (("a",), "set", "x")],
        [(("a",), "set", []), (("a", 0), "set", "y")],
    ]),
    ('{"a":{"b":1},"a":{"c":2}}', [[
        ((), "set", {}), (("a",), "set", {}), (("a", "b"), "set", 1),
        (("a",), "set", {}), (("a", "c"), "set", 2),
    ]]),
    ('[["a|b","c"]|]', [
        [((), "set", []), ((0,), "set", []), ((0, 0), "set", "a")],
        [((0, 0), "append", "b"), ((0, 1), "set", "c")],
        [],
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("pieces", "expected"), FEEDS, ids=[pieces for pieces, _ in FEEDS])
def test_what_each_piece_makes_certain(pieces: str, expected: list[list[Any]]) -> None:
    stream, document = JsonStream(), None
    for piece, patches in zip(pieces.split("|"), expected, strict=True):
        found = stream.feed(piece)
        assert found == patches
        document = apply_patches(document, found)
        assert document == stream.value
    assert stream.complete
    assert stream.value == json.loads(pieces.replace("|", ""))


REFUSED: list[tuple[str, str]] = [
    # before the first character that no continuation can save, and from it on
    ("", "NaN"),
    ("", "Infinity"),
    ("-", "Infinity"),
    ("", "'a'"),
    ("", "\ufeff{}"),
    ("", "\xa01"),
    ("[1,", "]"),
    ('{"a":1,', "}"),
    ("{", "a:1}"),
    ("[", "}"),
    ("[1", "}"),
    ('{"a":1', "]"),
    ('{"a"', ",1}"),
    ("0", "1"),
    ("-0", "0"),
    ("-", "-1"),
    ("1.", "e5"),
    ("1e+", "x"),
    ("[1.", "]"),
    ("", "+1"),
    ("", ".5"),
    ("[1 ", "2]"),
    ("{} ", "{}"),
    ("tru", "E"),
    ("null", "l"),
    ('"a', "\nb"),
    ('"\\', "x"),
    ('"\\u00', "g0"),
    ('"\\u', "\u0660" * 4),  # digits, but not JSON's
    ("[1", "\u0660]"),
    ('"\\uD', "c00"),
    ('"\\uD83D', '"'),
    ('"\\uD83D\\', "n"),
    ('"\\uD83D\\u', "0041"),
    ('"\\uD83D\\uD', "83D"),
    ('"a', "\ud83d\ude00"),
    ('{"', '\udc00":1}'),
]


@pytest.mark.parametrize(("valid", "rest"), REFUSED)
@pytest.mark.parametrize("by_character", [False, True])
def test_refused_at_the_first_character_that_nothing_can_save(
    valid: str, rest: str, by_character: bool
) -> None:
    stream = JsonStream()
    text = valid + rest
    with pytest.raises(JsonStreamError) as caught:
        for piece in text if by_character else [text]:
            stream.feed(piece)
    assert caught.value.offset == len(valid)
    assert not stream.complete


def test_an_error_keeps_what_was_certain_and_hands_over_its_patches() -> None:
    stream = JsonStream()
    document = apply_patches(None, stream.feed('{"a":[1,2'))
    with pytest.raises(JsonStreamError, match="at offset 15") as caught:
        stream.feed('3],"b"x')
    assert caught.value.patches == [Patch(("a", 1), "set", 23)]
    assert apply_patches(document, caught.value.patches) == stream.value == {"a": [1, 23]}


def test_an_error_inside_a_string_keeps_the_string_so_far() -> None:
    stream = JsonStream()
    stream.feed('["ab')
    with pytest.raises(JsonStreamError) as caught:
        stream.feed("cd\\x")
    assert caught.value.patches == [Patch((0,), "append", "cd")]
    assert stream.value == ["abcd"]


def test_after_an_error_every_call_raises_it_again_without_patches() -> None:
    stream = JsonStream()
    with pytest.raises(JsonStreamError) as first:
        stream.feed('{"a":1]')
    calls: list[Callable[[], object]] = [
        lambda: stream.feed("}"),
        lambda: stream.feed(""),
        stream.close,
    ]
    for call in calls:
        with pytest.raises(JsonStreamError) as again:
            call()
        assert (again.value.offset, again.value.reason) == (6, first.value.reason)
        assert again.value.patches == []
    assert stream.value == {"a": 1}


def test_errors_never_quote_the_text() -> None:
    with pytest.raises(JsonStreamError) as caught:
        JsonStream().feed('{"password":sesame}')
    assert str(caught.value) == "a value was expected at offset 12"
    assert caught.value.retry is False


def test_offsets_count_code_points_over_all_feeds() -> None:
    stream = JsonStream()
    stream.feed('{"é🌊":"')
    stream.feed("日本🌊")
    with pytest.raises(JsonStreamError) as caught:
        stream.feed("語\x00")
    assert caught.value.offset == 11


@pytest.mark.parametrize(
    ("text", "value", "rest"),
    [("12", 12, " "), ("-0", 0, "\n"), ("1e5", 1e5, "\t"), ("0", 0, "\r\n")],
)
def test_a_number_at_the_root_ends_by_close_or_whitespace(text: str, value: Any, rest: str) -> None:
    closed, spaced = JsonStream(), JsonStream()
    assert closed.feed(text) == []
    assert not closed.complete
    assert closed.close() == [Patch((), "set", value)]
    assert spaced.feed(text + rest) == [Patch((), "set", value)]
    for stream in (closed, spaced):
        assert stream.complete
        assert stream.value == value
        assert stream.close() == []
        assert stream.feed(" ") == []
        with pytest.raises(JsonStreamError):
            stream.feed("3")


@pytest.mark.parametrize("text", ["", "  ", "[", '{"a":1', '"abc', "tru", "-", "1.", "1e", "[1"])
def test_closing_an_incomplete_document_is_an_error_at_its_end(text: str) -> None:
    stream = JsonStream()
    patches = stream.feed(text)
    before = stream.value
    with pytest.raises(JsonStreamError, match="incomplete") as caught:
        stream.close()
    assert caught.value.offset == len(text)
    assert caught.value.patches == []
    assert stream.value == before == apply_patches(None, patches)


def test_value_is_the_live_object_and_none_before_anything_is_certain() -> None:
    stream = JsonStream()
    assert stream.value is None
    stream.feed(" [")
    value = stream.value
    stream.feed('{"a":"x')
    assert stream.value is value
    stream.feed("y")
    assert value == [{"a": "xy"}]


def test_patches_and_value_share_nothing_that_grows() -> None:
    stream = JsonStream()
    patches = stream.feed('{"a":[')
    document = apply_patches(None, patches)
    stream.feed("1]}")
    assert patches == [((), "set", {}), (("a",), "set", [])]
    assert document == {"a": []}
    apply_patches(document, [(("a", 0), "set", 5)])
    assert patches[1].value == []


@pytest.mark.parametrize("split", [1, 1000, 1 << 30])
def test_a_document_whose_paths_are_too_long_ends_at_the_same_place_for_any_split(
    split: int,
) -> None:
    longest = "k" * (MAX_PATH - 3)  # and one each for the root, its index and the member
    for document, end in [
        (f'[{{"{longest}":"","{longest}k":""}}]', '""}]'),
        (f'[{{"{longest}":[1,2]}}]', ",2]}]"),
    ]:
        with pytest.raises(JsonStreamError, match="paths of the values are too long") as error:
            _feed(JsonStream(), document, split)
        assert error.value.offset == len(document) - len(end)


def test_long_paths_around_many_values_are_no_way_to_make_much_of_little() -> None:
    """Every patch holds its path: two bytes of text would become four thousand."""
    document = f'{{"{"k" * 4000}":[{"1," * 100_000}1]}}'
    stream = JsonStream()
    with pytest.raises(JsonStreamError, match="paths of the values are too long") as error:
        stream.feed(document)
    assert sum(len(str(patch.path[0])) for patch in error.value.patches if patch.path) <= MAX_PATHS


def _feed(stream: JsonStream, document: str, split: int) -> None:
    for at in range(0, len(document), split):
        stream.feed(document[at : at + split])
    stream.close()


def test_max_depth() -> None:
    assert JsonStream(max_depth=2).feed('[{"a":1},[]]')[-1] == ((1,), "set", [])
    with pytest.raises(JsonStreamError, match="no more than 2") as caught:
        JsonStream(max_depth=2).feed('[{"a":[')
    assert caught.value.offset == 6
    with pytest.raises(JsonStreamError):
        JsonStream(max_depth=0).feed("[")
    assert JsonStream(max_depth=0).feed('"a"') == [((), "set", "a")]
    JsonStream().feed("[" * 128)
    with pytest.raises(JsonStreamError):
        JsonStream().feed("[" * 129)
    with pytest.raises(ValueError, match="0 or more"):
        JsonStream(max_depth=-1)


def test_depth_costs_no_recursion() -> None:
    depth = sys.getrecursionlimit() * 2
    stream = JsonStream(max_depth=depth)
    stream.feed("[" * depth)
    stream.feed("]" * depth)
    assert stream.complete


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", "18446744073709551616"),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", "-9223372036854775809"),
        ("9" * 5000, "9" * 5000),  # int() refuses it
        ("1e400", "1e400"),
        ("-1E+400", "-1E+400"),
        ("1e-400", 0.0),
        ("1.7976931348623157e308", sys.float_info.max),
        ("123456789012345678901234567890.0", 123456789012345678901234567890.0),
        ("-0.0", -0.0),
        ("0e0", 0.0),
    ],
)
def test_numbers_that_clients_cannot_hold_stay_text(written: str, value: Any) -> None:
    assert repr(wire_number(written)) == repr(value)
    stream = JsonStream()
    stream.feed("[")
    for char in written:
        assert stream.feed(char) == []
    assert stream.feed("]") == [Patch((0,), "set", value)]


def test_patches_as_events_encode_them_are_applied_too() -> None:
    stream = JsonStream()
    wire = json.loads(json.dumps(stream.feed('{"a":["b","c')))
    assert apply_patches(None, wire) == {"a": ["b", "c"]}
    assert apply_patches(stream.value, [[["a", 1], "append", "d"]]) == {"a": ["b", "cd"]}


@pytest.mark.parametrize(
    "patch",
    [(("b", "c"), "set", 1), (("a", 1), "set", 1), (("a", 0, 0), "set", 1), ((), "append", "x")],
)
def test_patches_of_another_document_are_noticed(patch: tuple[Any, ...]) -> None:
    with pytest.raises((LookupError, TypeError)):
        apply_patches({"a": []}, [patch])


def test_a_growing_string_is_not_copied() -> None:
    """The address of a string that grows in place changes rarely; of one that is copied, always."""
    stream = JsonStream()
    stream.feed('{"files":[{"yml":"')
    stream.feed("x" * 300_000)
    moves = 0
    for _ in range(3000):
        before = id(stream.value["files"][0]["yml"])
        stream.feed("more")
        moves += id(stream.value["files"][0]["yml"]) != before
    assert moves < 300
    assert len(stream.value["files"][0]["yml"]) == 312_000


@pytest.mark.parametrize("source", ["openai-chat", "openai-responses", "anthropic"])
def test_recorded_tool_calls_are_rebuilt_exactly_from_patches(source: str) -> None:
    rebuilt = 0
    for path in [path for root in RECORDINGS for path in sorted(root.glob(f"{source}/*.jsonl"))]:
        codec = make_codec(source)
        found = [piece for line in path.read_bytes().splitlines() for piece in codec.decode(line)]
        calls: list[list[str]] = []
        open_calls: dict[str, list[str]] = {}
        for piece in found + codec.finish():
            if isinstance(piece, ChunkStart):
                open_calls[piece.key] = []
                if piece.format == "json":
                    calls.append(open_calls[piece.key])
            elif isinstance(piece, Text):
                open_calls[piece.key].append(piece.text)
        for pieces in calls:
            stream, patches = JsonStream(), list[Patch]()
            try:
                for text in pieces:
                    patches += stream.feed(text)
                stream.close()
            except JsonStreamError:
                with pytest.raises(json.JSONDecodeError):
                    json.loads("".join(pieces))
                continue
            assert apply_patches(None, patches) == stream.value == json.loads("".join(pieces))
            rebuilt += 1
    assert rebuilt > 0
