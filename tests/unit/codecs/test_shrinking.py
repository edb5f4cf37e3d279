"""Long strings that nobody reads are emptied; what a reader or a tool would get is never touched unseen."""

import json
from typing import Any

import orjson
import pytest

from riverdelta.core.codecs.shrinking import MAX_STRING_BYTES, Shrinker

LONG = "iVBO" * (MAX_STRING_BYTES // 4 + 1)
MARK = "@long@"


def _shrunk(document: Any, cut: int | None = None) -> tuple[Any, int, bool]:
    """Shrink a document whose marks stand for long strings; *cut*: a new owner in the middle."""
    raw = json.dumps(document).replace(MARK, LONG).encode()
    shrinker = Shrinker()
    out = shrinker.feed(raw[:cut])
    if cut is not None:
        shrinker = Shrinker.load(orjson.loads(orjson.dumps(shrinker.dump())))
        out += shrinker.feed(raw[cut:])
    out += shrinker.end_line()
    return json.loads(out), shrinker.emptied, shrinker.lost


@pytest.mark.parametrize(
    "document",
    [
        {"data": MARK, "text": "a"},
        {"parts": [{"inlineData": {"mimeType": "x", "data": MARK}}, {"text": "a"}]},
        {"name": "args", "x": [{"url": MARK}]},
        {"input": "SELECT", "list": [{"data": MARK}]},
        {"args": {"a": [1, {"b": "}]"}]}, "thoughtSignature": MARK},
        {"args": [], "data": MARK},
        {"input": "a\\"},
    ],
)
def test_what_nobody_reads_is_emptied(document: Any) -> None:
    expected = json.loads(json.dumps(document).replace(MARK, ""))
    assert _shrunk(document) == (expected, int(MARK in json.dumps(document)), False)


@pytest.mark.parametrize(
    "document",
    [
        {"text": MARK},
        {"functionCall": {"name": "upload", "args": {"data": MARK}}},
        {"toolUse": {"input": {"files": [{"a": {}, "url": MARK}]}}},
        {"action": [{"b": 1}, {"image": MARK}]},
        {"function": {"arguments": {"a": {"b": {}}, "data": MARK}}},
        [MARK],
    ],
)
def test_content_and_arguments_are_lost_and_not_emptied_unseen(document: Any) -> None:
    _, emptied, lost = _shrunk(document)
    assert (emptied, lost) == (1, True)


@pytest.mark.parametrize("name", ["args", "other"])
def test_a_cut_anywhere_changes_nothing(name: str) -> None:
    document = {"a": {"input": "b"}, name: {"c": ['"', {"data": MARK}]}, "url": MARK}
    whole = _shrunk(document)
    assert whole[2] == (name == "args")
    text = json.dumps(document)
    first = text.index(MARK)
    after = len(text) - text.rindex(MARK) - len(MARK)
    end = len(text.replace(MARK, LONG))
    for cut in [*range(first + 3), *range(end - after - 2, end + 1)]:
        assert _shrunk(document, cut) == whole, cut
    between = text[first + len(MARK) : text.rindex(MARK)]
    for cut in range(len(between)):
        assert _shrunk(document, first + len(LONG) + cut) == whole, cut
