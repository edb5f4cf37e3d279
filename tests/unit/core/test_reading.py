"""What readers rest on: positions, the cursor, the view of a chat."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.cursor import ReaderCursor, Verdict
from riverdelta.core.errors import InvalidIdError, InvalidPositionError
from riverdelta.core.events import Event, empty_snapshot, encode_event
from riverdelta.core.ids import check_id
from riverdelta.core.positions import NO_EPOCH, Position


def event(epoch: str, seq: int) -> Event:
    return Event(
        encode_event(
            seq=seq,
            epoch=epoch,
            chat="c",
            message="m",
            chunk=None,
            type_="message.stopped",
            ts_ms=0,
            data={"reason": "r"},
        )
    )


@pytest.mark.parametrize(
    "text", ["", "9f2c41aa", "9f:", ":7", "9f:-1", "9f:1.5", "a b:1", "9f:7\n"]
)
def test_what_never_was_a_position_is_refused(text: str) -> None:
    with pytest.raises(InvalidPositionError, match="leave it out"):
        Position.parse(text)


def test_positions_are_encoded_as_epoch_and_seq() -> None:
    assert str(Position("9f2c41aa", 7)) == "9f2c41aa:7"
    assert Position.parse("9f2c41aa:7") == Position("9f2c41aa", 7)
    assert event("9f2c41aa", 7).position == "9f2c41aa:7"


@pytest.mark.parametrize("good", ["c1", "A.b_c:d@e-f", "x" * 128])
def test_ids_that_are_allowed(good: str) -> None:
    assert check_id("chat_id", good) == good


@pytest.mark.parametrize("bad", ["", "a b", "{a}", "a/b", "ä", "x" * 129, "a\n"])
def test_ids_that_are_not(bad: str) -> None:
    with pytest.raises(InvalidIdError, match="chat_id"):
        check_id("chat_id", bad)
    assert issubclass(InvalidIdError, ValueError)


@pytest.mark.parametrize(
    ("position", "arrives", "verdict"),
    [
        (Position("a", 3), ("a", 4), Verdict.DELIVER),
        (Position("a", 3), ("a", 3), Verdict.SKIP),
        (Position("a", 3), ("a", 1), Verdict.SKIP),
        (Position("a", 3), ("a", 5), Verdict.READ_LOG),
        (Position("a", 3), ("b", 4), Verdict.SNAPSHOT),
        (Position(NO_EPOCH, 0), ("a", 1), Verdict.DELIVER),
        (Position(NO_EPOCH, 0), ("a", 2), Verdict.READ_LOG),
    ],
)
def test_what_an_event_means_from_a_position(
    position: Position, arrives: tuple[str, int], verdict: Verdict
) -> None:
    cursor = ReaderCursor(position)
    assert cursor.judge(event(*arrives)) is verdict
    expected = Position(*arrives) if verdict is Verdict.DELIVER else position
    assert cursor.position == expected


@pytest.mark.parametrize(
    ("position", "head", "verdict"),
    [
        (Position("a", 3), None, Verdict.SKIP),
        (Position("a", 3), Position("a", 3), Verdict.SKIP),
        (Position("a", 3), Position("a", 9), Verdict.READ_LOG),
        (Position("a", 9), Position("a", 3), Verdict.SNAPSHOT),
        (Position("a", 3), Position("b", 3), Verdict.SNAPSHOT),
        (Position(NO_EPOCH, 0), Position("a", 3), Verdict.READ_LOG),
        (Position(NO_EPOCH, 7), Position("a", 3), Verdict.SNAPSHOT),
    ],
)
def test_what_the_head_means_from_a_position(
    position: Position, head: Position | None, verdict: Verdict
) -> None:
    assert ReaderCursor(position).judge_head(head) is verdict


def test_a_hole_in_the_log_itself_needs_a_snapshot() -> None:
    assert ReaderCursor(Position("a", 3)).judge_logged(event("a", 5)) is Verdict.SNAPSHOT


@given(
    arrivals=st.lists(st.integers(1, 12), max_size=40),
    start=st.integers(0, 12),
)
def test_whatever_arrives_in_whatever_order_the_reader_gets_one_contiguous_run(
    arrivals: list[int], start: int
) -> None:
    cursor = ReaderCursor(Position("a", start))
    log = [event("a", seq) for seq in range(1, 13)]
    delivered = []
    for seq in arrivals:
        verdict = cursor.judge(log[seq - 1])
        if verdict is Verdict.DELIVER:
            delivered.append(seq)
        elif verdict is Verdict.READ_LOG:
            for logged in log[cursor.position.seq : seq]:
                assert cursor.judge_logged(logged) is Verdict.DELIVER
                delivered.append(logged.seq)
    assert delivered == list(range(start + 1, start + 1 + len(delivered)))


def test_the_snapshot_of_no_chat_is_followed_by_seq_1() -> None:
    snapshot = empty_snapshot("c", 5)
    cursor = ReaderCursor(Position(NO_EPOCH, 0))
    cursor.restart(snapshot)
    assert cursor.judge(event("new", 1)) is Verdict.DELIVER
    assert snapshot.data == {"messages": []}
