"""The bytes of a response, cut at every byte: in the codec, with a new owner there, and in the fold."""

import orjson
import pytest

from riverdelta.core.codecs import SOURCES, make_codec
from riverdelta.core.codecs.pieces import Piece
from tests.support.core.codec_tools import check_order, lines_of, merged, recordings, run
from tests.support.core.oddities import reply

SSE = [source for source in SOURCES if source.endswith("+sse")]
SAID = ("text", "reasoning", "refusal", "tool_calls", "steps", "finishes", "usage", "end", "says")


def _bytes_of(source: str, recording: str) -> bytes:
    paths = recordings(source.removesuffix("+sse"))
    path = next(path for path in paths if path.stem == recording)
    frames = (b"data: " + line + b"\r\n\r\n" for line in lines_of(path))
    return b": hello\r\n\r\n" + b"".join(frames)


@pytest.mark.parametrize("recording", ["text", "surrogates"])
@pytest.mark.parametrize("source", SSE)
def test_a_new_owner_at_every_byte(source: str, recording: str) -> None:
    """Byte by byte up to the cut; another codec takes the state, and all the rest at once."""
    raw = _bytes_of(source, recording)
    whole = make_codec(source)
    expected = merged(run(whole, [raw]))
    check_order(expected)
    before, codec = list[Piece](), make_codec(source)
    for cut in range(len(raw) + 1):
        after = make_codec(source)
        after.load(orjson.loads(orjson.dumps(codec.dump())))
        assert merged(before + run(after, [raw[cut:]])) == expected, cut
        assert after.skipped == whole.skipped, cut
        before = merged(before + codec.decode(raw[cut : cut + 1]))


@pytest.mark.parametrize("source", SSE)
def test_two_pushes_cut_at_every_byte(source: str) -> None:
    raw = _bytes_of(source, "text")
    whole = reply(source, [raw])
    assert "".join(whole["text"])
    for cut in range(len(raw) + 1):
        got = reply(source, [raw[:cut], raw[cut:]])
        assert [got[name] for name in SAID] == [whole[name] for name in SAID], cut
