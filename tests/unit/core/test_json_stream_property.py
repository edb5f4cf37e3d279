"""
JsonStream against json.loads: every document, every split, every prefix, every wrong turn.

The last part is brute force: over small alphabets, each string that can still become a document is
extended by each character, and the stream must refuse exactly where an oracle, which knows JSON only
through json.loads, finds no continuation.
"""

import json
import random
from collections.abc import Iterator
from functools import cache
from itertools import chain, product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverdelta.core.json_stream import (
    JsonStream,
    JsonStreamError,
    Patch,
    apply_patches,
    wire_number,
)
from tests.support.drawing import examples

SLOW_OK = settings(
    max_examples=examples(120), suppress_health_check=list(HealthCheck), deadline=None
)

# -- documents, written in any way that JSON allows ---------------------------------------------------

NUMBERS = st.one_of(
    st.integers(-3, 3).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from([2**63, 2**64, -(2**63)]).flatmap(
        lambda bound: st.integers(bound - 1, bound + 1).map(str)
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
)
SHORT = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
TEXTS = st.text(
    st.one_of(
        st.sampled_from('"\\/\b\f\n\r\tabu\x00\x1f\x7f\u2028 é'),
        st.characters(codec="utf-8"),
        st.characters(min_codepoint=0x10000, codec="utf-8"),
    ),
    max_size=12,
)


def escaped(char: str, chance: random.Random) -> str:
    """Encode *char* as \\uXXXX, of random case; as two of them beyond the basic plane."""
    raw = char.encode("utf-16-be")
    units = [raw[at : at + 2].hex() for at in range(0, len(raw), 2)]
    return "".join("\\u" + chance.choice([unit, unit.upper()]) for unit in units)


def encode_string(text: str, chance: random.Random) -> str:
    """Encode *text* with random escapes."""
    out = []
    for char in text:
        ways = [escaped(char, chance)]
        if char in SHORT:
            ways.append("\\" + SHORT[char])
        if char >= " " and char not in '"\\':
            ways += [char] * 4
        out.append(chance.choice(ways))
    return f'"{"".join(out)}"'


class RawNumber(str):
    """A number or literal as it is to be written."""

    __slots__ = ()


def encode(value: Any, chance: random.Random) -> str:
    """Encode *value* with random whitespace; an object is a list of pairs, so that keys may repeat."""

    def space() -> str:
        return "".join(chance.choices(" \t\n\r", k=chance.choice([0, 0, 0, 1, 3])))

    if isinstance(value, RawNumber):
        inner = str(value)
    elif isinstance(value, str):
        inner = encode_string(value, chance)
    elif isinstance(value, list):
        inner = "[" + (",".join(encode(item, chance) for item in value) or space()) + "]"
    else:
        members = (
            f"{space()}{encode_string(key, chance)}{space()}:{encode(item, chance)}"
            for key, item in value
        )
        inner = "{" + (",".join(members) or space()) + "}"
    return space() + inner + space()


SCALARS = st.one_of(
    NUMBERS.map(RawNumber), st.sampled_from(["true", "false", "null"]).map(RawNumber), TEXTS
)


def values(*, repeated_keys: bool, leaves: int) -> st.SearchStrategy[Any]:
    """Draw anything JSON can say; an object as a tuple of pairs."""
    keys = st.one_of(st.sampled_from(["a", "b", ""]), TEXTS)
    return st.recursive(
        SCALARS,
        lambda inner: st.one_of(
            st.lists(inner, max_size=5),
            st.lists(
                st.tuples(keys, inner),
                max_size=5,
                unique_by=None if repeated_keys else lambda pair: pair[0],
            ).map(tuple),
        ),
        max_leaves=leaves,
    )


@st.composite
def documents(draw: st.DrawFn, *, repeated_keys: bool, leaves: int = 20, depth: int = 100) -> str:
    """Draw the text of a document; some have *depth* more containers around them."""
    value = draw(values(repeated_keys=repeated_keys, leaves=leaves))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, depth]))):
        value = draw(st.sampled_from([[value], (("a", value),)]))
    return encode(value, random.Random(draw(st.integers(0, 2**32))))


@st.composite
def splits(draw: st.DrawFn, text: str) -> list[str]:
    """Cut *text* anywhere; also nowhere, and everywhere."""
    size = draw(st.sampled_from([0, 1, 4, len(text) + 1]))
    if size:
        return [text[at : at + size] for at in range(0, len(text), size)]
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


# -- what must hold ------------------------------------------------------------------------------------


def refuse(word: str) -> Any:
    raise ValueError(word)


def has_utf8(value: Any) -> Any:
    """Give *value* back, or raise: as escapes, json.loads lets lone surrogates pass."""
    json.dumps(value, ensure_ascii=False).encode()
    return value


STRICT = json.JSONDecoder(
    parse_int=wire_number,
    parse_float=wire_number,
    parse_constant=refuse,
    object_pairs_hook=lambda pairs: dict(has_utf8(pairs)),  # the pairs: of a key, all values count
)
"""What json.loads uses, strict, with numbers as events carry them."""


def loads(text: str) -> Any:
    return has_utf8(STRICT.decode(text))


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types, order of keys and signs of zero."""
    return json.dumps(one) == json.dumps(other)


def is_prefix(part: Any, whole: Any) -> bool:
    """
    Whether *part* can grow into *whole*: strings, arrays and objects at their end, nothing else.

    All but the last item or member are final; the last one is a prefix of what it will be.
    """
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, list) and isinstance(whole, list):
        if not part:
            return True
        last = len(part) - 1
        return (
            last < len(whole)
            and same(part[:last], whole[:last])
            and is_prefix(part[last], whole[last])
        )
    if isinstance(part, dict) and isinstance(whole, dict):
        names = list(part)
        return names == list(whole)[: len(names)] and is_prefix(
            list(part.values()), [whole[name] for name in names]
        )
    return same(part, whole)


def merged(patches: list[Patch]) -> list[Patch]:
    """Join each append to the patch before it, if that gave the same string its text."""
    out: list[Patch] = []
    for patch in patches:
        if patch.op == "append" and out and out[-1].path == patch.path:
            out[-1] = out[-1]._replace(value=out[-1].value + patch.value)
        else:
            out.append(patch)
    return out


@SLOW_OK
@given(data=st.data())
def test_patches_rebuild_the_document_however_it_was_cut(data: st.DataObject) -> None:
    text = data.draw(documents(repeated_keys=True))
    truth = loads(text)
    whole = JsonStream()
    unsplit = whole.feed(text) + whole.close()
    assert same(apply_patches(None, unsplit), truth)

    stream, document, patches = JsonStream(), None, list[Patch]()
    for piece in data.draw(splits(text)):
        new = stream.feed(piece)
        assert new == merged(new), "one feed gives one patch to a string"
        assert all(patch.value for patch in new if patch.op == "append")
        document = apply_patches(document, new)
        assert same(document, stream.value)
        patches += new
    closing = stream.close()
    assert stream.complete
    assert same(stream.value, truth)
    assert same(apply_patches(document, closing), truth)
    patches += closing
    assert merged(patches) == unsplit


@SLOW_OK
@given(data=st.data())
def test_values_only_grow_where_no_key_repeats(data: st.DataObject) -> None:
    text = data.draw(documents(repeated_keys=False, leaves=10, depth=15))
    truth = loads(text)
    stream, seen = JsonStream(), False
    for piece in data.draw(splits(text)):
        before = json.dumps(stream.value)
        seen = bool(stream.feed(piece)) or seen
        if seen:
            assert before == "null" or is_prefix(json.loads(before), stream.value)
            assert is_prefix(stream.value, truth)
        else:
            assert stream.value is None


@SLOW_OK
@given(documents(repeated_keys=False, leaves=6, depth=5))
def test_truncated_at_every_character(text: str) -> None:
    truth = loads(text)
    for end in range(len(text) + 1):
        stream = JsonStream()
        patches = stream.feed(text[:end])
        assert same(apply_patches(None, patches), stream.value)
        assert not patches or is_prefix(stream.value, truth)
        try:
            complete = loads(text[:end])
        except ValueError:
            assert not stream.complete
            with pytest.raises(JsonStreamError, match="incomplete"):
                stream.close()
        else:
            stream.close()
            assert stream.complete
            assert same(stream.value, complete)


@SLOW_OK
@given(data=st.data())
def test_a_bent_document_is_refused_alike_however_it_was_cut(data: st.DataObject) -> None:
    text = data.draw(documents(repeated_keys=True))
    at = data.draw(st.integers(0, len(text)))
    noise = data.draw(st.text(st.sampled_from('[]{},:"\\u0dD8tn-1e. \n\x00\ud83d'), max_size=3))
    bent = text[:at] + noise + text[at + data.draw(st.integers(0, 2)) :]

    def run(pieces: list[str]) -> tuple[Any, list[Patch], Any, int | None]:
        stream, patches = JsonStream(), list[Patch]()
        try:
            for piece in pieces:
                patches += stream.feed(piece)
            patches += stream.close()
        except JsonStreamError as error:
            patches += error.patches
            assert not stream.complete
            return apply_patches(None, patches), merged(patches), stream.value, error.offset
        return apply_patches(None, patches), merged(patches), stream.value, None

    document, patches, value, offset = run([bent])
    assert same(document, value)
    again = run(data.draw(splits(bent)))
    assert same(again[2], value)
    assert (again[1], again[3]) == (patches, offset)
    try:
        truth = loads(bent)
    except ValueError:
        assert offset is not None
    else:
        assert offset is None
        assert same(value, truth)


@given(st.text(), st.data())
def test_anything_at_all(text: str, data: st.DataObject) -> None:
    stream = JsonStream()
    try:
        for piece in data.draw(splits(text)):
            stream.feed(piece)
        stream.close()
    except JsonStreamError:
        assert not is_document(text)
    else:
        assert same(stream.value, loads(text))


# -- brute force -----------------------------------------------------------------------------------------

PLAIN_ENDS = ("", "0", '"')
LITERAL_ENDS = ("rue", "ue", "e", "alse", "lse", "se", "ull", "ll", "l")
ESCAPE_ENDS = (
    *('n"', 'u0000"', '0000"', '000"', '00"', '0"'),
    *('00\\udc00"', '0\\udc00"', '\\udc00"', 'udc00"', 'dc00"', 'c00"'),
)
"""One way to end each token, from each place within it."""


def middles(text: str) -> Iterator[str]:
    """Ways to end the token, and the member, in which *text* may have broken off."""
    yield '"":0'
    for end in chain(
        PLAIN_ENDS,
        LITERAL_ENDS if text[-1:].isalpha() else (),
        ESCAPE_ENDS if "\\" in text[-12:] else (),
    ):
        yield end
        yield end + ":0"


def closers(text: str) -> str:
    """
    Give what closes the brackets that are open in *text*, as they stand outside of its quotes.

    Whatever continuation makes *text* a document, it closes these, in this order.
    """
    out = ""
    quoted = skip = False
    for char in text:
        if skip:
            skip = False
        elif quoted:
            skip, quoted = char == "\\", char != '"'
        elif char == '"':
            quoted = True
        elif char in "[{":
            out = ("]" if char == "[" else "}") + out
        elif char in "]}":
            out = out[1:]
    return out


def is_document(text: str) -> bool:
    try:
        loads(text)
    except ValueError:
        return False
    return True


def is_viable(text: str) -> bool:
    """Whether some continuation makes *text* a document. All it knows of JSON is json.loads."""
    closing = closers(text)
    return any(is_document(text + middle + closing) for middle in middles(text))


def refusal(text: str) -> int | None:
    """Where a new stream refuses *text*, which it gets in one piece."""
    try:
        JsonStream().feed(text)
    except JsonStreamError as error:
        return error.offset
    return None


def viable_strings(start: str, alphabet: str, length: int) -> Iterator[tuple[str, str, bool]]:
    """
    Walk all strings of up to *length* more characters whose beginnings are viable.

    Yields:
        A viable string, a character, and whether it is still viable with that character.
    """
    level = [start]
    for _ in range(length):
        following = []
        for text, char in product(level, alphabet):
            alive = is_viable(text + char)
            yield text, char, alive
            if alive:
                following.append(text + char)
        level = following


@pytest.mark.parametrize(
    ("start", "alphabet", "length"),
    [
        ("", '[]{},:"1', 6),
        ("", '{}:,"', 8),
        ("", "[],1 ", 7),
        ("", "[]{, \n", 6),
        ("", "-01.eE+,[", 6),
        ("[1", "01.e-+]", 6),
        ("[", 'tfn",]', 4),
        ("t", "true", 4),
        ("[f", "false]", 5),
        ("nu", "nul ", 4),
        ("", 'NaInfity-"', 4),
        ('{"', '"\\u:n1}\n', 5),
        ('"', '"\\/u0n\x00', 5),
        ('"\\', 'uUxdD8bB"\\', 5),
        ('"\\uD83', 'd\\"u0', 4),
        ('["\\uD83D', '\\uD8cn"', 5),
        ('["\\uDBFF\\uDF', 'fF0"g', 3),
        ('"\\u', "dD78bBcC", 3),
        ('"\\uD83D\\u', 'dDbBcCfF0"', 4),
        ('"é', '\ud83d\ude00"\x1f\x7f', 2),
    ],
)
def test_every_small_string_is_refused_at_the_first_hopeless_character(
    start: str, alphabet: str, length: int
) -> None:
    counted = 0
    for text, char, alive in viable_strings(start, alphabet, length):
        counted += 1
        assert refusal(text + char) == (None if alive else len(text)), text + char
    assert counted > 10


@cache
def beginnings_of_documents(alphabet: str, length: int) -> frozenset[str]:
    """All beginnings of all documents of up to *length* characters: no cleverness at all."""
    return frozenset(
        text[:end]
        for size in range(length + 1)
        for text in map("".join, product(alphabet, repeat=size))
        if is_document(text)
        for end in range(size + 1)
    )


@pytest.mark.parametrize(
    ("alphabet", "length", "extension"), [('{}":0', 3, 4), ("[]1,", 4, 4), ("-1.e0", 3, 2)]
)
def test_the_oracle_is_right(alphabet: str, length: int, extension: int) -> None:
    beginnings = beginnings_of_documents(alphabet, length + extension)
    for size in range(length + 1):
        for text in map("".join, product(alphabet, repeat=size)):
            assert is_viable(text) == (text in beginnings), text
