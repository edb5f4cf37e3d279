"""A chat that a worker of the version before has begun is taken over in the middle of any step."""

import copy
import json
from typing import Any

import orjson
import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkStart,
    Rejected,
    StepEnd,
    StepFail,
    Text,
)
from tests.support.core.codec_tools import RECORDINGS, lines_of, run

STATES = json.loads((RECORDINGS / "codec-states-1.json").read_text())
"""Dumped by the codecs of that version, in the middle of their recordings, with the chunks open then."""


def _raws(case: dict[str, Any], after: int) -> list[bytes]:
    source = case["source"].removesuffix("+sse")
    lines = lines_of(RECORDINGS / source / f"{case['recording']}.jsonl")
    if source == case["source"]:
        return lines[after:]
    return [b"".join(b"data: " + line + b"\n\n" for line in lines)[after:]]


@pytest.mark.parametrize("case", STATES, ids=lambda case: f"{case['source']}-{case['recording']}")
def test_an_old_state_goes_on(case: dict[str, Any]) -> None:
    whole = run(make_codec(case["source"]), _raws(case, 0))
    codec = make_codec(case["source"])
    codec.load(copy.deepcopy(case["state"]))
    state = orjson.loads(orjson.dumps(codec.dump()))
    codec = make_codec(case["source"])
    codec.load(state)
    pieces = run(codec, _raws(case, case["after"]))

    open_keys = set(case["open"])
    for piece in pieces:
        match piece:
            case ChunkStart(key):
                assert key not in open_keys
                open_keys.add(key)
            case Text(key):
                assert key in open_keys
            case ChunkEnd(key):
                open_keys.remove(key)
            case StepEnd() | StepFail():
                open_keys.clear()
            case ChunkFail() | Rejected():
                pytest.fail(f"{piece}")
            case _:
                pass
    said = case["said"] + "".join(piece.text for piece in pieces if isinstance(piece, Text))
    expected = "".join(piece.text for piece in whole if isinstance(piece, Text))
    assert sorted(said) == sorted(expected)
    assert isinstance(pieces[-1], type(whole[-1]))
