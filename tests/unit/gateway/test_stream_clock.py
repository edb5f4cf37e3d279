"""When a stream is due for a heartbeat, has stalled, or must end."""

from riverdelta_gateway.stream_clock import StreamClock


def a_clock(**more: float) -> StreamClock:
    return StreamClock(100.0, heartbeat_s=15.0, stall_timeout_s=60.0, **more)


def test_a_heartbeat_follows_what_went_out() -> None:
    clock = a_clock()
    assert clock.judge(114.9, 0, sending=False) is None
    assert clock.judge(115.0, 0, sending=False) == "heartbeat"
    clock.sent(115.0, 0)
    assert clock.judge(129.9, 0, sending=False) is None
    assert clock.judge(130.0, 0, sending=False) == "heartbeat"


def test_no_heartbeat_is_put_behind_a_write_that_waits() -> None:
    clock = a_clock()
    assert clock.judge(120.0, 5, sending=True) is None
    assert clock.wait_s(120.0, sending=True) == 15.0


def test_a_client_that_takes_bytes_has_not_stalled_however_slow_it_is() -> None:
    clock = a_clock()
    for step in range(10):
        assert clock.judge(100.0 + 50 * step, 1000 - step, sending=True) is None
    assert clock.judge(550.0 + 60.0, 991, sending=True) == "stalled"


def test_a_client_that_takes_nothing_has_stalled_also_while_more_is_written() -> None:
    clock = a_clock()
    assert clock.judge(100.0, 10, sending=False) is None
    for step in range(1, 6):
        clock.sent(100.0 + 10 * step, 10 * (step + 1))
        assert clock.judge(100.0 + 10 * step, 10 * (step + 1), sending=False) is None
    assert clock.judge(160.0, 60, sending=False) == "stalled"


def test_a_quiet_stream_with_nothing_unsent_has_not_stalled() -> None:
    clock = a_clock()
    clock.sent(170.0, 0)
    assert clock.judge(171.0, 0, sending=False) is None


def test_a_token_ends_a_stream_also_while_a_write_waits() -> None:
    clock = a_clock(ends_at_s=110.0)
    assert clock.wait_s(109.0, sending=True) == 1.0
    assert clock.judge(110.0, 5, sending=True) == "token_expired"
