"""What the harness reads out of a restarted server."""

from faults.injector import stored_numbers


def test_a_reapers_number_is_not_its_dead_producers() -> None:
    for order in (slice(None), slice(None, None, -1)):
        pairs = [(b"9a3ec589:m1", b"12"), (b"reaper:m1", b"1"), (b"b0dda264:m2", b"3")][order]
        flat = [part for pair in pairs for part in pair]
        assert stored_numbers(flat) == {"m1": 12, "m2": 3}


def test_the_head_has_the_numbers_of_open_messages() -> None:
    head = [b"seq", b"9", b"last.9a3ec589:m1", b"12", b"open.m1", b"10 300 20"]
    assert stored_numbers([b"b0dda264:m2", b"3"], head) == {"m1": 12, "m2": 3}
