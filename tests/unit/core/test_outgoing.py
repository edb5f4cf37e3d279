"""The producer's machine, against a model of Redis that loses, repeats, delays and forgets."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.broker.producer.resend_buffer import Resends
from riverdelta.core.errors import (
    MessageEnded,
    MessageExists,
    MessageLost,
    RiverdeltaError,
    Stopped,
)
from riverdelta.core.outgoing import Adopt, NewEntry, Outgoing, PushReply, Raise, Sent
from tests.support.core.outgoing_story import FORGET_ADOPTION, STEPS, Story

OF_TURNS = (*STEPS, FORGET_ADOPTION)


def play(
    steps: tuple[str, ...] | list[str], resend_bytes: int = 1 << 20, *, adopts: bool = False
) -> Story:
    story = Story(resend_bytes, adopts=adopts)
    story.play(steps)
    story.finish()
    return story


@pytest.mark.parametrize("first", STEPS)
def test_every_short_story_ends_well(first: str) -> None:
    for rest in itertools.product(STEPS, repeat=2):
        play((first, *rest))


@given(st.lists(st.sampled_from(STEPS), max_size=40))
def test_many_long_stories_end_well(steps: list[str]) -> None:
    play(steps)


@pytest.mark.parametrize("first", OF_TURNS)
def test_every_short_story_of_an_adopted_turn_ends_well(first: str) -> None:
    for rest in itertools.product(OF_TURNS, repeat=2):
        play((first, *rest), adopts=True)


@given(st.lists(st.sampled_from(OF_TURNS), max_size=40), st.sampled_from([0, 200, 1 << 20]))
def test_many_long_stories_of_adopted_turns_end_well(steps: list[str], resend_bytes: int) -> None:
    play(steps, resend_bytes, adopts=True)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("taken", MessageExists),
        ("stopped", Stopped),
        ("ended", MessageEnded),
        ("unknown", MessageLost),
    ],
)
def test_a_turn_that_is_not_to_be_had_is_not_written(
    status: str, error: type[RiverdeltaError]
) -> None:
    machine = Outgoing(
        "c", "m", Resends(0).for_message(), doubt_bytes=1, stale_ms=1, keep_ms=1, adopts=True
    )
    assert machine.open(0) == [Adopt(again=False)]
    (refused,) = machine.reply(PushReply(status, 0, 1, 1, "w", 1, "enough"), 0)
    assert isinstance(refused, Raise)
    assert type(refused.error) is error
    assert machine.store([NewEntry("chunk", 0, b"x")]) == [refused]


@given(st.lists(st.sampled_from(STEPS), max_size=30), st.sampled_from([0, 200, 500]))
def test_stories_with_little_to_send_again_end_well(steps: list[str], resend_bytes: int) -> None:
    play(steps, resend_bytes)


def test_the_table_has_every_answer_to_everything_that_is_sent() -> None:
    opened = {"stored", "repeat", "exists", "foreign"}
    pushed = {"stored", "repeat", "hole", "unknown", "ended", "stopped", "full"}
    adopted = {"stored", "repeat", "taken", "stopped", "ended", "unknown"}
    answers = dict.fromkeys((Sent.OPEN, Sent.REOPEN), opened)
    answers |= dict.fromkeys((Sent.ADOPT, Sent.READOPT), adopted)
    assert set(Outgoing.TRANSITIONS) == {
        (sent, status) for sent in Sent for status in answers.get(sent, pushed)
    }


@pytest.mark.parametrize(
    ("steps", "emitted"),
    [
        (["push", "push two"], ["done", "done"]),
        (["push, no answer", "push"], ["done", "done"]),
        (["push, no answer twice", "full", "push"], ["done", "BackpressureError"]),
        (["full", "push, no answer"], ["BrokerUnavailable"]),
        (["stop", "push", "push"], ["Stopped", "Stopped"]),
        (["foreign end", "push", "push"], ["MessageEnded", "MessageEnded"]),
        (["push", "forget the message", "push"], ["done", "done"]),
        (["finish", "push", "finish"], ["done", "MessageEnded", "done"]),
        (["cancel", "push", "push"], ["CancelledCall", "done"]),
    ],
)
def test_what_calls_come_to(steps: list[str], emitted: list[str]) -> None:
    story = Story()
    story.play(steps)
    assert story.emitted == emitted


def test_what_is_in_doubt_is_never_said_not_to_be_stored() -> None:
    story = Story()
    story.play(["push, late", "full"])
    assert story.emitted == ["done"]
    story.play(["push, late twice"])
    assert story.emitted[1:] == ["BrokerUnavailable"]


def test_a_server_that_lost_what_is_not_kept_fails_the_message() -> None:
    story = play(["push", "push", "forget all but one", "push"], resend_bytes=0)
    assert "MessageLost" in story.emitted
    assert story.server.log is not None
    assert [entry.type for entry in story.server.log] == ["chunk", "fail"]


def test_an_end_that_is_not_kept_is_still_looked_after() -> None:
    """A server that loses it later fails the message: else it would be open for ever."""
    story = Story(resend_bytes=0)
    story.play(["push", "finish", "process", "check", "forget all but one", "check"])
    assert story.server.log is not None
    assert [entry.type for entry in story.server.log] == ["chunk", "fail"]
