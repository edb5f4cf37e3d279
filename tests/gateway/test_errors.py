"""Errors have a code and a safe sentence; the rest is in the log, under the same id."""

import re

import pytest

from riverdelta import Settings
from riverdelta_gateway.routes.context import Context
from riverdelta_gateway.routes.table import ROUTES
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.gateway.clients import client


async def test_an_error_names_its_line_in_the_log_and_no_more(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(_: Context) -> None:
        raise ZeroDivisionError("password=hunter2")

    options = GatewaySettings(dev=True, port=0)
    routes = {**ROUTES, "/fails": fails}
    async with (
        gateway_server(settings, options, routes=routes) as gateway,
        client(gateway.url) as browser,
    ):
        answer = await browser.ask("/fails", {})
        assert answer["error"]["code"] == "INTERNAL_SERVER_ERROR"
        assert "hunter2" not in str(answer)
        found = re.search(r"id: ([0-9a-f]{8})", answer["error"]["message"])
        assert found is not None
        (record,) = [record for record in caplog.records if found[1] in record.getMessage()]
        assert record.exc_info is not None
        assert isinstance(record.exc_info[1], ZeroDivisionError)
        assert (await browser.ask("/chats/list", {}))["event"] == "chats"


@pytest.mark.parametrize(
    ("route", "payload", "why"),
    [
        ("/nothing", {}, "/chats/subscribe"),
        ("/chats/subscribe", {}, "chat_id must be a string"),
        ("/chats/subscribe", {"chat_id": "{x}"}, "valid id"),
        ("/chats/subscribe", {"chat_id": "c", "after": "here"}, "after must be a position"),
        ("/chats/stop", {"chat_id": "c", "message_id": 1}, "message_id must be a string"),
    ],
)
async def test_a_bad_request_says_what_is_wrong_with_it(
    gateway: Running, route: str, payload: dict[str, object], why: str
) -> None:
    async with client(gateway.url) as browser:
        error = (await browser.ask(route, payload))["error"]
    assert error["code"] == "BAD_REQUEST"
    assert why in error["message"]
