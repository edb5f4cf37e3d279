"""The AI SDK's own client, in Node, against a whole gateway: `make test-node` installs it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from riverdelta import Settings, Subscriber
from riverdelta_gateway.routes.ai_sdk import UIMessageStream
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.gateway.ai_sdk_client import fold_parts
from tests.support.gateway.local_turns import local_turns
from tests.support.local_workers import local_workers

CHAT = "aB3dE6gH9jK2mN5p"
FOLDER = Path(__file__).with_name("node")
NAMES = {"text", "reasoning"}

pytestmark = pytest.mark.skipif(
    not (FOLDER / "node_modules" / "ai").exists(),
    reason="needs the npm package ai: make test-node",
)


async def run_in_node(gateway: Running, scenario: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        *("node", str(FOLDER / "chat.mjs"), gateway.url, scenario, CHAT),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def reply_in(subscriber: Subscriber, message_id: str) -> list[dict[str, Any]]:
    """What the chat itself says of a message, as parts of a UI message."""
    stream = UIMessageStream(message_id)
    folded = fold_parts(stream.apply(await subscriber.snapshot(CHAT)))
    return [comparable(part) for part in folded["parts"]]


def comparable(part: dict[str, Any]) -> dict[str, Any]:
    """What the reply says, without the client's own notes on how it came."""
    if part["type"] in NAMES:
        return {"type": part["type"], "text": part["text"], "state": part["state"]}
    if part["type"].startswith("tool-"):
        return {name: part.get(name) for name in ("type", "input", "output")}
    return {"type": part["type"], "data": part["data"]}


def parts_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [comparable(part) for part in message["parts"] if part["type"] != "step-start"]


async def test_a_whole_turn(gateway: Running, settings: Settings, subscriber: Subscriber) -> None:
    async with local_workers(settings), local_turns(settings, backend="scripted"):
        result = await run_in_node(gateway, "turn")
        reply = await reply_in(subscriber, result["message"]["id"])
    assert parts_of(result["message"]) == reply
    assert len(reply) == 9
    assert set(result["types"]) == {
        *("start", "start-step", "finish-step", "finish"),
        *("text-start", "text-delta", "text-end"),
        *("reasoning-start", "reasoning-delta", "reasoning-end"),
        *("tool-input-start", "tool-input-delta", "tool-input-available", "tool-output-available"),
        *("data-title", "data-plan", "data-metric", "data-search_data_catalog"),
    }


async def test_a_reconnect_in_the_middle_and_after_the_end(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        local_workers(settings),
        local_turns(settings, backend="scripted", scripted_pace_ms=3),
    ):
        result = await run_in_node(gateway, "reconnect")
        reply = await reply_in(subscriber, result["message"]["id"])
    assert result["seen"] >= 5
    assert parts_of(result["message"]) == reply
    assert len(reply) == 9
    assert parts_of(result["after"]) == reply  # it ended a moment ago
    assert parts_of(result["loaded"]) == reply


async def test_a_chat_goes_on_and_a_reply_is_generated_again(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings):
        result = await run_in_node(gateway, "chat")
        kept = [m["message"] for m in (await subscriber.snapshot(CHAT)).data["messages"]]
    outcome = result["outcome"]
    said = "user: One|assistant: One "
    assert result["second"]["parts"][-1]["text"] == said
    last = outcome["messages"][-1]
    assert last["parts"][-1]["text"] == said
    assert last["id"] != result["second"]["id"]
    assert [m["role"] for m in outcome["messages"]] == ["user", "assistant"] * 2
    assert [m["id"] for m in outcome["messages"] if m["role"] == "assistant"] == kept
    assert (outcome["status"], outcome["error"]) == ("ready", None)
    assert result["afterResume"] == outcome


async def test_a_stop_on_a_resumed_stream(
    gateway: Running, settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings):
        result = await run_in_node(gateway, "stop")
        (message,) = (await subscriber.snapshot(CHAT)).data["messages"]
    assert message["status"] == "stopped"
    assert result["first"]["ends"] == [{"isAbort": True, "isDisconnect": False, "isError": False}]
    for chat in (result["second"], result["third"]):
        user, assistant = chat["messages"]
        assert (chat["status"], chat["error"]) == ("ready", None)
        assert (user["role"], assistant["id"]) == ("user", message["message"])
        assert parts_of(assistant) == [{"type": "text", "text": "Some words ", "state": "done"}]


async def test_an_error_is_the_chats_error(gateway: Running, settings: Settings) -> None:
    async with local_workers(settings), local_turns(settings):
        outcome = (await run_in_node(gateway, "error"))["outcome"]
    assert outcome["status"] == "error"
    assert outcome["error"].startswith("The model is not well. The id of this error is ")
    assert parts_of(outcome["messages"][-1])[0]["text"] == "Words "


async def test_a_gateway_that_ends_in_mid_reply_is_an_error_and_no_whole_reply(
    settings: Settings, subscriber: Subscriber
) -> None:
    async with local_workers(settings), local_turns(settings):
        async with gateway_server(settings, GatewaySettings(dev=True, port=0)) as running:
            asking = asyncio.create_task(run_in_node(running, "cut"))
            async with asyncio.timeout(30):
                async for event in subscriber.events(CHAT):
                    if event.type == "chunk.delta" and event.data["text"].startswith("words"):
                        break
        outcome = (await asking)["outcome"]
    assert outcome["status"] == "error"
    assert outcome["error"].startswith("The connection to this reply was ended")
    assert outcome["ends"][0]["isError"]
