from riverdelta.core.lease import STANDBY_LEASES, LeaseWatch, stands_in
from riverdelta.core.state import LogWindow

LEASE_MS = 2_000


def test_a_counter_that_stands_still_for_a_lease_is_dead() -> None:
    watch = LeaseWatch(LEASE_MS, max_gap_ms=LEASE_MS)
    assert watch.observe({"w": 5}, 0) == {}
    assert watch.observe({"w": 5}, 1_999) == {}
    assert watch.observe({"w": 5}, 2_000) == {"w": 5}


def test_a_counter_that_moves_lives_however_slowly_it_counts() -> None:
    watch = LeaseWatch(LEASE_MS, max_gap_ms=LEASE_MS)
    for beat in range(10):
        assert watch.observe({"w": beat}, beat * 1_900) == {}


def test_a_counter_that_starts_over_is_a_new_life() -> None:
    watch = LeaseWatch(LEASE_MS, max_gap_ms=LEASE_MS)
    watch.observe({"w": 5}, 0)
    watch.observe({"w": 1}, 1_000)
    assert watch.observe({"w": 1}, 2_500) == {}
    assert watch.observe({"w": 1}, 3_000) == {"w": 1}


def test_an_observer_that_was_away_declares_nobody_dead() -> None:
    watch = LeaseWatch(LEASE_MS, max_gap_ms=LEASE_MS)
    watch.observe({"a": 1, "b": 1}, 0)
    assert watch.observe({"a": 1, "b": 1}, 600_000) == {}
    assert watch.observe({"a": 2, "b": 1}, 602_000) == {"b": 1}


def test_one_that_left_and_came_back_gets_a_whole_lease() -> None:
    watch = LeaseWatch(LEASE_MS, max_gap_ms=LEASE_MS)
    watch.observe({"w": 1}, 0)
    watch.observe({}, 1_000)
    watch.observe({"w": 1}, 1_500)
    assert watch.observe({"w": 1}, 2_500) == {}


def test_the_log_window_keeps_between_half_and_all_of_its_bound() -> None:
    window = LogWindow(max_bytes=100)
    sizes: dict[int, int] = {}
    for seq in range(1, 200):
        sizes[seq] = 7 + seq % 5
        window.add(seq, sizes[seq])
        kept = sum(size for number, size in sizes.items() if number >= window.first_seq)
        assert kept <= 100 + 11
        if seq > 30:
            assert kept >= 50


def test_one_that_is_being_seen_to_gets_another_lease() -> None:
    watch = LeaseWatch(LEASE_MS, max_gap_ms=LEASE_MS)
    watch.observe({"c": 0}, 0)
    overdue = watch.observe({"c": 0}, 2_000)
    watch.renew(overdue, 2_000)
    assert watch.observe({"c": 0}, 3_900) == {}
    assert watch.observe({"c": 0}, 4_000) == {"c": 0}


def test_a_thread_stands_in_for_a_late_loop_before_its_lease_expires_and_not_for_ever() -> None:
    def needed(quiet_ms: int) -> bool:
        return stands_in(quiet_ms, period_ms=LEASE_MS // 4, lease_ms=LEASE_MS)

    assert not needed(0)
    assert not needed(LEASE_MS // 2)
    assert needed(LEASE_MS * 3 // 4)
    assert needed(STANDBY_LEASES * LEASE_MS)
    assert not needed(STANDBY_LEASES * LEASE_MS + 1)
