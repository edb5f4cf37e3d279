import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.errors import SettingsError
from riverdelta_workers.filters import SHIPPED, Pattern, Redact, RedactRule, card_numbers
from riverdelta_workers.filters.partial import Probe
from riverdelta_workers.filters.patterns import DEFAULT_BUDGET_S, SLICE
from tests.support.core.secrets_tools import SECRETS, card_length, outputs
from tests.support.drawing import examples


def redact(text: str, *patterns: Pattern) -> str:
    """All of *text* at once and one character at a time; both must be the same."""
    chosen = patterns or SHIPPED
    whole = "".join(outputs([text], chosen))
    assert "".join(outputs(list(text), chosen, reload=True)) == whole
    return whole


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("around", ["{}", 'Use "{}" now.', "我{}\n"])
def test_every_shipped_secret_is_replaced_by_its_name(name: str, around: str) -> None:
    assert redact(around.format(SECRETS[name])) == around.format(f"[{name}]")


@pytest.mark.parametrize(
    "text",
    [
        "Plain prose, with 12 numbers (3.5 of them), e-mail @ work, react@18.2.0 and a_b-c.",
        "task-oriented-dialogue-systems are risk-averse-and-very-slow",
        "4111 1111 1111 1112 and 1234567890123 fail the check; 41111111111111111111111 is too long",
        "The bearer of this; Bearer token; sk-short; AKIA; eyJ; xoxb-1; ghp_; -----BEGIN CERTIFICATE-----",
        "中文没有空格但是也要马上出来。不能等到句号。",
    ],
)
def test_what_is_no_secret_comes_out_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_plain_words_go_out_at_their_end() -> None:
    filter_ = Redact()
    assert [
        filter_.feed(delta) for delta in ["Hel", "lo ", "wor", "ld, ", "bye!\n", "中文", "x"]
    ] == [
        "",
        "Hello ",
        "",
        "world, ",
        "bye!\n",
        "中文",
        "",
    ]
    assert filter_.held == 1
    assert filter_.finish() == "x"


def test_the_replacement_goes_out_while_the_secret_is_still_growing() -> None:
    filter_ = Redact()
    assert filter_.feed("my key sk-ant-api03-" + "a1B2c3D4" * 2) == "my key "
    assert filter_.feed("e5F6g7H8" * 50) == "[anthropic_key]"
    assert filter_.feed("more-of-it") == ""
    assert filter_.held <= 64  # of an address, maybe
    assert filter_.feed(". Next") == ". "
    assert filter_.finish() == "Next"
    assert filter_.counts == {"anthropic_key": 1}


def test_a_key_block_without_an_end_is_swallowed_to_the_chunks_end() -> None:
    filter_ = Redact()
    assert filter_.feed("a\n-----BEGIN PRIVATE KEY-----\n") == "a\n[private_key]"
    for _ in range(100):
        assert (
            filter_.feed("-----END PUBLIC KEY-----MIIE alice@example.com 4111111111111111\n") == ""
        )
        assert filter_.held <= filter_.bound
    assert filter_.finish() == ""
    assert len(str(filter_.dump())) < 2000


def test_a_key_block_ends_at_its_own_end_only() -> None:
    block = SECRETS["private_key"]
    assert redact(f"{block}\nrest {block}") == "[private_key]\nrest [private_key]"


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("4111111111111111", 16),
        ("4111 1111 1111 1111 12", 19),
        ("4222222222222", 13),
        ("4222222222223", 0),
        ("6304000000000000000", 19),
        ("4111-1111-1111-1112", 0),
    ],
)
def test_card_numbers(text: str, length: int) -> None:
    assert card_numbers.find_card(text, 0) == ((0, length) if length else None)


def test_of_two_that_begin_together_the_longer_head_names_the_secret() -> None:
    short, long = Pattern("short", "ab", 2), Pattern("long", "abc", 3)
    assert redact("xabcd", short, long) == "x[long]d"
    assert redact("xabd", short, long) == "x[short]d"
    same = Pattern("same", "a.c", 3)
    assert redact("xabcd", same, long) == "x[same]d"
    later = Pattern("later", "bcd", 3)
    assert redact("xabcde", short, later) == "x[short]e"


def test_rules_of_ones_own() -> None:
    ticket = RedactRule(name="ticket", expression=r"\bT-\d{1,6}\b", replacement="T-?", max_length=9)
    assert (
        redact("T-1 T-123456 T-1234567 xT-1", ticket.pattern(), *SHIPPED)
        == "T-? T-? T-1234567 xT-1"
    )
    line = RedactRule(name="line", expression=r"^secret: [a-z]{0,20}$", max_length=30)
    assert (
        redact("secret: ab\nno secret: cd\nsecret: ef", line.pattern())
        == "[line]\nno secret: cd\n[line]"
    )


def test_where_a_long_delta_is_looked_through_in_parts_does_not_matter() -> None:
    behind = Pattern("own", "(?<!x)ab", 3)
    assert redact("zzzxab zzzzzzz", behind) == "zzzxab zzzzzzz"
    assert redact("zzzzab zzzzzzz", behind) == "zzzz[own] zzzzzzz"
    bounded = Pattern("own", r"k\w+;", 5)
    assert redact("kaaa; zzzzzzz", bounded) == "[own] zzzzzzz"
    assert redact("kaaaa; zzzzzzz", bounded) == "[own]"


def test_a_candidate_past_its_bound_hides_what_follows() -> None:
    open_ended = Pattern("own", r"key=\w+;", 10)
    assert redact("a key=ab; key=0123456789abcdef; z", open_ended) == "a [own] [own]"
    with_tail = Pattern("own", r"key=\w+;", 10, tail=r"\w")
    assert redact("a key=0123456789abcdef; z", with_tail) == "a [own]; z"
    far = Pattern("own", "k", 1, tail="a(?=a{9}b)")
    assert redact("x kaaaaaaaaaaac k z k z", far) == "x [own]"
    filter_ = Redact([open_ended])
    filter_.feed("key=0123456789abcdef")
    assert filter_.counts == {"overlong:own": 1, "own": 1}


def test_a_pattern_that_overruns_its_budget_hides_all_that_it_has_not_settled() -> None:
    slow = Pattern("slow", r"(?:a|a)+b", 4000, budget_s=0.01)
    filter_ = Redact([slow])
    assert filter_.feed("fine ") == "fine "
    assert filter_.feed("a" * 60 + "c secret") == "[slow]"
    assert filter_.feed(" more secret") == ""
    other = Redact([slow])
    other.load(filter_.dump())
    assert other.feed("even more") == ""
    assert other.finish() == ""
    assert other.counts == {"timeout:slow": 1, "slow": 1}


@pytest.mark.parametrize(
    "expression",
    [
        *(
            "",
            "a*",
            "(",
            r"a\Z",
            r"\Aa",
            r"\Ga",
            r"a\Kb",
            r"\X",
            "(?<=ab)c",
            "(?<!a|b)c",
            "a{e<=1}",
        ),
        *("(?r)ab", "(?b:ab)", "(?x)a b", "a(*SKIP)b", r"\L<names>", "{"),
    ],
)
def test_expressions_that_cannot_be_decided_while_text_arrives_are_refused(expression: str) -> None:
    with pytest.raises(SettingsError, match="pattern"):
        RedactRule.model_construct(
            name="own", expression=expression, replacement="", max_length=9, tail=None, budget_s=0.1
        ).pattern()


@pytest.mark.parametrize(
    "expression",
    [
        r"[\b]a",
        r"(?<![\w-])a",
        r"(?<=\d)a",
        r"\p{Lu}{3}",
        "(?i)ab",
        r"(?P<x>a)(?P=x)",
        "[[:digit:]]{2}",
    ],
)
def test_expressions_that_can_are_taken(expression: str) -> None:
    pattern = RedactRule(name="own", expression=expression).pattern()
    assert redact("no match: ~", pattern) == "no match: ~"


def test_an_empty_match_hides_nothing() -> None:
    assert redact("axbx", Pattern("own", "(?=x)", 3)) == "axbx"


def test_two_patterns_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match="one name"):
        Redact([Pattern("a", "a", 1), Pattern("a", "b", 1)])


def test_no_patterns_hold_nothing_back() -> None:
    filter_ = Redact([])
    assert filter_.feed("anything") == "anything"
    assert filter_.bound == filter_.held == 0


HOSTILE = (
    "1-",
    "1 ",
    "1",
    "ghp_",
    "sk-",
    "a@b.cc ",
    "a@a.",
    "a.",
    "eyJ",
    "Bearer ",
    "-----BEGIN ",
    "4222222222222 ",
    "ghp_" + "A" * 20 + " ",
)
"""What repeats the beginning of a secret, or a secret, over and over."""


class CountedSearches:
    """Counts the characters that `Probe` is asked to look at, and the most of one search."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = self.longest = 0
        for name in ("find", "undecided", "match"):
            monkeypatch.setattr(Probe, name, self._counted(getattr(Probe, name)))

    def _counted(self, search: Any) -> Any:
        def counted(probe: Probe, text: str, at: int) -> Any:
            self.calls += 1
            self.longest = max(self.longest, len(text) - at)
            return search(probe, text, at)

        return counted

    def calls_for(self, text: str) -> int:
        self.calls = 0
        filter_ = Redact()
        filter_.feed(text)
        filter_.finish()
        return self.calls


@pytest.mark.parametrize("unit", HOSTILE)
def test_no_search_is_long_and_their_number_is_linear(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search holds the interpreter; however long the text, each looks at a slice and what was held."""
    searches = CountedSearches(monkeypatch)
    once, twice = (searches.calls_for(unit * (size // len(unit))) for size in (20_000, 40_000))
    assert twice <= 2.2 * once + 20
    assert searches.longest <= SLICE + Redact().bound + 1


@pytest.mark.parametrize("unit", HOSTILE)
def test_slices_change_nothing(unit: str) -> None:
    text = unit * (3 * SLICE // len(unit) + 7)
    pieces = [text[at : at + 1000] for at in range(0, len(text), 1000)]
    assert "".join(outputs([text], SHIPPED)) == "".join(outputs(pieces, SHIPPED))


def test_each_shipped_pattern_has_a_time_budget() -> None:
    assert {pattern.budget_s for pattern in SHIPPED} == {DEFAULT_BUDGET_S}


@pytest.mark.parametrize("unit", ["1-", "1 ", "4111 1111 1111 1111 ", "0", "12-"])
def test_digits_are_read_as_often_in_long_text_as_in_short(
    unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever numbers begin and end at them: a card number may begin and end at every group."""

    class CountedSummands(dict[str, tuple[int, int]]):
        reads = 0

        def __getitem__(self, digit: str) -> tuple[int, int]:
            self.reads += 1
            return super().__getitem__(digit)

    summands = CountedSummands(card_numbers.SUMMANDS)
    monkeypatch.setattr(card_numbers, "SUMMANDS", summands)

    def reads(length: int) -> int:
        text, at, summands.reads = unit * (length // len(unit)), 0, 0
        while (found := card_numbers.find_card(text, at)) is not None:
            at = found[1]
        return summands.reads

    assert reads(20_000) <= 3 * 20_000
    assert reads(40_000) <= 2.1 * reads(20_000) + 100


@settings(max_examples=examples(1000))
@given(st.from_regex(r"[0-9 -]?(?:[ -]?[0-9]){10,40}[0-9 -]*", fullmatch=True, alphabet="0134 -"))
def test_the_card_search_agrees_with_a_slow_oracle(text: str) -> None:
    assert card_numbers.find_card(text, 0) == oracle_card(text)


def oracle_card(text: str) -> tuple[int, int] | None:
    """Try every place where a candidate matches, and every end of each."""
    candidate = re.compile(r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])")
    for at in range(len(text)):
        match = candidate.match(text, at)
        if match is not None and (length := card_length(match.group())):
            return at, at + length
    return None
