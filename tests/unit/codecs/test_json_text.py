"""JSON is strict; lone surrogate escapes alone are accepted."""

import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.json_text import clean, encode
from riverdelta.core.codecs.pieces import Rejected
from tests.support.core.assembled import joined

DEEP = 100_000


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"a":NaN}', "invalid_json"),
        (b'{"a":NaN,"b":"\\ud83d"}', "invalid_json"),
        (b'{"a":1e999,"b":"\\ud83d"}', "invalid_json"),
        (b'{"a":-Infinity}', "invalid_json"),
        (b'{"a":"\xff"}', "invalid_json"),
        (b"[" * DEEP, "invalid_json"),
        (b"[" * DEEP + b'"\\ud83d"' + b"]" * DEEP, "invalid_json"),
        (b'{"a":"\\ud83d"', "invalid_json"),
        (b"data: {}", "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b"[]", "not_an_object"),
        (b'"\\ud83d"', "not_an_object"),
        (b"null", "not_an_object"),
    ],
)
@pytest.mark.parametrize(
    "source",
    ["openai-chat", "openai-responses", "anthropic", "gemini", "bedrock-converse", "chunks"],
)
def test_what_is_no_object_is_rejected(source: str, raw: bytes, code: str) -> None:
    (piece,) = make_codec(source).decode(raw)
    assert isinstance(piece, Rejected)
    assert piece.code == code


@pytest.mark.parametrize("text", ["", "a", "\ud83d", "\ude00\ud83d", "x\ud83d\ude00y\ud83d", "🌊"])
def test_clean_agrees_with_the_slow_way(text: str) -> None:
    assert clean(text) == joined(text)


def test_values_beyond_what_orjson_writes_are_still_encoded() -> None:
    nested: list[object] = []
    for _ in range(400):
        nested = [nested]
    assert encode(nested) == "[" * 401 + "]" * 401
    assert encode({"half": "\ud83d"}) == '{"half":"\ud83d"}'
