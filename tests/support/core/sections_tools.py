"""Texts that sections cut, and a slow oracle for the cuts."""

import re

import hypothesis.strategies as st

from riverdelta.core.filters import SectionEnd, SectionPart, SectionStart, SectionText

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
