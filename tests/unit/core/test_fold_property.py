"""The fold, whatever comes and however it is batched."""

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.core.fold_tools import chunk, control, delta, entries, fold, start, view_of

content = st.one_of(
    st.text(max_size=6).map(lambda text: {"content": text}),
    st.text(max_size=6).map(lambda text: {"reasoning_content": text}),
    st.tuples(st.integers(0, 2), st.text(max_size=4)).map(
        lambda pair: {"tool_calls": [{"index": pair[0], "function": {"arguments": pair[1]}}]}
    ),
)


@given(deltas=st.lists(content, max_size=15), cuts=st.sets(st.integers(1, 17)))
def test_what_readers_end_with_does_not_depend_on_the_batches(
    deltas: list[dict[str, Any]], cuts: set[int]
) -> None:
    steps = [start("openai-chat"), *(chunk(delta(d)) for d in deltas), control("end")]
    whole = entries(steps)
    bounds = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    batches = [whole[a:b] for a, b in itertools.pairwise(bounds)]
    one_by_one = view_of(fold([[entry] for entry in whole])).messages
    assert view_of(fold(batches)).messages == one_by_one
    assert view_of(fold([whole])).messages == one_by_one
