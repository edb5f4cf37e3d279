"""Every recording, step for step, against what the provider's own SDK makes of it."""

import json
from pathlib import Path

import pytest

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import Rejected
from tests.support.core.assembled import differences
from tests.support.core.codec_tools import check_order, fold, lines_of, merged, recordings, run
from tests.support.core.sdk_oracle import SOURCES, assemble


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", recordings(*SOURCES), ids=_name)
def test_each_step_is_what_the_sdk_assembles(path: Path) -> None:
    source, lines = path.parent.name, lines_of(path)
    pieces = run(make_codec(source), lines)

    assert not [piece for piece in pieces if isinstance(piece, Rejected)]
    check_order(pieces)
    for ours, theirs in zip(fold(pieces), assemble(source, lines), strict=True):
        assert differences(ours, theirs) == []


@pytest.mark.parametrize("path", recordings(*SOURCES, "chunks"), ids=_name)
def test_a_new_owner_at_every_boundary_changes_nothing(path: Path) -> None:
    source, lines = path.parent.name, lines_of(path)
    unbroken = make_codec(source)
    expected = run(unbroken, lines)

    codec, pieces = make_codec(source), []
    for line in lines:
        pieces += codec.decode(line)
        state = json.loads(json.dumps(codec.dump()))
        codec = make_codec(source)
        codec.load(state)
    pieces += codec.finish()

    assert merged(pieces) == merged(expected)
    assert codec.skipped == unbroken.skipped


@pytest.mark.parametrize("path", recordings(*SOURCES), ids=_name)
def test_a_recording_cut_anywhere_still_closes_what_it_opened(path: Path) -> None:
    lines = lines_of(path)
    for end in range(0, len(lines), max(1, len(lines) // 40)):
        check_order(run(make_codec(path.parent.name), lines[:end]))
