"""``riverdelta inspect`` says what was skipped of a reply, and how much, also of one that looks empty."""

import json

import pytest

from riverdelta import Producer, Settings, Subscriber
from riverdelta_cli.commands.inspect import inspect_chat
from riverdelta_cli.session import Interrupt
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, read_until_ends

CHAT_CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
UNKNOWN = {"type": "response.\x1bodd", "delta": "Hi"}


@pytest.mark.parametrize("source", ["openai-responses", "openai-responses+sse"])
async def test_what_was_skipped_and_how_much(
    source: str,
    settings: Settings,
    producer: Producer,
    subscriber: Subscriber,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = b"data: %b\n\n" if source.endswith("+sse") else b"%b"
    async with local_workers(settings, 1):
        async with producer.message("c1", source=source) as message:
            for chunk in (CHAT_CHUNK, CHAT_CHUNK, UNKNOWN):
                await message.push(frame % json.dumps(chunk).encode())
        events = await read_until_ends(subscriber, "c1", after=BEGINNING)
        assert await inspect_chat("c1", settings=settings, as_json=True, interrupt=Interrupt()) == 0
        found = json.loads(capsys.readouterr().out)
        await inspect_chat("c1", settings=settings, as_json=False, interrupt=Interrupt())
        for_people = capsys.readouterr().out
    (rejected,) = [event.data for event in events if event.type == "input.rejected"]
    assert rejected["code"] == "not_understood"
    assert "3 payloads were skipped" in rejected["detail"]
    (shown,) = found["messages"]
    assert (shown["status"], shown["rejected"], shown["skipped"]) == ("completed", 1, 3)
    assert shown["skipped_names"] == {"without a type": 2, "response.\x1bodd": 1}
    assert "3 skipped (lost: without a type 2, response.�odd 1)" in for_people
