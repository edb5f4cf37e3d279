"""The parts of a text do not depend on its deltas, and rebuild it."""

import re

import hypothesis.strategies as st
from hypothesis import given, settings

from riverdelta.core.filters import SectionEnd, SectionPart, SectionStart, SectionText
from riverdelta_workers.filters import Sections

PIECES = [
    *(
        "<think>",
        "</think>",
        "<thinking>",
        "</thinking>",
        "<think",
        "<",
        ">",
        "</",
        "```",
        "````",
        "``",
    ),
    *("~", "`", "\n", "\n\n", " ", "   ", "    ", "py", "text ", "\r\n", "é", "x" * 300),
]
TEXT = st.lists(st.one_of(st.sampled_from(PIECES), st.text("<`\nt>", max_size=3)), max_size=14).map(
    "".join
)
CUTS = st.lists(st.integers(0, 6), min_size=1, max_size=6)


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


def merged(parts: list[SectionPart]) -> list[SectionPart]:
    out: list[SectionPart] = []
    for part in parts:
        if isinstance(part, SectionText):
            assert part.text
            if out and isinstance(out[-1], SectionText):
                part = SectionText(out.pop().text + part.text)  # type: ignore[union-attr]  # noqa: PLW2901
        out.append(part)
    return out


def oracle(text: str) -> list[SectionPart]:
    """Read the whole text at once, by stdlib re."""
    start = re.compile(
        r"(?P<tag><(?P<name>think|thinking)>)"
        r"|(?m:^) {0,3}(?P<fence>`{3,32})(?!`)(?P<info>[^`\n]{0,200})(?:\n|\Z)"
    )
    out, at = list[SectionPart](), 0
    while found := start.search(text, at):
        out.append(SectionText(text[at : found.start()]))
        fence = found["fence"]
        if fence:
            out.append(SectionStart("code", "text", found["info"].strip(), found.group()))
            end = re.compile(rf"(?m:^) {{0,3}}{fence}`{{0,32}}[ \t\r]{{0,16}}(?m:$)")
        else:
            out.append(SectionStart(found["name"], "reasoning", "", found.group()))
            end = re.compile(f"</{found['name']}>")
        closed = end.search(text, found.end())
        at = closed.end() if closed else len(text)
        out.append(SectionText(text[found.end() : closed.start() if closed else at]))
        out.append(SectionEnd(closed.group() if closed else ""))
    out.append(SectionText(text[at:]))
    return merged([part for part in out if part != SectionText("")])


@settings(max_examples=400)
@given(TEXT, CUTS)
def test_any_split_gives_the_parts_of_the_whole(text: str, sizes: list[int]) -> None:
    expected = oracle(text)
    assert run(text, [len(text) + 1]) == expected
    assert run(text, sizes, reload=True) == expected
    assert run(text, [1]) == expected


@settings(max_examples=200)
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
