"""The parts of a text do not depend on its deltas, and rebuild it."""

from hypothesis import given, settings

from riverdelta.core.filters import SectionPart, SectionText
from riverdelta_workers.filters import Sections
from tests.support.core.sections_tools import CUTS, TEXT, merged, oracle
from tests.support.drawing import examples


def run(text: str, sizes: list[int], *, reload: bool = False) -> list[SectionPart]:
    """All parts, neighbouring texts merged."""
    sections, out, at, turn = Sections(), list[SectionPart](), 0, 0
    while at < len(text):
        size = [*sizes, 1][turn % (len(sizes) + 1)]
        out += sections.feed(text[at : at + size])
        assert len(sections.held_text) <= sections.bound
        at, turn = at + size, turn + 1
        if reload:
            state = sections.dump()
            sections = Sections()
            sections.load(state)
            assert sections.dump() == state
    return merged([*out, *sections.finish()])


@settings(max_examples=examples(400))
@given(TEXT, CUTS)
def test_any_split_gives_the_parts_of_the_whole(text: str, sizes: list[int]) -> None:
    expected = oracle(text)
    assert run(text, [len(text) + 1]) == expected
    assert run(text, sizes, reload=True) == expected
    assert run(text, [1]) == expected


@settings(max_examples=examples(200))
@given(TEXT, CUTS)
def test_texts_and_markers_rebuild_the_input(text: str, sizes: list[int]) -> None:
    parts = run(text, sizes)
    assert (
        "".join(part.text if isinstance(part, SectionText) else part.marker for part in parts)
        == text
    )


@given(TEXT, CUTS)
def test_nothing_that_is_not_certain_was_shown(text: str, sizes: list[int]) -> None:
    sections, shown = Sections(), list[SectionPart]()
    expected = oracle(text)
    for char in text:
        shown += sections.feed(char)
        so_far = merged(shown)
        if so_far:
            last = len(so_far) - 1
            assert so_far[:last] == expected[:last]
            one, whole = so_far[last], expected[last]
            assert one == whole or (
                isinstance(one, SectionText)
                and isinstance(whole, SectionText)
                and whole.text.startswith(one.text)
            )
