"""No split shows a byte of a secret, or loses one of the other text."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from riverdelta_workers.filters import SHIPPED, Pattern
from riverdelta_workers.filters.redact import Redact
from tests.support.core.secrets_tools import SECRETS, outputs, redacted
from tests.support.drawing import examples

PROSE = st.text(alphabet="abe kr.,-_'@\n:059sSéя我", max_size=12)
NEAR = st.sampled_from(
    [
        *(
            "sk-",
            "sk-ant",
            "AKIA",
            "ey",
            "eyJ",
            "Bearer ",
            "-----BEGIN",
            "-----BEGIN X PRIVATE KEY",
        ),
        *("4111 1111 1111 1112", "1234567890123", "12", " ", "a@b", "x@y.zz", "task-oriented-ways"),
        *(
            "-----END RSA PRIVATE KEY-----",
            "ghp_",
            "gh",
            "@example.com",
            "a" * 70,
            "01 23 45 67 89 " * 4,
        ),
    ]
)
SECRET = st.sampled_from(sorted(SECRETS.values()))
CUT = st.tuples(SECRET, st.integers(0, 60)).map(lambda pair: pair[0][: pair[1]])
TEXT = st.lists(st.one_of(PROSE, NEAR, SECRET, CUT), max_size=6).map("".join)
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=8)


def split(text: str, sizes: list[int]) -> list[str]:
    """Cut *text* into pieces of *sizes*, over and over."""
    pieces: list[str] = []
    at = 0
    sizes = [*sizes, 1]
    while at < len(text):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(text[at : at + size])
        at += size
    return pieces


@settings(max_examples=examples(400))
@given(TEXT, SIZES)
@example("".join(SECRETS.values()), [0])
@example(" ".join(SECRETS.values()), [0])
def test_any_split_gives_what_one_go_over_the_whole_text_gives(text: str, sizes: list[int]) -> None:
    expected = redacted(text)
    assert "".join(outputs([text])) == expected
    shown = ""
    for out in outputs(split(text, sizes)):
        shown += out
        assert expected.startswith(shown)
    assert shown == expected


@settings(max_examples=examples(200))
@given(TEXT, SIZES)
def test_another_worker_at_every_delta_changes_nothing(text: str, sizes: list[int]) -> None:
    deltas = split(text, sizes)
    assert outputs(deltas, reload=True) == outputs(deltas)


@settings(max_examples=examples(150))
@given(
    st.lists(st.sampled_from(sorted(SECRETS)), min_size=1, max_size=3),
    st.sampled_from([" ", "\n", ", ", " (", '"']),
    SIZES,
)
def test_nothing_of_a_planted_secret_is_in_any_output(
    names: list[str], between: str, sizes: list[int]
) -> None:
    text = between.join(["Hi", *(SECRETS[name] for name in names), "bye"])
    shown = "".join(outputs(split(text, sizes)))
    assert shown == between.join(["Hi", *(f"[{name}]" for name in names), "bye"])


@pytest.mark.parametrize("left", SECRETS)
def test_two_secrets_that_touch(left: str) -> None:
    for right, secret in SECRETS.items():
        if right == "card" and SECRETS[left][-1].isdigit():
            continue  # a number inside a longer run of digits is no card number
        shown = "".join(outputs(list(SECRETS[left] + secret)))
        assert shown in {f"[{left}]", f"[{left}][{right}]", f"[{right}]"}


OWN = (
    Pattern("unbounded", r"\bkey=\w+;", 12),
    Pattern("ticket", r"T-\d+\b", 8, tail=r"\d", replacement="#"),
    Pattern("line", r"^#[ab]{0,9}$", 11),
    Pattern("ahead", r"ab(?!cd)", 4),
)
OWN_TEXT = st.lists(
    st.sampled_from(["key=", "aa", ";", "T-", "12", "#", "\n", "ab", "cd", "c", " ", "x"]),
    max_size=14,
).map("".join)


@settings(max_examples=examples(300))
@given(OWN_TEXT, SIZES)
def test_own_patterns_do_not_depend_on_the_split_either(text: str, sizes: list[int]) -> None:
    whole = "".join(outputs([text], OWN))
    assert "".join(outputs(split(text, sizes), OWN, reload=True)) == whole
    assert "".join(outputs(list(text), OWN + SHIPPED)) == "".join(outputs([text], OWN + SHIPPED))


@given(TEXT)
def test_the_state_is_json_and_bounded(text: str) -> None:
    redact = Redact()
    for char in text:
        redact.feed(char)
        state = redact.dump()
        assert json.loads(json.dumps(state)) == state
        assert len(state.get("held", "")) == redact.held <= redact.bound
        assert len(json.dumps(state)) < 4000
