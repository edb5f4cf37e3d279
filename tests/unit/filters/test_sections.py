import pytest

from riverdelta.core.errors import SettingsError
from riverdelta.core.filters import (
    SectionEnd,
    SectionPart,
    SectionRule,
    SectionStart,
    SectionText,
)
from riverdelta_workers.filters import Sections


def parts(*deltas: str, rules: tuple[SectionRule, ...] | None = None) -> list[SectionPart]:
    sections = Sections() if rules is None else Sections(rules)
    out = [part for delta in deltas for part in sections.feed(delta)]
    return [*out, *sections.finish()]


@pytest.mark.parametrize("name", ["think", "thinking"])
def test_reasoning_tags(name: str) -> None:
    assert parts(f"<{name}>Hm", f".</{name}>Yes < 3") == [
        SectionStart(name, "reasoning", "", f"<{name}>"),
        SectionText("Hm"),
        SectionText("."),
        SectionEnd(f"</{name}>"),
        SectionText("Yes < 3"),
    ]


def test_a_marker_is_held_back_until_it_is_one_or_not() -> None:
    sections = Sections()
    assert sections.feed("a <thi") == [SectionText("a ")]
    assert sections.held_text == "<thi"
    assert sections.feed("s>") == [SectionText("<this>")]
    assert sections.held_text == ""


def test_fenced_code() -> None:
    assert parts("Code:\n```python title=x\nprint(1)\n", "``\n```\nDone") == [
        SectionText("Code:\n"),
        SectionStart("code", "text", "python title=x", "```python title=x\n"),
        SectionText("print(1)\n"),
        SectionText("``\n"),
        SectionEnd("```"),
        SectionText("\nDone"),
    ]


def test_a_fence_ends_at_one_at_least_as_long() -> None:
    assert parts("````\n```\nx\n`````  \ny") == [
        SectionStart("code", "text", "", "````\n"),
        SectionText("```\nx\n"),
        SectionEnd("`````  "),
        SectionText("\ny"),
    ]


@pytest.mark.parametrize(
    "text", ["a ```js\nb", "    ```js\nb", "```a`b\nc", "``\nb", "use `x` < y <thin k>"]
)
def test_what_is_no_marker_stays_text(text: str) -> None:
    assert parts(text) == [SectionText(text)]


def test_nothing_nests() -> None:
    assert parts("```\n<think>\n```") == [
        SectionStart("code", "text", "", "```\n"),
        SectionText("<think>\n"),
        SectionEnd("```"),
    ]


def test_an_open_section_ends_with_the_chunk() -> None:
    assert parts("<think>Hm</thi") == [
        SectionStart("think", "reasoning", "", "<think>"),
        SectionText("Hm"),
        SectionText("</thi"),
        SectionEnd(""),
    ]
    assert parts("```py") == [SectionStart("code", "text", "py", "```py"), SectionEnd("")]


def test_rules_of_ones_own() -> None:
    rule = SectionRule(
        name="artifact",
        start='<artifact id="(?P<info>[^"]{0,40})">',
        end="</artifact>",
        kind="reasoning",
    )
    assert parts('x<artifact id="a1">body</artifact>', rules=(rule,)) == [
        SectionText("x"),
        SectionStart("artifact", "reasoning", "a1", '<artifact id="a1">'),
        SectionText("body"),
        SectionEnd("</artifact>"),
    ]


def test_what_may_be_a_marker_past_the_bound_is_text() -> None:
    rule = SectionRule(name="a", start="<a[^>]*>", end="</a>")
    text = "<a " + "x" * 300 + "> y"
    sections = Sections([rule])
    shown = "".join(
        part.text for char in text for part in sections.feed(char) if isinstance(part, SectionText)
    )
    assert shown == text
    assert parts(text, rules=(rule,)) == [SectionText(text)]


def test_a_fair_pattern_does_not_run_out_of_time_over_a_long_text() -> None:
    sections = Sections([SectionRule(name="a", start="[a-w]{1,50}[xy]", end="y")])
    text = "a" * 500_000
    shown = [*sections.feed(text), *sections.finish()]
    assert "".join(part.text for part in shown if isinstance(part, SectionText)) == text


def test_an_end_that_the_start_made_empty_is_none() -> None:
    """Else it would be everywhere."""
    rule = SectionRule(name="a", start=r"<(?P<tag>\w{0,9})>", end="(?P=tag)")
    assert parts("<>a</>", rules=(rule,)) == [
        SectionStart("a", "text", "", "<>"),
        SectionText("a</>"),
        SectionEnd(""),
    ]


def test_a_part_goes_on_where_its_rule_has_changed() -> None:
    before = Sections([SectionRule(name="a", start="<(?P<tag>a)>", end="</(?P=tag)>")])
    before.feed("<a>x")
    after = Sections([SectionRule(name="a", start="<(?P<name>a)>", end="</(?P=name)>")])
    after.load(before.dump())
    assert after.feed("y</>.") == [SectionText("y"), SectionEnd("</>"), SectionText(".")]


def test_an_empty_match_is_no_marker() -> None:
    assert parts("axb", rules=(SectionRule(name="a", start="(?=x)", end="y"),)) == [
        SectionText("axb")
    ]


def test_bad_rules_are_refused() -> None:
    with pytest.raises(SettingsError, match="no group"):
        Sections([SectionRule(name="a", start="<a>", end="(?P=b)")])
    with pytest.raises(SettingsError, match="one name"):
        Sections(
            [
                SectionRule(name="a", start="<a>", end="b"),
                SectionRule(name="a", start="<b>", end="b"),
            ]
        )
    with pytest.raises(SettingsError, match="pattern"):
        Sections([SectionRule(name="a", start="<a>", end="(")])
