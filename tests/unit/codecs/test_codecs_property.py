"""Nothing a provider can send raises, breaks the order of pieces, or depends on where a worker died."""

import json

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverdelta.core.codecs import SOURCES, make_codec
from riverdelta.core.codecs.pieces import ChunkStart, Piece, Rejected, StepEnd, StepFail, StepStart
from tests.support.core.codec_tools import check_order, merged
from tests.support.core.streams import DOCUMENTS, VALUES, streams
from tests.support.drawing import examples

FIELDS = {
    source: sorted({name for document in documents for name in document})
    for source, documents in DOCUMENTS.items()
}


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
@settings(max_examples=examples(400), suppress_health_check=list(HealthCheck))
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
