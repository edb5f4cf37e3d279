"""The pure session: every transition, every short story, any long one; and its edges."""

import itertools
import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from riverdelta.core.events import json_schema
from riverdelta.core.positions import Position
from riverdelta_gateway.close_codes import REASONS, CloseCode
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.frames import framed
from riverdelta_gateway.session import Close, Leave, Session, SessionLimits, Subscription, Write
from riverdelta_gateway.transitions import TRANSITIONS, Input, State
from tests.support.drawing import examples
from tests.support.gateway.world import MAX_QUEUED, STEPS, World, payload_of

BEFORE_THE_END = [state for state in State if state is not State.CLOSED]
SCHEMA = jsonschema_rs.Draft202012Validator(json_schema())


@given(
    st.lists(st.sampled_from(STEPS), max_size=60),
    st.sampled_from([None, Position("e1", 0), Position("e1", 2), Position("e9", 4)]),
)
@hypothesis_settings(max_examples=examples(400))
def test_a_client_ends_with_the_log_whatever_is_slow(
    steps: list[object], after: Position | None
) -> None:
    world = World(after)
    if after is not None and after.epoch == "e1":
        world.received.extend(world.log[: after.seq])
    for step in steps:
        assert callable(step)
        step(world)
    world.settle()
    world.check()


def test_every_short_story_holds_and_every_transition_of_a_chat_occurs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: set[tuple[State, Input]] = set()
    move = Subscription.move

    def watched(self: Subscription, what: Input) -> None:
        taken.add((self.state, what))
        move(self, what)

    monkeypatch.setattr(Subscription, "move", watched)

    def lose(world: World) -> None:
        world.write_other()
        world._published = len(world.log)  # published, and lost on the way

    steps = (
        World.write_delta,
        World.publish,
        World.block,
        World.drain,
        World.catch_up,
        World.catch_up_late,
        lose,
    )
    for state in BEFORE_THE_END:
        for story in itertools.product(steps, repeat=4):
            world = World()
            bring_to(world, state)
            for step in story:
                step(world)
            world.write_delta()
            world.settle()
            world.check()
        world = World()
        bring_to(world, state)
        world.do(world.session.unsubscribe("c"))
    assert taken == set(TRANSITIONS)


def bring_to(world: World, state: State) -> None:
    if state in (State.LIVE, State.LAGGING, State.DUE):
        world.catch_up()
    if state in (State.LAGGING, State.DUE):
        world.block()
        for _ in range(1 if state is State.LAGGING else 2):
            world.write_other()
            world.publish()
    assert state_of(world) == state.value


def state_of(world: World) -> str:
    return world.subscription.state.value


def test_what_waits_merges_into_one_event_that_the_schema_knows() -> None:
    world = World()
    world.catch_up()
    world.block()
    for _ in range(3):
        world.write_delta()
        world.publish()
    assert state_of(world) == "lagging"
    world.drain()
    assert state_of(world) == "live"
    merged = json.loads(world.received[-1].raw)
    assert (merged["first_seq"], merged["seq"]) == (4, 6)
    assert merged["data"] == {"offset": 0, "text": "<1 é🚀><2 é🚀><3 é🚀>"}
    SCHEMA.validate(merged)
    world.check()


def test_past_the_limit_one_snapshot_takes_the_place_of_what_waited() -> None:
    world = World()
    world.catch_up()
    world.block()
    for _ in range(50):
        world.write_other()
        world.publish()
        assert world.session.queued_bytes <= MAX_QUEUED
    assert state_of(world) == "due"
    before = len(world.received)
    world.settle()
    assert [event.type for event in world.received[before:]] == ["snapshot"]
    world.check()


def test_answers_are_never_dropped_and_too_many_unread_close_the_socket() -> None:
    session = _session()
    session.blocked()
    frame = framed(b"x" * 400)
    outputs = [session.send(frame) for _ in range(3)]
    assert outputs == [(), (), ()]
    assert session.send(frame) == [Close(CloseCode.TOO_SLOW)]
    assert session.closed
    assert not session.send(frame)


def test_a_stall_is_a_client_that_takes_no_byte_not_one_that_is_slow() -> None:
    session = _session()
    session.blocked()
    for second in range(100):  # 10 bytes less in the buffer each second
        assert not session.tick(second, 10_000 - 10 * second)
    assert not session.tick(105, 9_100)
    assert session.tick(111, 9_200) == [Close(CloseCode.TOO_SLOW)]


def test_a_token_ends_with_its_time() -> None:
    limits = SessionLimits(1, MAX_QUEUED, stall_timeout_s=10, deadline_s=5)
    session = Session(limits)
    session.subscribe("c", None)
    assert not session.tick(4.9, 0)
    leave, close = session.tick(5, 0)
    assert isinstance(leave, Leave)
    assert close == Close(CloseCode.TOKEN_EXPIRED)


def test_a_socket_has_so_many_chats_and_one_again_starts_over() -> None:
    session = _session()
    (first,) = session.subscribe("a", None)
    left, again = session.subscribe("a", Position("e", 3))
    assert left == Leave(first.subscription)  # type: ignore[union-attr]  # a CatchUp
    assert again != first
    session.subscribe("b", None)
    with pytest.raises(RequestError) as refused:
        session.subscribe("c", None)
    assert refused.value.code == "RATE_LIMITED"
    assert len(session.unsubscribe("b")) == 1
    assert session.unsubscribe("b") == ()
    session.subscribe("c", None)


def test_nothing_of_a_chat_comes_after_it_was_left() -> None:
    world = World()
    world.catch_up()
    world.block()
    world.write_delta()
    world.publish()
    subscription = world.subscription
    world.do(world.session.unsubscribe("c"))
    before = len(world.received)
    world.drain()
    assert subscription.state is State.CLOSED
    assert len(world.received) == before


def test_frames_of_any_length_carry_their_payload() -> None:
    for length in (0, 100, 125, 126, 65_535, 65_536, 300_000):
        payload = b'{"a":"' + b"x" * length + b'"}'
        assert payload_of(framed(payload)) == {"a": "x" * length}


def test_every_close_code_says_why_in_few_bytes_and_is_in_a_range_that_says_what_then() -> None:
    assert set(REASONS) == set(CloseCode)
    for code, reason in REASONS.items():
        assert len(reason.encode()) <= 123
        assert ("reconnect" in reason) == (4000 <= code < 4500), code


def _session() -> Session:
    return Session(SessionLimits(max_chats=2, max_queued_bytes=MAX_QUEUED, stall_timeout_s=10))


def test_a_free_socket_gets_a_response_at_once() -> None:
    assert _session().send(b"frame") == (Write(b"frame"),)
