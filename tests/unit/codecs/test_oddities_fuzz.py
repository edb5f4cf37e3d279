"""
Every recording and oddity, bent at random: nothing raises, no text is lost, no cut call looks whole.

``RIVERDELTA_FUZZ_STREAMS`` says how many streams (`make fuzz`: 20,000), ``RIVERDELTA_FUZZ_SEED`` where
to begin. A failure names the seed of its stream.
"""

import copy
import json
import os
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import Piece
from tests.support.core.codec_tools import check_order, lines_of, merged, recordings
from tests.support.core.oddities import oddities, reply

STREAMS = int(os.environ.get("RIVERDELTA_FUZZ_STREAMS", "1200"))
SEED = int(os.environ.get("RIVERDELTA_FUZZ_SEED", "0"))
PARTS = 12
SOURCES = ("openai-chat", "openai-responses", "anthropic")
ODD_VALUES: list[Any] = [
    *[None, "", "0", 0, 1, -1, 1.5, True, [], {}, "x", [None], {"text": "t"}, "null", 10**30]
]
VERBS = ("drop", "null", "retype", "renumber", "repeat", "reorder", "cut", "lose")
WHOLE_ENDS = {"stop", "tool_calls", "pause"}
FAILURES = ('"error', '_error"', "base_resp", '"fault', '"failed"')


def _documents() -> list[tuple[str, list[Any]]]:
    streams = [
        (source, [json.loads(line) for line in lines_of(path)])
        for source in SOURCES
        for path in recordings(source)
    ]
    streams += [
        (odd.source, [json.loads(raw) for raw in odd.raws])
        for odd in oddities()
        if not odd.source.endswith("+sse")
    ]
    return streams


STREAM_DOCUMENTS = _documents()


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Give each container in a document, with each of its keys."""
    if depth < 12 and isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from _places(value[key], depth + 1)


def _bend(documents: list[Any], chance: random.Random) -> list[Any]:
    """Drop, null, retype, renumber, repeat, reorder or cut something."""
    verb = chance.choice(VERBS)
    at = chance.randrange(len(documents))
    here = documents[at : at + 1]
    match verb:
        case "repeat":
            return documents[: at + 1] + copy.deepcopy(here) + documents[at + 1 :]
        case "reorder" if at:
            before = documents[at - 1 : at]
            return documents[: at - 1] + here + before + documents[at + 1 :]
        case "cut":
            return documents[: at + 1]
        case "lose":
            return documents[:at] + documents[at + 1 :] or documents
    names = [name for _, name in _places(documents[at])]
    if names:
        name, value = chance.choice(names), chance.choice(ODD_VALUES)
        for document in documents if chance.random() < 0.3 else here:
            _change(document, name, verb, value, chance)
    return documents


def _change(document: Any, name: Any, verb: str, value: Any, chance: random.Random) -> None:
    """Change what stands under *name*, wherever that is in a document."""
    for place, key in list(_places(document)):
        there = key in place if isinstance(place, dict) else key < len(place)
        if key != name or not there:
            continue
        if verb == "drop":
            del place[key]
        elif verb != "renumber":
            place[key] = None if verb == "null" else copy.deepcopy(value)
        elif isinstance(place[key], int):
            place[key] = chance.randrange(3)


def _shown_texts(source: str, documents: list[Any]) -> list[str]:
    """Give the texts that still stand where their source has them, if nothing puts that in doubt."""
    if any(word in json.dumps(documents) for word in FAILURES):
        return []  # what follows a failure is old
    objects = [document for document in documents if isinstance(document, dict)]
    if source == "openai-chat":
        lists = [each["choices"] for each in objects if isinstance(each.get("choices"), list)]
        choices = [choice for each in lists for choice in each if isinstance(choice, dict)]
        if {str(choice.get("index", 0)) for choice in choices} - {"0"}:
            return []  # it may be another answer
        return [text for choice in choices for text in _inner(choice.get("delta"), "content")]
    if source == "anthropic":
        deltas = [
            each.get("delta") for each in objects if each.get("type") == "content_block_delta"
        ]
        return [
            text for delta in deltas if _inner(delta, "type") == ["text_delta"]
            for text in _inner(delta, "text")
        ]  # fmt: skip
    deltas = [each for each in objects if each.get("type") == "response.output_text.delta"]
    return [text for delta in deltas for text in _inner(delta, "delta")]


def _inner(value: Any, name: str) -> list[str]:
    text = value.get(name) if isinstance(value, dict) else None
    return [text] if isinstance(text, str) else []


def _check(source: str, documents: list[Any], chance: random.Random) -> None:
    raws = [json.dumps(document).encode() for document in documents]
    unbroken, codec = make_codec(source), make_codec(source)
    expected: list[Piece] = []
    pieces: list[Piece] = []
    for raw in raws:
        expected += unbroken.decode(raw)
        pieces += codec.decode(raw)
        if chance.random() < 0.3:
            state = orjson.loads(orjson.dumps(codec.dump()))
            codec = make_codec(source)
            codec.load(state)
    expected += unbroken.finish()
    pieces += codec.finish()
    check_order(expected)
    assert merged(pieces) == merged(expected)
    assert codec.skipped == unbroken.skipped

    got = reply(source, raws, batch=chance.random() < 0.5)
    assert len(got["ends"]) == 1
    shown = "\0".join(got["text"])
    for text in _shown_texts(source, documents):
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        assert clean.strip("\ufffd") in shown.replace("\0", "") or clean in shown
    no_arguments = "{}" not in json.dumps(documents).replace(" ", "")
    for call in got["tool_calls"]:
        if call["whole"] and call["format"] == "json":
            arguments = call["arguments"]
            assert arguments != ""
            if arguments == {} and no_arguments:
                assert set(got["finishes"]) & WHOLE_ENDS
            if (
                isinstance(arguments, str) and '"' not in arguments
            ):  # a wrong JSON, but no half of one
                assert arguments.count("{") == arguments.count("}")


@pytest.mark.parametrize("part", range(PARTS))
def test_bent_streams(part: int) -> None:
    for number in range(part, STREAMS, PARTS):
        seed = SEED + number
        chance = random.Random(seed)
        source, documents = chance.choice(STREAM_DOCUMENTS)
        documents = copy.deepcopy(documents[: chance.choice([40, 40, 200])])
        for _ in range(chance.choice([1, 1, 2, 3, 6])):
            documents = _bend(documents, chance)
        try:
            _check(source, documents, chance)
        except Exception as error:  # noqa: BLE001 - whatever it is, the seed must be said
            pytest.fail(
                f"RIVERDELTA_FUZZ_SEED={seed} ({source}): {error!r}\n{json.dumps(documents)[:4000]}"
            )
