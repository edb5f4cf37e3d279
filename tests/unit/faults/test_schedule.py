"""The schedule: the same seed gives the same, and no kind comes up short."""

from collections import Counter
from itertools import pairwise

import pytest

from faults.load import plans
from faults.schedule import KINDS, at_least, make_schedule


@pytest.mark.parametrize("seconds", [10, 60, 300, 1000])
@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_every_kind_comes_as_often_as_it_must(seed: str, seconds: int) -> None:
    faults, length = make_schedule(seed, seconds)
    counts = Counter(fault.kind for fault in faults)
    assert all(counts[kind] >= at_least(kind, seconds) for kind in KINDS)
    assert length >= seconds
    assert all(0 <= fault.at_s <= length and 0 <= fault.pick < 1 for fault in faults)
    assert faults == sorted(faults)


def test_in_300_seconds_thirty_workers_are_killed_and_all_else_comes_five_times() -> None:
    schedule = make_schedule("any", 300)
    counts = Counter(fault.kind for fault in schedule.faults)
    assert counts.pop("worker.kill") >= 30
    assert min(counts.values()) >= 5
    assert set(counts) == set(KINDS) - {"worker.kill"}
    assert schedule.seconds < 310


def test_a_seed_can_be_replayed() -> None:
    assert make_schedule("x", 60) == make_schedule("x", 60)
    assert make_schedule("x", 60) != make_schedule("y", 60)
    one, same, other = (plans(seed, open_chats=3) for seed in "xxy")
    first = [next(one) for _ in range(20)]
    assert first == [next(same) for _ in range(20)]
    assert first != [next(other) for _ in range(20)]


def test_in_the_calm_nothing_else_comes_that_would_spoil_the_measure() -> None:
    for seed in "abcdef":
        disturbing = [
            fault for fault in make_schedule(seed, 300).faults if fault.kind != "reader.reconnect"
        ]
        for before, fault in pairwise(disturbing):
            if before.calm:
                assert fault.at_s - before.at_s >= KINDS[before.kind].window_s - 0.001
            if fault.calm and not before.calm:
                assert fault.at_s - before.at_s >= 4.0 - 0.001


def test_a_kind_can_be_asked_for() -> None:
    faults, _ = make_schedule("x", 30, ("worker.cut", "worker.cut", "worker.cut"))
    assert [fault.kind for fault in faults] == ["worker.cut"] * 3


def test_every_chat_has_several_messages_open_and_comes_to_an_end() -> None:
    drawn = plans("x", open_chats=4)
    some = [next(drawn) for _ in range(200)]
    ended = [plan.chat for plan in some if plan.last]
    assert len(ended) > 15
    assert len(set(ended)) == len(ended)
    assert {plan.source for plan in some} == {"text", "text-snapshot", "openai-chat", "chunks"}
    assert any(plan.stop_after is not None for plan in some)
