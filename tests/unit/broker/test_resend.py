"""What a producer keeps to send again: in order, without holes, and bounded."""

import random

from riverdelta.broker.producer.resend_buffer import Kept, Resends
from riverdelta.core.outgoing import NewEntry


def entry(text: str) -> NewEntry:
    return NewEntry("chunk", 0, text.encode())


def texts(entries: list[NewEntry] | None) -> list[str] | None:
    return None if entries is None else [e.data.decode() for e in entries]


def test_it_gives_what_follows_a_number() -> None:
    kept = Resends(10_000).for_message()
    assert texts(kept.since(2)) == []
    kept.add([entry("two"), entry("three")])
    assert texts(kept.since(2)) == ["two", "three"]
    assert texts(kept.since(3)) == ["three"]
    assert texts(kept.since(4)) == []
    assert kept.since(1) is None


def test_what_was_stored_longest_ago_goes_first_whosever_it_is() -> None:
    resends = Resends(3_000)
    first, second = resends.for_message(), resends.for_message()
    first.add([entry("x" * 1_000)])
    second.add([entry("a" * 840), entry("b" * 840)])
    assert first.since(2) is None
    assert texts(first.since(3)) == []
    assert texts(second.since(2)) == ["a" * 840, "b" * 840]


def test_nothing_is_kept_where_nothing_may_be() -> None:
    resends = Resends(0)
    kept = resends.for_message()
    kept.add([entry("")])
    assert (resends.bytes, len(kept), kept.since(2)) == (0, 0, None)


def test_many_messages_that_come_and_go_leave_nothing() -> None:
    resends, rng = Resends(20_000), random.Random(7)
    live: list[tuple[Kept, list[str]]] = []
    for step in range(20_000):
        if rng.random() < 0.05 or not live:
            live.append((resends.for_message(), []))
        kept, said = rng.choice(live)
        said.append(f"{step} " * rng.randint(1, 9))
        kept.add([entry(said[-1])])
        assert resends.bytes <= 20_000
        assert texts(kept.since(2 + len(said) - len(kept))) == said[len(said) - len(kept) :]
        if rng.random() < 0.05:
            gone, _ = live.pop(rng.randrange(len(live)))
            gone.release()
            assert gone.since(2) is None
        # Places of what is gone are not kept either.
        assert len(resends._order) <= 2 * sum(len(kept) for kept, _ in live) + 1
    for kept, _ in live:
        kept.release()
        kept.release()
        kept.add([entry("late")])
    assert (resends.bytes, len(resends._order)) == (0, 0)
