"""Nothing a provider can send raises, breaks the order of pieces, or depends on where a worker died."""

import copy
import json
import random
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverdelta.core.codecs import SOURCES, make_codec
from riverdelta.core.codecs.pieces import ChunkStart, Piece, Rejected, StepEnd, StepFail, StepStart
from tests.unit.codecs.folding import check_order, lines_of, merged, recordings

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([10**30, -(10**30), 1.5, -0.0, 2**63, 2**64 - 1]),
    st.sampled_from(
        ["", "a", "stop", "tool_calls", "completed", "text", "\ud83d", "\ude00", "é🌊"]
    ),
    st.text(st.characters(codec=None), max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
DOCUMENTS = {
    source: [json.loads(line) for path in recordings(source) for line in lines_of(path)]
    for source in ("openai-chat", "openai-responses", "anthropic", "chunks")
}
FIELDS = {
    source: sorted({name for document in documents for name in document})
    for source, documents in DOCUMENTS.items()
}


def _mutate(document: Any, value: Any, chance: random.Random) -> Any:
    """Replace, add or drop one thing at a random depth."""
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = chance.choice(keys)
        if not isinstance(place[key], dict | list) or chance.random() < 0.2:
            break
        place = place[key]
    if isinstance(place, dict) and chance.random() < 0.2:
        del place[key]
    else:
        place[key] = value
    return document


@st.composite
def streams(draw: st.DrawFn, source: str) -> list[bytes]:
    """Draw a run of a provider's chunks, some of them bent, some replaced by anything."""
    documents = DOCUMENTS[source]
    chance = random.Random(draw(st.integers(0, 2**32)))
    begin = draw(st.integers(0, len(documents) - 1))
    run = copy.deepcopy(documents[begin : begin + draw(st.integers(1, 25))])
    if draw(st.booleans()):
        run += copy.deepcopy(chance.choices(documents, k=5))
    out = []
    for document in run:
        bent = document
        for _ in range(chance.choice([0, 0, 0, 1, 1, 3])):
            bent = _mutate(bent, draw(VALUES), chance) if isinstance(bent, dict) else bent
        text = json.dumps(bent, ensure_ascii=chance.random() < 0.7)
        raw = text.encode("utf-8", "surrogatepass")
        if chance.random() < 0.05:
            raw = raw[: chance.randrange(len(raw) + 1)]
        out.append(raw)
    return out


def _check_words(pieces: list[Piece]) -> None:
    """Fail if anything that will be stored or sent is no JSON."""
    for piece in pieces:
        match piece:
            case StepStart() | ChunkStart() | StepFail() | Rejected():
                orjson.dumps(list(piece))
            case StepEnd(_, reason, usage):
                orjson.dumps([reason, usage and list(usage)])
            case _:
                pass


def _check(source: str, raws: list[bytes]) -> None:
    unbroken, broken = make_codec(source), make_codec(source)
    expected: list[Piece] = []
    pieces: list[Piece] = []
    for raw in raws:
        expected += unbroken.decode(raw)
        pieces += broken.decode(raw)
        state = orjson.loads(orjson.dumps(broken.dump()))
        broken = make_codec(source)
        broken.load(state)
    expected += unbroken.finish()
    pieces += broken.finish()
    check_order(expected)
    _check_words(expected)
    assert merged(pieces) == merged(expected)
    assert broken.skipped == unbroken.skipped


@pytest.mark.parametrize("source", sorted(DOCUMENTS))
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_bent_recordings(source: str, data: st.DataObject) -> None:
    _check(source, data.draw(streams(source)))


@pytest.mark.parametrize("source", sorted(DOCUMENTS))
@settings(suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_bent_recordings_framed_and_cut_anywhere(source: str, data: st.DataObject) -> None:
    if f"{source}+sse" not in SOURCES:
        return
    whole = b"".join(b"data: " + raw + b"\r\n\r\n" for raw in data.draw(streams(source)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    _check(
        f"{source}+sse", [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    )


@pytest.mark.parametrize("source", SOURCES)
@given(raws=st.lists(st.one_of(st.binary(), VALUES.map(lambda value: json.dumps(value).encode()))))
def test_anything_at_all(source: str, raws: list[bytes]) -> None:
    _check(source, raws)


@pytest.mark.parametrize("source", sorted(DOCUMENTS))
@given(data=st.data())
def test_objects_with_the_right_names(source: str, data: st.DataObject) -> None:
    objects = st.dictionaries(st.sampled_from(FIELDS[source]), VALUES, max_size=4)
    _check(source, [json.dumps(value).encode() for value in data.draw(st.lists(objects))])
