"""Who is let in, and what they may see."""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from pydantic import ValidationError
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from riverdelta import NotChatOwner, Producer, Settings, SettingsError
from riverdelta_gateway.auth import Authenticator
from riverdelta_gateway.close_codes import CloseCode
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.gateway.clients import client, view_of
from tests.support.gateway.processes import GatewayProcess
from tests.support.gateway.tokens import LIFE_S, SECRET, WITH_TOKENS, token
from tests.support.local_workers import local_workers
from tests.support.servers import DEADLINE_S

ODD_TIMES = (str(int(time.time()) + 600), 10**30, float("inf"), [1], True)
"""Values of ``exp`` that are no time; the first is one as a text."""


def connection(query: str = "", **headers: str) -> HTTPConnection:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": pairs, "query_string": query.encode()})


def test_a_token_comes_as_a_header_or_in_the_query() -> None:
    auth = Authenticator(WITH_TOKENS)
    for asked in (
        connection(authorization=f"Bearer {token('ann')}"),
        connection(f"token={token('ann')}"),
    ):
        identity = auth.identify(asked)
        assert identity.user == "ann"
        assert identity.expires_in_s is not None
        assert LIFE_S - 10 < identity.expires_in_s <= LIFE_S


@pytest.mark.parametrize(("claim", "offset_s"), [("iat", 10), ("nbf", 10), ("exp", -10)])
def test_a_clock_that_differs_by_seconds_does_no_harm(claim: str, offset_s: float) -> None:
    said: dict[str, Any] = {claim: time.time() + offset_s}
    asked = connection(f"token={token('ann', **said)}")
    identity = Authenticator(WITH_TOKENS).identify(asked)
    assert identity.user == "ann"
    assert identity.expires_in_s is not None
    assert identity.expires_in_s > 0


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param("", id="none"),
        pytest.param("x.y.z", id="junk"),
        pytest.param(token("ann", exp=time.time() - 60), id="expired"),
        pytest.param(token("ann", exp=None), id="for-ever"),
        pytest.param(token("ann", exp=str(int(time.time()) + 600)), id="exp-as-text"),
        pytest.param(token("ann", exp=10**30), id="exp-of-no-clock"),
        pytest.param(token("ann", exp=float("inf")), id="exp-infinite"),
        pytest.param(token("ann", exp=[1]), id="exp-as-list"),
        pytest.param(token("ann", exp=True), id="exp-as-truth"),
        pytest.param(token("ann", iat=time.time() + 4000), id="of-the-future"),
        pytest.param(token("ann", aud="others"), id="for-others"),
        pytest.param(token("ann", aud=None), id="for-anybody"),
        pytest.param(token("ann", sub=None), id="nobody"),
        pytest.param(token("a b {c}"), id="no-id"),
        pytest.param(token("ann", key="another secret of more than thirty-two bytes"), id="forged"),
        pytest.param(token("ann", key=None, algorithm="none"), id="unsigned"),
        pytest.param(token("ann", key=SECRET * 2, algorithm="HS512"), id="other-algorithm"),
    ],
)
def test_a_bad_token_is_nobodys(bad: str) -> None:
    with pytest.raises(RequestError) as refused:
        Authenticator(WITH_TOKENS).identify(connection(f"token={bad}"))
    assert refused.value.code == "UNAUTHORIZED"
    assert not bad or bad not in refused.value.message


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(public_exponent=65537, key_size=2048), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["RS256", "ES256", "EdDSA"],
)
def test_a_public_key_checks_with_its_own_algorithm_only(
    key: Any, algorithm: str, tmp_path: Path
) -> None:
    public = tmp_path / "key.pem"
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(pem)
    auth = Authenticator(GatewaySettings(token_public_key_file=public))
    good = token("ann", key=key, algorithm=algorithm)
    assert auth.identify(connection(f"token={good}")).user == "ann"
    with pytest.raises(RequestError):
        # The old trick: the public key as the secret of an HMAC.
        auth.identify(connection(f"token={token('ann', key=pem.hex())}"))
    private = tmp_path / "private.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for unusable in (private, tmp_path / "absent.pem"):
        with pytest.raises(SettingsError, match="public key"):
            Authenticator(GatewaySettings(token_public_key_file=unusable))


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (
            rsa.generate_private_key(public_exponent=65537, key_size=1024),  # noqa: S505  # to be refused
            "1024 bits is too short",
        ),
        (ec.generate_private_key(ec.SECP384R1()), "curve secp384r1 does not fit ES256"),
    ],
    ids=["short-rsa", "other-curve"],
)
def test_a_key_that_cannot_check_tokens_is_refused_at_the_start(
    key: Any, why: str, tmp_path: Path
) -> None:
    public = tmp_path / "key.pem"
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    public.write_bytes(pem)
    with pytest.raises(SettingsError, match=why):
        Authenticator(GatewaySettings(token_public_key_file=public))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "TOKEN_SECRET"),
        ({"dev": True, "host": "0.0.0.0"}, "loopback only"),
        ({"dev": True, "host": "::"}, "loopback only"),
        ({"dev": True, "token_secret": SECRET}, "token key"),
        ({"token_secret": SECRET, "token_public_key_file": "key.pem"}, "set either"),
    ],
)
def test_settings_that_would_let_everybody_in_are_refused(
    options: dict[str, Any], why: str
) -> None:
    with pytest.raises(SettingsError, match=why):
        Authenticator(GatewaySettings.model_validate(options))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValidationError):
        GatewaySettings.model_validate({"token_secret": "short"})


@pytest.mark.parametrize(
    ("options", "origin", "allowed"),
    [
        ({}, "http://chat.example.com", True),
        ({}, "http://evil.example.com", False),
        ({}, "null", False),
        ({"allowed_origins": ["https://a.example"]}, "https://a.example", True),
        ({"allowed_origins": ["https://a.example"]}, "http://a.example", False),
        ({"allowed_origins": ["https://a.example"]}, "https://a.example.evil", False),
        ({"allowed_origins": ["https://a.example"]}, "http://chat.example.com", True),
        ({"allowed_origins": ["HTTPS://A.example:8443/"]}, "https://a.example:8443", True),
        ({"allowed_origins": ["https://a.example:443"]}, "https://a.example", True),
        ({"allowed_origins": ["http://a.example:80/"]}, "http://a.example", True),
        ({"allowed_origins": ["http://[::1]:80"]}, "http://[::1]", True),
        ({"dev": True, "token_secret": None}, "http://localhost:3000", True),
        ({"dev": True, "token_secret": None}, "http://chat.example.com", False),
    ],
)
def test_pages_that_may(options: dict[str, Any], origin: str, *, allowed: bool) -> None:
    settings = GatewaySettings.model_validate({"token_secret": SECRET} | options)
    asked = connection(host="chat.example.com", origin=origin)
    assert Authenticator(settings).is_origin_allowed(asked) is allowed
    assert Authenticator(settings).is_origin_allowed(connection(host="chat.example.com"))


@pytest.mark.parametrize(
    "bad",
    [
        *("a.example", "https://a.example/page", "https://", "", "null", "https://a.example?x"),
        *(
            "https://ann@a.example",
            "https://a.example:",
            "https://a.example:0",
            "https://ä.example",
        ),
        *("https://a.example:99999", "https://[::1", "//a.example", "https://a.example//"),
    ],
)
def test_an_origin_that_no_page_has_is_refused_at_the_start(bad: str) -> None:
    with pytest.raises(ValidationError) as refused:
        GatewaySettings.model_validate({"dev": True, "allowed_origins": [bad]})
    assert refused.value.error_count() == 1


@pytest.mark.parametrize("bad", ["*", "https://*.example.com", "https://*"])
def test_an_origin_that_every_page_has_is_refused_with_a_sentence(bad: str) -> None:
    with pytest.raises(ValidationError, match="would let every page in: name each origin"):
        GatewaySettings.model_validate({"dev": True, "allowed_origins": [bad]})


async def test_a_foreign_page_is_refused_at_the_handshake(settings: Settings) -> None:
    async with gateway_server(settings, WITH_TOKENS) as running:
        with pytest.raises(InvalidStatus) as refused:
            async with client(running.url, f"?token={token('ann')}", origin="http://evil.example"):
                pass
        assert refused.value.response.status_code == 403


async def test_a_bad_token_gets_an_error_and_a_close_code_that_pages_can_read(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    bad = ["bad", *(token("ann", exp=exp) for exp in ODD_TIMES)]
    async with gateway_server(settings, WITH_TOKENS) as running:
        for shown in bad:
            url = f"{running.url.replace('http', 'ws')}/ws?token={shown}"
            async with connect(url) as socket:
                assert json.loads(await socket.recv())["error"]["code"] == "UNAUTHORIZED"
                await socket.wait_closed()
                assert socket.close_code == CloseCode.UNAUTHORIZED
            async with httpx2.AsyncClient() as session:
                answer = await session.get(f"{running.url}/chats/c?token={shown}")
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "UNAUTHORIZED"
    assert "Traceback" not in caplog.text


async def test_a_token_is_renewed_on_an_open_socket(settings: Settings) -> None:
    async with (
        gateway_server(settings, WITH_TOKENS) as running,
        client(running.url, f"?token={token('ann', exp=time.time() + 600)}") as ann,
    ):
        answer = await ann.ask("/token/renew", {"token": token("ann")})
        assert answer["event"] == "renewed"
        assert 600 < answer["payload"]["expires_in_s"] <= LIFE_S
        for refused in (token("bob"), "bad", token("ann", exp=ODD_TIMES[0])):
            answer = await ann.ask("/token/renew", {"token": refused})
            assert answer["error"]["code"] == "UNAUTHORIZED"
        assert (await ann.ask("/token/renew", {}))["error"]["code"] == "BAD_REQUEST"
        # A refused token changed nothing; one that soon runs out does.
        assert (await ann.ask("/chats/list", {}))["event"] == "chats"
        soon = await ann.ask("/token/renew", {"token": token("ann", exp=time.time() + 1)})
        assert soon["event"] == "renewed"
        _, code = await ann.until_closed()
        assert code == CloseCode.TOKEN_EXPIRED


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:1", 200), ("LOCALHOST:80", 200)),
        *(("evil.example", 403), ("evil.example:8000", 403), ("localhost.evil.example", 403)),
        *(("127.0.0.1.evil.example", 403), ("", 403), ("[::1", 403), ("10.0.0.1", 403)),
        *(("localhost@evil.example", 403), ("0.0.0.0:8000", 403), ("127.1", 403)),
    ],
)
async def test_without_tokens_only_names_of_this_machine_are_answered(
    gateway: Running, host: str, status: int
) -> None:
    """A page can point its own name at 127.0.0.1: then it is of the gateway's host to a browser."""
    async with httpx2.AsyncClient(headers={"Host": host}) as session:
        for path in ("/", "/page.js", "/healthz", "/chats/c", "/api/chat/c", "/nothing"):
            answer = await session.get(gateway.url + path)
            assert answer.status_code in ({403} if status == 403 else {200, 404}), path
            if status == 403:
                assert answer.json()["error"]["code"] == "UNAUTHORIZED"
        answer = await session.post(f"{gateway.url}/api/chat", json={})
        assert answer.status_code == (403 if status == 403 else 400)
        assert (await session.options(gateway.url)).status_code == (403 if status == 403 else 400)
    url = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(*url)
    writer.write(f"GET /ws HTTP/1.1\r\nHost: {host}{UPGRADE}{VERSION}\r\n\r\n".encode())
    line = await reader.readline()
    writer.close()
    assert line.startswith(b"HTTP/1.1 403" if status == 403 else b"HTTP/1.1 101")


UPGRADE = "\r\nUpgrade: websocket\r\nConnection: Upgrade"
VERSION = "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
PREFLIGHT = "\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST"
RAW = [
    *("GET / HTTP/1.1\r\nHost: h", "GET /nothing HTTP/1.1\r\nHost: h", "no HTTP at all"),
    *("POST / HTTP/1.1\r\nHost: h", "HEAD /chats/c HTTP/1.1\r\nHost: h"),
    f"GET /ws HTTP/1.1\r\nHost: h{UPGRADE}",
    f"GET /ws HTTP/1.1\r\nHost: h{UPGRADE}{VERSION}\r\nOrigin: http://x",
    f"GET /elsewhere HTTP/1.1\r\nHost: h{UPGRADE}{VERSION}",
    f"OPTIONS /api/chat HTTP/1.1\r\nHost: h{PREFLIGHT}",
]


@pytest.mark.parametrize("request_", RAW)
async def test_every_answer_is_taken_for_what_it_says_it_is(
    settings: Settings, request_: str
) -> None:
    options = {"token_secret": SECRET, "port": 0, "allowed_origins": ["https://a.example"]}
    async with gateway_server(settings, GatewaySettings.model_validate(options)) as running:
        reader, writer = await asyncio.open_connection(
            *running.url.removeprefix("http://").split(":")
        )
        writer.write(f"{request_}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        writer.close()
    assert head.count(b"x-content-type-options: nosniff") == 1, head


async def test_pages_of_allowed_origins_may_send_the_headers_of_older_sdks(
    settings: Settings,
) -> None:
    options = {"token_secret": SECRET, "port": 0, "allowed_origins": ["https://a.example"]}
    asks = {
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,cache-control,content-type,user-agent,"
        "x-requested-with",
    }
    async with (
        gateway_server(settings, GatewaySettings.model_validate(options)) as running,
        httpx2.AsyncClient() as session,
    ):
        answer = await session.options(f"{running.url}/api/chat", headers=asks)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == "https://a.example"
        foreign = asks | {"Origin": "https://b.example"}
        answer = await session.options(f"{running.url}/api/chat", headers=foreign)
        assert answer.status_code == 400
        assert "Access-Control-Allow-Origin" not in answer.headers


async def test_another_users_chat_looks_like_none_on_every_route(
    settings: Settings, producer: Producer
) -> None:
    others, none = "a-chat-of-another", "a-chat-that-is-no"
    routes = [
        *(("GET", path) for path in ("/chats/{}", "/chats/{}/events", "/api/chat/{}")),
        *(("GET", path) for path in ("/api/chat/{}/stream", "/chats/{}?after=e:1")),
        *(("POST", path) for path in ("/chats/{}/stop", "/api/chat/{}/stop")),
        *(("HEAD", path) for path in ("/chats/{}", "/chats/{}/events", "/api/chat/{}/stream")),
    ]
    frames: list[tuple[str, dict[str, Any]]] = [
        ("/chats/subscribe", {}),
        ("/chats/unsubscribe", {}),
        ("/chats/stop", {}),
        ("/chats/stop", {"message_id": "m"}),
        ("/chats/post", {"prompt": "x"}),
        ("/chats/post", {"prompt": "x", "message_id": "m"}),
        ("/chats/post", {"asset_id": "revenue", "asset_type": "metric"}),
    ]
    headers = {"Authorization": f"Bearer {token('bob')}"}
    async with (
        local_workers(settings),
        gateway_server(settings, WITH_TOKENS) as running,
        httpx2.AsyncClient(headers=headers) as session,
        client(running.url, f"?token={token('bob')}") as bob,
    ):
        async with producer.message(others, source="text", message_id="m", user="ann") as message:
            await message.push("for Ann")
        for method, path in routes:
            seen = []
            for chat in (others, none):
                answer = await session.request(method, running.url + path.format(chat))
                kept = {k: v for k, v in answer.headers.items() if k != "date"}
                seen.append((answer.status_code, kept, answer.text))
            assert seen[0] == seen[1], (method, path)
            assert seen[0][0] == (204 if path.endswith("stream") else 404)
        for route, payload in frames:
            answers = []
            for chat in (others, none):
                answer_frame = await bob.ask(route, {"chat_id": chat, **payload})
                answers.append(
                    json.dumps(answer_frame)
                    .replace(chat, "")
                    .replace(f'"request_id": {answer_frame["request_id"]}', "")
                )
            assert answers[0] == answers[1], route


async def test_a_chat_is_its_openers_and_nobody_elses(
    settings: Settings, producer: Producer
) -> None:
    async with (
        local_workers(settings),
        gateway_server(settings, WITH_TOKENS) as running,
        client(running.url, f"?token={token('ann')}") as ann,
        client(running.url, f"?token={token('bob')}") as bob,
    ):
        async with producer.message("c", source="text", message_id="m", user="ann") as message:
            await message.push("for Ann")
        with pytest.raises(NotChatOwner):
            await producer.message("c", source="text", message_id="n", user="bob").__aenter__()
        async with producer.message("nobodys", source="text") as message:
            await message.push("no user was named")
        await ann.subscribe("c")
        assert view_of(await ann.until_end()).text("m") == "for Ann"
        for route in ("/chats/subscribe", "/chats/stop"):
            for chat in ("c", "nobodys", "never-was"):
                answer = await bob.ask(route, {"chat_id": chat})
                assert answer["error"]["code"] == "NOT_FOUND", (route, chat)
                assert answer["error"]["message"] == "There is no such chat."
        chats = (await ann.ask("/chats/list", {}))["payload"]["chats"]
        assert [chat["chat_id"] for chat in chats] == ["c"]
        assert (await bob.ask("/chats/list", {}))["payload"]["chats"] == []


async def test_a_socket_ends_with_its_token(settings: Settings) -> None:
    async with (
        gateway_server(settings, WITH_TOKENS) as running,
        client(running.url, f"?token={token('ann', exp=time.time() + 1.5)}") as ann,
    ):
        assert (await ann.ask("/chats/list", {}))["error"] is None
        _, code = await ann.until_closed()
        assert code == CloseCode.TOKEN_EXPIRED


async def test_a_user_has_so_many_sockets_and_every_socket_so_many_chats(
    settings: Settings,
) -> None:
    limits = GatewaySettings(dev=True, port=0, max_sockets_per_user=2, max_chats_per_socket=2)
    async with gateway_server(settings, limits) as running:
        async with client(running.url) as first, client(running.url):
            async with client(running.url) as third:
                assert (await third.next())["error"]["code"] == "RATE_LIMITED"
                _, code = await third.until_closed()
                assert code == CloseCode.TOO_MANY_SOCKETS
            for chat in ("a", "b"):
                await first.subscribe(chat)
            answer = await first.ask("/chats/subscribe", {"chat_id": "c"})
            assert answer["error"]["code"] == "RATE_LIMITED"
        async with client(running.url) as again:
            assert (await again.ask("/chats/list", {}))["event"] == "chats"


async def test_posts_are_counted_over_all_gateways(settings: Settings) -> None:
    limits = GatewaySettings(dev=True, port=0, max_posts_per_minute=3)
    async with gateway_server(settings, limits) as one, gateway_server(settings, limits) as two:
        for running in (one, two, one):
            await running.services.post_limit.take("ann")
        for running in (one, two):
            with pytest.raises(RequestError) as refused:
                await running.services.post_limit.take("ann")
            assert refused.value.code == "RATE_LIMITED"
            assert refused.value.retry_after_s is not None
            assert 0 < refused.value.retry_after_s <= 20
        await one.services.post_limit.take("bob")


async def test_all_gateways_with_a_users_sockets_learn_of_the_users_messages(
    settings: Settings, producer: Producer
) -> None:
    async with (
        gateway_server(settings, WITH_TOKENS) as one,
        gateway_server(settings, WITH_TOKENS) as two,
        client(one.url, f"?token={token('ann')}") as ann,
        client(two.url, f"?token={token('bob')}") as bob,
    ):
        received: asyncio.Queue[tuple[str, str, str, str]] = asyncio.Queue()
        for name, running in (("one", one), ("two", two)):
            running.services.sockets.listen(
                lambda user, added, name=name: received.put_nowait((name, user, *added))  # type: ignore[misc]  # a default binds
            )
        for browser in (ann, bob):
            assert (await browser.ask("/chats/list", {}))["event"] == "chats"
        for user in ("ann", "carl", "bob"):
            await producer.message(
                f"of-{user}", source="text", message_id="m", user=user
            ).__aenter__()
        async with asyncio.timeout(DEADLINE_S):
            assert await received.get() == ("one", "ann", "of-ann", "m")
            assert await received.get() == ("two", "bob", "of-bob", "m")
        assert received.empty()


def test_no_token_is_ever_in_the_log(settings: Settings, tmp_path: Path) -> None:
    secret = {"RIVERDELTA_GATEWAY_TOKEN_SECRET": SECRET}
    good, bad = token("ann"), token("ann", exp=time.time() - 60)

    async def visit(url: str) -> None:
        for shown in (good, bad):
            async with connect(f"{url.replace('http', 'ws')}/ws?token={shown}") as socket:
                with contextlib.suppress(ConnectionClosed):
                    await socket.send('{"route": "/nothing"}')
                    await socket.recv()
            reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
            writer.write(f"GET /chats/x?token={shown} HTTP/1.0\r\n\r\n".encode())
            assert b"HTTP/1.1 40" in await reader.read()
            writer.close()

    with GatewayProcess(settings, tmp_path, **secret) as gateway:
        asyncio.run(visit(gateway.url))
        assert gateway.terminate() == 0
        assert good not in gateway.log
        assert bad not in gateway.log
        assert SECRET not in gateway.log
        assert "Traceback" not in gateway.log


async def test_without_tokens_too_a_post_needs_a_chat_that_is_there(
    gateway: Running, settings: Settings
) -> None:
    async with local_workers(settings), client(gateway.url) as browser:
        for more in ({}, {"message_id": "m"}):
            payload = {"chat_id": "never-was", "prompt": "x", **more}
            answer = await browser.ask("/chats/post", payload)
            assert answer["error"]["code"] == "NOT_FOUND"
            assert answer["error"]["message"] == "There is no such chat."
