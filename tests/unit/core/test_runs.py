"""Runs of text: taking many raw chunks at once asks for what taking each by itself asks for."""

import itertools
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from riverdelta.core.fold import ChatFold
from riverdelta.core.state import Entry
from riverdelta.core.tracker import MISMATCH_RULES, MODES
from riverdelta.pipeline import Pipeline
from tests.support.core.fold_tools import NOW_MS, control, entries, new_state, start
from tests.support.core.runs import RECORDED, check, steps_of
from tests.support.core.streams import DOCUMENTS, streams


@settings(suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_all_recordings_in_any_batches(seed: int) -> None:
    chance = random.Random(seed)
    chosen = chance.choices(RECORDED, k=chance.randint(1, 3))
    check([steps_of(source, raws, chance) for source, raws in chosen], chance)


@pytest.mark.parametrize("source", sorted(DOCUMENTS))
@settings(suppress_health_check=list(HealthCheck))
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_bent_recordings(source: str, data: st.DataObject, seed: int) -> None:
    chance = random.Random(seed)
    raws = data.draw(st.lists(streams(source), min_size=1, max_size=2))
    check([steps_of(source, run, chance) for run in raws], chance)


@pytest.mark.parametrize("source", ["text", "text-snapshot", "openai-chat+sse"])
@given(raws=st.lists(st.binary()), seed=st.integers(0, 2**32))
def test_bytes(source: str, raws: list[bytes], seed: int) -> None:
    chance = random.Random(seed)
    check([steps_of(source, raws, chance)], chance)


def test_the_first_text_of_a_message_may_stand_in_a_run() -> None:
    """As with a codec that opens a chunk before its first text."""
    folder = ChatFold(new_state(), Pipeline())
    opening = [start("chunks"), ("chunk", b'{"chunk": "a", "kind": "text"}')]
    first, second = entries(opening)
    folder.apply([first, second], NOW_MS)
    message = folder.state.messages["m"]
    message.codec.decode_run = lambda raws: ("a", [raw.decode() for raw in raws], None)  # type: ignore[method-assign]
    later = [Entry(number, "m", "chunk", 100 * number, b"x") for number in (3, 4, 5)]
    changes = folder.apply(later, NOW_MS)
    assert (message.ttft_ms, message.last_at_ms) == (300, 500)
    assert len(changes.events) == 1


def test_every_recording_whole() -> None:
    for source, raws in RECORDED:
        for mode, rule in itertools.product(MODES, MISMATCH_RULES):
            steps = [start(source, mode=mode, on_mismatch=rule), *(("chunk", raw) for raw in raws)]
            for seed in range(3):
                check([[*steps, control("end")]], random.Random(seed))
