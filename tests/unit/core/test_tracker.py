import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.tracker import ChunkTracker, OnMismatch, TextTrack, overlap_length

TABLE: list[tuple[list[str], OnMismatch, list[str], str]] = [
    (["Hello", "Hello world"], "emit", ["Hello", " world"], "Hello world"),
    (["Hello", "Hello"], "emit", ["Hello", ""], "Hello"),
    (["abc", "xyzabcdef"], "emit", ["abc", "def"], "abcdef"),
    (["Hello wor", "lo world"], "emit", ["Hello wor", "lo world"], "Hello worlo world"),
    (["Hello wor", "lo world"], "hold", ["Hello wor", ""], "Hello wor"),
    (["Hello wor", "lo world"], "stitch", ["Hello wor", "ld"], "Hello world"),
    (["Hello wor", "lo world"], "reset", ["Hello wor", "lo world"], "lo world"),
    (["Hello world", "Hello"], "emit", ["Hello world", "Hello"], "Hello worldHello"),
    (["Hello world", "Hello"], "hold", ["Hello world", ""], "Hello world"),
    (["", "Hi"], "emit", ["", "Hi"], "Hi"),
    (["a", "", "b"], "emit", ["a", "", "b"], "ab"),
    (["a", "", "b"], "reset", ["a", "", "b"], "b"),
]


@pytest.mark.parametrize(("chunks", "rule", "deltas", "complete"), TABLE)
def test_the_table_of_the_design(
    chunks: list[str], rule: OnMismatch, deltas: list[str], complete: str
) -> None:
    tracker = ChunkTracker(mode="snapshot", on_mismatch=rule)
    assert [tracker.add_chunk("c", chunk) for chunk in chunks] == deltas
    assert tracker.get_complete_text("c") == complete


def test_increments_pass_through_in_append_mode() -> None:
    tracker = ChunkTracker(mode="append")
    assert [tracker.add_chunk("c", "ha") for _ in range(3)] == ["ha", "ha", "ha"]
    assert tracker.get_complete_text("c") == "hahaha"


def test_increments_read_as_snapshots_lose_text_so_the_mode_is_explicit() -> None:
    tracker = ChunkTracker()
    assert [tracker.add_chunk("c", "ha") for _ in range(3)] == ["ha", "", ""]


def test_unseen_is_none_and_seen_but_empty_is_not() -> None:
    tracker = ChunkTracker()
    assert tracker.get_complete_text("c") is None
    tracker.add_chunk("c", "")
    assert tracker.get_complete_text("c") == ""
    tracker.clear_chunk("c")
    tracker.clear_chunk("never seen")
    assert tracker.get_complete_text("c") is None


def test_chunk_ids_do_not_mix() -> None:
    tracker = ChunkTracker()
    tracker.add_chunk("a", "one")
    tracker.add_chunk("b", "two")
    assert tracker.add_chunk("a", "one more") == " more"
    assert tracker.add_chunk("b", "two more") == " more"


@pytest.mark.parametrize("keywords", [{"mode": "guess"}, {"on_mismatch": "shrug"}])
def test_unknown_modes_are_refused_with_the_known_ones_named(keywords: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="use one of"):
        ChunkTracker(**keywords)  # type: ignore[arg-type]  # the point of the test


class SlowTracker:
    """The rules of DESIGN section 6 to the letter, two copies of the text and all."""

    def __init__(self, rule: OnMismatch) -> None:
        self.rule, self.complete, self.last = rule, "", ""

    def add(self, chunk: str) -> str:
        if not self.last:
            delta = chunk
        elif chunk.startswith(self.last):
            delta = chunk[len(self.last) :]
        elif self.last in chunk:
            delta = chunk.partition(self.last)[2]
        elif self.rule == "hold":
            return ""
        elif self.rule == "reset" and chunk:
            self.complete, delta = "", chunk
        elif self.rule == "stitch":
            overlap = max(k for k in range(len(chunk) + 1) if self.complete.endswith(chunk[:k]))
            delta = chunk[overlap:]
        else:
            delta = chunk
        if delta:
            self.complete += delta
            self.last = chunk
        return delta


texts = st.lists(st.text(alphabet="abé🙂", max_size=8), max_size=8)
rules = st.sampled_from(["emit", "hold", "stitch", "reset"])


@given(chunks=texts, rule=rules)
def test_snapshots_of_any_kind_against_the_slow_tracker(
    chunks: list[str], rule: OnMismatch
) -> None:
    slow, fast = SlowTracker(rule), TextTrack("snapshot", rule)
    for chunk in chunks:
        assert fast.add(chunk).text == slow.add(chunk)
        assert (fast.complete, fast.last) == (slow.complete, slow.last)


@given(chunks=texts, rule=rules, cut=st.integers(0, 8))
def test_a_restored_track_goes_on_as_if_nothing_had_happened(
    chunks: list[str], rule: OnMismatch, cut: int
) -> None:
    whole = TextTrack("snapshot", rule)
    first = TextTrack("snapshot", rule)
    expected = [whole.add(chunk) for chunk in chunks]
    deltas = [first.add(chunk) for chunk in chunks[:cut]]
    second = TextTrack("snapshot", rule)
    second.restore(first.complete, *first.remembered())
    deltas += [second.add(chunk) for chunk in chunks[cut:]]
    assert deltas == expected
    assert second.complete == whole.complete


@given(text=st.text(alphabet="ab", max_size=12), chunk=st.text(alphabet="ab", max_size=9))
def test_overlap_is_the_longest_suffix_that_the_chunk_starts_with(text: str, chunk: str) -> None:
    brute = max(k for k in range(len(chunk) + 1) if text.endswith(chunk[:k]))
    assert overlap_length(text, chunk) == brute


def test_threads_share_a_tracker() -> None:
    tracker = ChunkTracker(mode="append")

    def work(own: str) -> None:
        for _ in range(2_000):
            tracker.add_chunk(own, "x")
            tracker.add_chunk("shared", "y")

    threads = [threading.Thread(target=work, args=(f"t{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.get_complete_text("shared") == "y" * 16_000
    assert all(tracker.get_complete_text(f"t{i}") == "x" * 2_000 for i in range(8))
