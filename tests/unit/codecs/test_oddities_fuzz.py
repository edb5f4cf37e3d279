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
from riverdelta.core.codecs.failures import find_loose_failure
from riverdelta.core.codecs.pieces import ChunkStart, Piece
from tests.support.core.codec_tools import check_order, lines_of, merged, recordings
from tests.support.core.oddities import oddities, reply

STREAMS = int(os.environ.get("RIVERDELTA_FUZZ_STREAMS", "1200"))
SEED = int(os.environ.get("RIVERDELTA_FUZZ_SEED", "0"))
PARTS = 12
SOURCES = ("openai-chat", "openai-responses", "anthropic", "gemini", "bedrock-converse")
ODD_VALUES: list[Any] = [
    *[None, "", "0", 0, 1, -1, 1.5, True, [], {}, "x", [None], {"text": "t"}, "null", 10**30]
]
VERBS = ("drop", "null", "retype", "renumber", "repeat", "reorder", "cut", "lose")
WHOLE_ENDS = {"stop", "tool_calls", "pause"}
GEMINI_CALLS = ("functioncall", "executablecode", "toolcall")
FAILURES = ('"error', '_error"', "base_resp", '"fault', '"failed"', 'Exception"')


def _documents() -> list[tuple[str, list[Any]]]:
    streams = [
        (source, [json.loads(line) for line in lines_of(path)])
        for source in SOURCES
        for path in recordings(source)
    ]
    streams += [
        (odd.source, [json.loads(raw) for raw in odd.raws if raw != b"[DONE]"])
        for odd in oddities()
        if not odd.source.endswith("+sse")
    ]
    return streams


STREAM_DOCUMENTS = _documents()


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Give each container in a document, with each of its keys."""
    if depth < 16 and isinstance(value, dict | list):
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
    objects = [document for document in documents if isinstance(document, dict)]
    if any(word in json.dumps(documents) for word in FAILURES) or any(
        map(find_loose_failure, objects)
    ):
        return []  # what follows a failure is old
    return list(TEXTS_OF[source](objects))


def _chat_texts(objects: list[dict[str, Any]]) -> Iterator[str]:
    lists = [each["choices"] for each in objects if isinstance(each.get("choices"), list)]
    choices = [choice for each in lists for choice in each if isinstance(choice, dict)]
    if {str(choice.get("index", 0)) for choice in choices} - {"0"}:
        return  # it may be another answer
    for choice in choices:
        yield from _inner(choice.get("delta"), "content")


def _responses_texts(objects: list[dict[str, Any]]) -> Iterator[str]:
    for each in objects:
        if each.get("type") == "response.output_text.delta":
            yield from _inner(each, "delta")


def _anthropic_texts(objects: list[dict[str, Any]]) -> Iterator[str]:
    for each in objects:
        delta = each.get("delta") if each.get("type") == "content_block_delta" else None
        if _inner(delta, "type") == ["text_delta"]:
            yield from _inner(delta, "text")


def _bedrock_texts(objects: list[dict[str, Any]]) -> Iterator[str]:
    for each in objects:
        event = each.get("contentBlockDelta")
        yield from _inner(event.get("delta") if isinstance(event, dict) else None, "text")


def _gemini_texts(objects: list[dict[str, Any]]) -> Iterator[str]:
    lists = [each["candidates"] for each in objects if isinstance(each.get("candidates"), list)]
    candidates = [one for each in lists for one in each if isinstance(one, dict)]
    if {str(one.get("index", 0)) for one in candidates} - {"0"}:
        return  # it may be another answer
    for one in candidates:
        content = one.get("content")
        parts = content.get("parts") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else []:
            if isinstance(part, dict) and part.get("thought") is not True:
                yield from _inner(part, "text")


def _gemini_ends(documents: list[Any]) -> int:
    """Count what can make a call of Gemini whole: a call that does not go on, or its last part."""
    values = [
        place[key]
        for place, key in _places(documents)
        if isinstance(place, dict) and str(key).replace("_", "").lower() in GEMINI_CALLS
    ]
    goes_on = ("willContinue", "will_continue")
    return sum(
        isinstance(one, dict) and not any(one.get(name) is True for name in goes_on)
        for one in values
    )


def _inner(value: Any, name: str) -> list[str]:
    text = value.get(name) if isinstance(value, dict) else None
    return [text] if isinstance(text, str) else []


TEXTS_OF = {
    "openai-chat": _chat_texts,
    "openai-responses": _responses_texts,
    "anthropic": _anthropic_texts,
    "gemini": _gemini_texts,
    "bedrock-converse": _bedrock_texts,
}


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
    if source == "gemini":
        assert sum(call["whole"] for call in got["tool_calls"]) <= _gemini_ends(documents)
    no_arguments = "{}" not in json.dumps(documents).replace(" ", "")
    for call in got["tool_calls"]:
        if call["whole"] and call["format"] == "json":
            arguments = call["arguments"]
            assert arguments != ""
            if arguments == {} and no_arguments and _end_decides(source, call, expected):
                assert set(got["finishes"]) & WHOLE_ENDS
            if (
                isinstance(arguments, str) and '"' not in arguments
            ):  # a wrong JSON, but no half of one
                assert arguments.count("{") == arguments.count("}")


def _end_decides(source: str, call: dict[str, Any], pieces: list[Piece]) -> bool:
    """Whether only the end of the reply tells that a call without arguments was not cut."""
    if source == "gemini":
        return False  # its calls come whole, or their last part says so
    if source not in ("bedrock-converse", "anthropic"):
        return True
    last = [piece for piece in pieces if isinstance(piece, ChunkStart)][-1]  # else more followed it
    return (last.kind, last.tool_call_id) == ("tool_call", call["id"])


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
