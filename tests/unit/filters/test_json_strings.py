"""No way to write a secret in JSON, and no split of the text, shows a byte of it."""

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from riverdelta.core.filters import ChainedFilter, TextFilter, json_filter
from riverdelta_workers.filters import Redact
from riverdelta_workers.filters.json_strings import JsonStrings
from tests.support.core.secrets_tools import SECRETS, redacted
from tests.support.drawing import examples

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=8)
PIECE = st.one_of(
    st.text(alphabet='ab "\\\n\té1😀/', max_size=6), st.sampled_from(sorted(SECRETS.values()))
)
VALUE = st.recursive(
    st.one_of(
        st.lists(PIECE, max_size=3).map("".join), st.integers(-99, 99), st.booleans(), st.none()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(PIECE, inner, max_size=3)),
    max_leaves=6,
)


def fed(text: str, sizes: list[int] | None = None, *, reload: bool = False) -> str:
    """What `Redact` for JSON makes of *text*, cut into *sizes*; *reload*: a new owner at every delta."""
    filter_ = Redact().for_json()
    out, at, turn = "", 0, 0
    while at < len(text):
        size = len(text) if sizes is None else sizes[turn % len(sizes)]
        out += filter_.feed(text[at : at + size])
        at, turn = at + size, turn + 1
        if reload:
            state = json.loads(json.dumps(filter_.dump()))
            filter_ = Redact().for_json()
            filter_.load(state)
        assert filter_.held <= filter_.bound
    return out + filter_.finish()


def escaped(text: str) -> str:
    """*text* as a JSON string, every character as an escape."""
    units = text.encode("utf-16-be")
    pairs = zip(units[::2], units[1::2], strict=True)
    return '"' + "".join(f"\\u{high:02x}{low:02X}" for high, low in pairs) + '"'


def filtered(value: Any) -> Any:
    """The slow oracle: each string of a JSON value, as one text."""
    match value:
        case str():
            return redacted(value)
        case list():
            return [filtered(item) for item in value]
        case dict():
            return [(redacted(key), filtered(item)) for key, item in value.items()]
    return value


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_escapes_does_not_get_out(name: str) -> None:
    for text in (escaped(SECRETS[name]), f'{{"a": [1, {escaped("x " + SECRETS[name])}]}}'):
        shown = fed(text, [1])
        assert f"[{name}]" in shown
        assert "\\u" not in shown
        assert shown == fed(text)


@pytest.mark.parametrize("before", ["\\n", "\\t", '\\"', "\\\\", "\\r\\n", "\\/"])
def test_an_escape_in_front_does_not_hide_a_secret(before: str) -> None:
    for name in ("openai_key", "email", "card"):
        shown = fed(f'{{"to": "Hi{before}{SECRETS[name]}"}}')
        assert json.loads(shown)["to"] == json.loads(f'"Hi{before}"') + f"[{name}]"


@settings(max_examples=examples(300))
@given(VALUE, SIZES, st.booleans())
def test_each_string_is_filtered_as_a_parser_gives_it(
    value: Any, sizes: list[int], ascii_only: bool
) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    shown = fed(text, sizes, reload=True)
    assert shown == fed(text)
    assert json.loads(shown, object_pairs_hook=list) == filtered(value)


@settings(max_examples=examples(200))
@given(st.text(alphabet='{}[]:,"\\u0041d8Dc/nx 😀', max_size=40), SIZES)
def test_broken_json_does_not_depend_on_the_split(text: str, sizes: list[int]) -> None:
    assert fed(text, sizes, reload=True) == fed(text)


def test_numbers_and_broken_json_are_filtered_as_text() -> None:
    assert "4111" not in fed('{"card": 4111111111111111}', [3])
    assert "alice" not in fed(f"{{to: {SECRETS['email']}", [2])


def test_half_of_a_surrogate_pair_is_replaced() -> None:
    assert fed(r'"\ud83d\ude00 \ud83d \ude00 \ud83d"', [1]) == '"😀 \ufffd \ufffd \ufffd"'


def test_a_text_that_was_begun_as_plain_text_stays_that() -> None:
    """A worker of an earlier version began the chunk: inside or outside of a string, it did not say."""
    before = Redact()
    shown = before.feed('{"a": "Hello bo')
    filter_ = Redact().for_json()
    filter_.load(before.dump())
    again = filter_.feed("b@example.com ")
    state = filter_.dump()
    filter_ = Redact().for_json()
    filter_.load(state)
    assert shown + again + filter_.feed('x"}') + filter_.finish() == '{"a": "Hello [email] x"}'


class Upper(TextFilter):
    def feed(self, delta: str) -> str:
        return delta.upper()


def test_in_a_chain_only_the_filters_that_read_json_do() -> None:
    chain = json_filter(ChainedFilter(Upper(), Redact()))
    assert chain.feed('{"a": "b"}') + chain.finish() == '{"A": "B"}'
    upper = Upper()
    assert json_filter(upper) is upper
    assert isinstance(json_filter(Redact()), JsonStrings)
