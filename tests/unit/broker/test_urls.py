"""URLs that name several servers, and what is said of those that cannot be used."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import AskError, MovedError, ResponseError, TryAgainError

from riverdelta import Settings, SettingsError
from riverdelta.broker.client import Client, name_of
from riverdelta.broker.redis.cluster import Redirect, redirect_of
from riverdelta.broker.redis.cluster_executor import key_of
from riverdelta.broker.redis.urls import Address, several


def test_a_url_of_one_server_is_none_of_these() -> None:
    assert several("redis://host:1/2") is None


def test_a_cluster() -> None:
    url = several("rediss+cluster://ann:p%40ss@one:7000,[::1]:7001,three?ssl_cert_reqs=none")
    assert url is not None
    assert (url.kind, str(url)) == ("cluster", "cluster one:7000,[::1]:7001,three:6379")
    assert url.addresses == (Address("one", 7000), Address("::1", 7001), Address("three", 6379))
    assert url.server(Address("10.0.0.1", 9)) == "rediss://ann:p%40ss@10.0.0.1:9?ssl_cert_reqs=none"


def test_sentinels() -> None:
    url = several(
        "redis+sentinel://:pass@one,two:5/main/3?sentinel_username=sam&sentinel_password=p%2F&ssl_ca_certs=f"
    )
    assert url is not None
    assert (url.kind, url.service) == ("sentinel", "main")
    assert str(url) == "main at sentinels one:26379,two:5"
    assert url.server(Address("s", 1)) == "redis://:pass@s:1/3?ssl_ca_certs=f"
    assert url.sentinel(Address("s", 1)) == "redis://sam:p%2F@s:1?ssl_ca_certs=f"


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("redis+cluster://", r"redis\+cluster://\[\[USER\]:PASSWORD@\]HOST"),
        ("redis+cluster://:SECRET@", "HOST"),
        ("redis+cluster://:SECRET@a:port", "HOST"),
        ("redis+cluster://:SECRET@a,,b", "HOST"),
        ("redis+cluster://a/1", "HOST"),
        ("redis+sentinel://:SECRET@a", "/SERVICE"),
        ("redis+sentinel://:SECRET@a/main/x", "/SERVICE"),
        ("redis+nothing://:SECRET@a", r"redis\+cluster://"),
        ("redis://:SECRET@a:SECRET", "redis://"),
        ("http://:SECRET@a", "redis://"),
    ],
)
def test_one_that_cannot_be_used_says_what_it_must_be(url: str, form: str) -> None:
    with pytest.raises(SettingsError, match=rf"^Redis URL cannot be used: .*{form}") as caught:
        name_of(url)
    assert "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None


@given(
    st.sampled_from(["redis", "redis+cluster", "redis+sentinel"]),
    st.text(alphabet="ab:/?@ #,[]%", max_size=12),
)
def test_no_password_is_ever_named(scheme: str, noise: str) -> None:
    url = f"{scheme}://user:{noise}SECRET@host/main"
    try:
        said = name_of(url)
    except SettingsError as error:
        said = str(error)
    assert "SECRET" not in said
    assert "SECRET" not in repr(error_free(url))


def error_free(url: str) -> object:
    try:
        return several(url)
    except SettingsError:
        return None


@pytest.mark.parametrize("queue_url", [None, "redis+cluster://other"])
def test_a_cluster_needs_a_queue_elsewhere(queue_url: str | None) -> None:
    settings = Settings(redis_url="redis+cluster://a", queue_url=queue_url)
    with pytest.raises(SettingsError, match=r"set RIVERDELTA_QUEUE_URL .* to a plain Redis"):
        Client(settings)


def of_redis_py(kind: Any, text: str) -> ResponseError:
    """As redis-py makes it where it reads for a cluster; these classes have no types."""
    error: ResponseError = kind(text)
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ResponseError("MOVED 3999 10.0.0.1:6381"),
            Redirect("MOVED", 3999, Address("10.0.0.1", 6381)),
        ),
        (ResponseError("ASK 3999 ::1:6381"), Redirect("ASK", 3999, Address("::1", 6381))),
        (ResponseError("MOVED 1 :6381"), Redirect("MOVED", 1, Address("asked", 6381))),
        (ResponseError("TRYAGAIN Multiple keys request"), Redirect("TRYAGAIN")),
        (ResponseError("CLUSTERDOWN Hash slot not served"), Redirect("CLUSTERDOWN")),
        (ResponseError("WRONGTYPE no"), None),
        (ResponseError("ASKING is no answer"), None),
        (of_redis_py(TryAgainError, "Multiple keys request"), Redirect("TRYAGAIN")),
        (
            of_redis_py(MovedError, "3999 10.0.0.1:6381"),
            Redirect("MOVED", 3999, Address("10.0.0.1", 6381)),
        ),
        (
            of_redis_py(AskError, "3999 10.0.0.1:6381"),
            Redirect("ASK", 3999, Address("10.0.0.1", 6381)),
        ),
    ],
)
def test_what_a_node_says_instead(error: ResponseError, said: Redirect | None) -> None:
    assert redirect_of(error, Address("asked", 1)) == said


@pytest.mark.parametrize(
    "command",
    [
        ("HGET", "k", "f"),
        ("EVALSHA", "sha", 2, "k", "l", "arg"),
        ("XREAD", "COUNT", 5, "STREAMS", "k", "0-0"),
        ("MEMORY", "USAGE", "k"),
    ],
)
def test_the_key_of_a_command(command: tuple[str | int, ...]) -> None:
    assert key_of(command) == "k"
