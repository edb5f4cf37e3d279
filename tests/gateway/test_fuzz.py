"""Whatever a client sends: no traceback, no lost socket, and nothing that others notice."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.sync.client import ClientConnection, connect

from riverdelta import Settings
from riverdelta_gateway.routes.table import ROUTES
from tests.support.drawing import examples
from tests.support.gateway.processes import GatewayProcess
from tests.support.servers import DEADLINE_S, Server

ID = st.one_of(st.sampled_from(["calm", "c1", "", "a b", "{x}", "é"]), st.text(max_size=8))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=10,
)
PAYLOAD = st.dictionaries(
    st.sampled_from(["chat_id", "after", "message_id", "prompt", "asset_id", "asset_type"]),
    ID | JSON | st.sampled_from(["e:1", "00000000:0", "9" * 400, "e:" + "9" * 18]),
)
REQUEST = st.fixed_dictionaries(
    {"route": st.sampled_from([*sorted(ROUTES), "/", ""]) | JSON, "payload": PAYLOAD | JSON},
    optional={"request_id": JSON, "extra": JSON},
)
FRAME = st.one_of(
    REQUEST.map(json.dumps),
    REQUEST.map(json.dumps),
    REQUEST.map(lambda request: json.dumps(request).encode()),
    JSON.map(json.dumps),
    st.text(),
    st.binary(),
    st.just("[" * 5000),
    st.just(json.dumps({"route": "/chats/list", "payload": {"x": "y" * 300_000}})),
)


@dataclass
class Target:
    gateway: GatewayProcess
    bystander: ClientConnection


@pytest.fixture(scope="module")
def target(gateway_redis: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    settings = Settings(redis_url=gateway_redis.url, key_prefix=f"f{secrets.token_hex(4)}")
    with (
        GatewayProcess(settings, tmp_path_factory.mktemp("fuzz"), "--dev") as gateway,
        connect(socket_url(gateway)) as bystander,
    ):
        yield Target(gateway, bystander)


def socket_url(gateway: GatewayProcess) -> str:
    return gateway.url.replace("http", "ws") + "/ws"


def answers(connection: ClientConnection) -> bool:
    """Whether a socket still answers, in its turn."""
    mark = secrets.token_hex(8)
    connection.send(json.dumps({"route": "/chats/list", "payload": {}, "request_id": mark}))
    while True:
        frame = json.loads(connection.recv(timeout=DEADLINE_S))
        assert frame["error"] is None or frame["error"]["code"] in {
            "BAD_REQUEST",
            "NOT_FOUND",
            "RATE_LIMITED",
        }, frame
        if frame.get("request_id") == mark:
            return bool(frame["event"] == "chats")


@given(st.lists(FRAME, max_size=12))
@hypothesis_settings(max_examples=examples(150))
def test_any_frames_in_any_order(target: Target, frames: list[str | bytes]) -> None:
    with connect(socket_url(target.gateway), max_size=None) as connection:
        for frame in frames:
            connection.send(
                frame.encode("utf-8", "replace").decode() if isinstance(frame, str) else frame
            )
        assert answers(connection)


def test_nobody_else_noticed(target: Target) -> None:
    assert answers(target.bystander)
    assert "Traceback" not in target.gateway.log
    assert " ERROR " not in target.gateway.log
    assert len(target.gateway.log.splitlines()) == 1, target.gateway.log


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True), 1007, id="no-utf8"),
        pytest.param(Frame(Opcode.TEXT, b" " * 1_100_000).serialize(mask=True), 1009, id="huge"),
        pytest.param(b"\xff\xff\xff\xff", 1002, id="no-frame"),
        pytest.param(Frame(Opcode.TEXT, b"{}").serialize(mask=False), 1002, id="no-mask"),
        pytest.param(Frame(Opcode.CLOSE, b"\x03\xe8").serialize(mask=True), 1000, id="close"),
    ],
)
def test_what_is_no_websocket_ends_with_the_protocols_own_code(
    target: Target, wire: bytes, code: int
) -> None:
    with connect(socket_url(target.gateway)) as connection:
        connection.socket.sendall(wire)
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=DEADLINE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
    test_nobody_else_noticed(target)
