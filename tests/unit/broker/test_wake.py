import pytest

from riverdelta.core.state import Entry
from riverdelta.core.wake import parse_wake


def encode(number: int, entries: list[tuple[str, str, int, bytes]]) -> bytes:
    body = b"".join(
        f"{message} {kind} {at} {len(data)}\n".encode() + data
        for message, kind, at, data in entries
    )
    return f"{number}\n".encode() + body


def test_nothing_inline() -> None:
    assert parse_wake(b"") == []


def test_entries_are_numbered_from_the_first_and_data_may_hold_anything() -> None:
    payload = encode(
        7, [("m", "chunk", 0, b"a\nb c\n"), ("m", "end", 12, b""), ("n", "x", 1, b"\xff")]
    )
    assert parse_wake(payload) == [
        Entry(7, "m", "chunk", 0, b"a\nb c\n"),
        Entry(8, "m", "end", 12, b""),
        Entry(9, "n", "x", 1, b"\xff"),
    ]


def test_garbage_is_not_taken_for_entries() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        parse_wake(b"7\nm chunk\n")


@pytest.mark.parametrize("junk", [b"7\nm chunk 0 -14\n", b"7\nm chunk 0 -1\n"])
@pytest.mark.timeout(20)  # a parser that goes back in the text reads one entry for ever
def test_a_wake_with_a_negative_size_is_refused(junk: bytes) -> None:
    with pytest.raises(ValueError, match="a wake entry is longer or shorter"):
        parse_wake(junk)


def test_a_wake_that_is_cut_is_not_an_entry() -> None:
    with pytest.raises(ValueError, match="a wake entry is longer or shorter"):
        parse_wake(b"7\nm chunk 0 10\nshort")
