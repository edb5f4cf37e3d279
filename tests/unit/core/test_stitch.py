"""Stitching: whatever the new text is and however it is split, what a slow reading of the rule says."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from riverdelta.core.stitch import Stitcher
from riverdelta.core.tracker import Delta
from tests.support.core.stitch_tools import split, stitched
from tests.support.drawing import examples


def read(delivered: str, pieces: list[str], *, ended: bool = False, reload: bool = False) -> str:
    """What a reader has after *pieces*; *reload*: another stitcher takes over at each."""
    text, stitcher = delivered, Stitcher(delivered, ended=ended)
    for piece in [*pieces, None]:
        delta = stitcher.finish() if piece is None else stitcher.add(piece)
        assert stitcher.settled or delta == Delta("")
        text = ("" if delta.reset else text) + delta.text
        if reload and not stitcher.settled:
            state = stitcher.dump()
            stitcher = Stitcher(delivered, ended=ended)
            stitcher.load(state)
    assert stitcher.settled
    return text


few = st.text(alphabet="ab", max_size=40)
"""Few letters, so that texts repeat themselves and each other in every way."""

repeats = st.builds(
    lambda text, at, end, more: (text, text[min(at, end) : max(at, end)] + more),
    st.text(alphabet="abc", max_size=60),
    st.integers(0, 60),
    st.integers(0, 60),
    few,
)


@settings(max_examples=examples(1_000))
@given(pair=st.one_of(st.tuples(few, few), repeats), cuts=st.sets(st.integers(1, 100)))
@example(pair=("xabcdefgh", "abcdefgh!"), cuts=set(range(10)))
@example(pair=("I think so. I think ", "I think not."), cuts=set())
@example(pair=("b" + "a" * 20, "a" * 12 + "c"), cuts=set(range(30)))
def test_any_new_text_in_any_split_and_over_any_take_over(
    pair: tuple[str, str], cuts: set[int]
) -> None:
    delivered, new = pair
    expected = stitched(delivered, new)
    assert read(delivered, [new]) == expected
    assert read(delivered, split(new, cuts)) == expected
    assert read(delivered, split(new, cuts), reload=True) == expected
    assert read(delivered, list(new)) == expected


@settings(max_examples=examples(300))
@given(pair=st.one_of(st.tuples(few, few), repeats), cuts=st.sets(st.integers(1, 100)))
def test_a_text_that_ended_is_the_same_again_or_void(pair: tuple[str, str], cuts: set[int]) -> None:
    delivered, new = pair
    assert read(delivered, split(new, cuts), ended=True, reload=True) == new
    held = Stitcher(delivered, ended=True)
    assert [held.add(piece) for piece in delivered] == [Delta("")] * len(delivered)
    assert held.finish() == Delta("")


@given(text=st.text(min_size=1), cuts=st.sets(st.integers(1, 40)), more=st.text())
def test_a_repeat_from_the_start_gives_only_what_is_new(
    text: str, cuts: set[int], more: str
) -> None:
    stitcher = Stitcher(text)
    out = [stitcher.add(piece) for piece in split(text + more, cuts)]
    assert "".join(delta.text for delta in out) == more
    assert not any(delta.reset for delta in out)


def test_what_is_held_costs_a_few_numbers() -> None:
    stitcher = Stitcher("x" * 100_000)
    stitcher.add("x" * 50_000)
    assert stitcher.dump() == [0, 50_000, 0]
