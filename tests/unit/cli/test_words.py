"""What we say: plurals, other people's complaints, and never a password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from riverdelta import BrokerUnavailable, Settings
from riverdelta_cli.errors import CliError, explain
from riverdelta_cli.output.words import count, friendly, redacted
from riverdelta_cli.processes.servers import hint_at_up, settings_for
from riverdelta_gateway.settings import GatewaySettings


def test_one_is_no_plural() -> None:
    assert [count(number, "raw chunk") for number in (0, 1, 2)] == [
        "0 raw chunks",
        "1 raw chunk",
        "2 raw chunks",
    ]


def test_a_library_s_complaint_is_in_our_words() -> None:
    assert friendly("for 'x': Value error, 'y' is not one of z") == "for 'x': 'y' is not one of z"
    assert friendly("Input should be a valid integer, unable to") == "it must be a whole number"
    assert friendly("Value should have at least 32 items after validation, not 5") == (
        "it must have at least 32 characters"
    )


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("REDACT_RULES", "{", "RIVERDELTA_REDACT_RULES: it must be a JSON list"),
        ("REDACT", "perhaps", "RIVERDELTA_REDACT: it must be true or false"),
        (
            "SECTIONS",
            "[1",
            "RIVERDELTA_SECTIONS: it must be true or false, or it must be a JSON list",
        ),
        ("FILTER_AGENTS", '[{"name": "a"}]', "RIVERDELTA_FILTER_AGENTS[0].url: it is missing"),
        (
            "GATEWAY_ALLOWED_ORIGINS",
            "a",
            "RIVERDELTA_GATEWAY_ALLOWED_ORIGINS: it must be a JSON list",
        ),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_with_what_it_must_be(
    name: str, value: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"RIVERDELTA_{name}", value)
    with pytest.raises(ValidationError) as refused:
        (GatewaySettings if name.startswith("GATEWAY") else Settings)()
    assert str(explain(refused.value)) == f"cannot use {line}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host:6379/1", "redis://host:6379/1"),
        ("redis://user:pass@host:6379", "redis://***@host:6379"),
        ("redis://:a/b?c@d@host", "redis://***"),
        ("user:pass@host", "***@host"),
        ("redis://:pass", "redis://:***"),
        ("unix:///run/redis.sock?password=pass", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert redacted(url) == shown


@given(st.text(alphabet="a:/?@ #", max_size=8))
def test_no_password_is_ever_shown(noise: str) -> None:
    assert "SECRET" not in redacted(f"redis://user:{noise}SECRET@host")
    assert "SECRET" not in redacted(f"redis://host?password={noise}SECRET")


def test_a_url_that_cannot_be_used_says_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVERDELTA_REDIS_URL", "http://:pass@a")
    with pytest.raises(CliError, match=r"^cannot use RIVERDELTA_REDIS_URL 'http://\*\*\*@a': "):
        settings_for("http://:pass@a", None)
    with pytest.raises(CliError, match=r"^cannot use --redis-url 'redis://b:\*\*\*': "):
        settings_for("redis://b:port", None)


@pytest.mark.parametrize(
    ("url", "cause", "hinted"),
    [
        (None, ConnectionRefusedError(), True),
        (None, RuntimeError("wrong password"), False),
        ("redis://named", ConnectionRefusedError(), False),
    ],
)
def test_the_hint_is_for_those_whom_it_helps(
    url: str | None, cause: Exception, *, hinted: bool
) -> None:
    error = BrokerUnavailable("down")
    error.__cause__ = cause
    with pytest.raises(CliError if hinted else BrokerUnavailable) as refused, hint_at_up(url):
        raise error
    assert ("riverdelta up" in str(refused.value)) == hinted
