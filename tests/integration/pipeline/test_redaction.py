"""Secrets in a stream: no reader gets a byte of one, whoever dies in between."""

import pytest

from riverdelta import Producer, Settings, SettingsError, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta_workers.pipeline import build_pipeline
from tests.support.core.secrets_tools import SECRET, TEXT
from tests.support.local_workers import local_workers
from tests.support.owner import Owner, message_of
from tests.support.reading import BEGINNING, read_until_ends, view_of


@pytest.mark.parametrize("size", [1, 4, 1_000])
async def test_no_event_and_no_hash_that_readers_see_has_a_byte_of_a_secret(
    size: int, settings: Settings, subscriber: Subscriber, client: Client
) -> None:
    redacting = settings.model_copy(update={"redact": True})
    async with local_workers(redacting), Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            for at in range(0, len(TEXT), size):
                await message.push(TEXT[at : at + size])
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
        snapshot = await subscriber.snapshot("c")
        log = await client.chats.execute("XRANGE", client.keys.chat("c").deltas, "-", "+")
    assert view_of(events).text("m") == view_of([snapshot]).text("m")
    shown = view_of(events).text("m")
    for secret in ("eva.mueller", "example.com", SECRET[:12], SECRET[20:]):
        assert secret.encode() not in b"".join(fields[1] for _, fields in log)
        assert secret not in shown
    assert shown.startswith("Write to [email], or use [")
    assert shown.endswith("] (grüße 🙂).")


@pytest.mark.parametrize("source", ["text", "text-snapshot"])
async def test_a_new_owner_at_every_entry_redacts_as_the_old_one_would_have(
    source: str, client: Client
) -> None:
    pipeline = build_pipeline(client.settings.model_copy(update={"redact": True}))
    cuts = [3, 14, 15, 22, 30, 45, 50, 60, len(TEXT)]
    pieces = [TEXT[:cut] for cut in cuts]
    if source == "text":
        pieces = [TEXT[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
    owner = Owner(client, "c", pipeline)
    entries = await owner.push(message_of(source, [piece.encode() for piece in pieces]))
    await owner.claim()
    events = []
    for entry in entries:
        hot = await owner.load()
        events += await owner.commit(hot, [entry])
    shown = view_of(events).text("m")
    assert shown.startswith("Write to [email], or use [")
    assert shown.endswith("] (grüße 🙂).")
    fields = scripts.as_hash(await client.chats.execute("HGETALL", owner.keys.chunk("m", 0)))
    assert not any(b"eva" in value or SECRET[:12].encode() in value for value in fields.values())


@pytest.mark.parametrize(
    "rules",
    [
        ({"name": "x"},),
        ({"name": "x", "expression": "("},),
        ({"name": "email", "expression": "a"},),
    ],
)
def test_rules_that_cannot_be_used_are_refused_at_the_start(
    rules: tuple[dict[str, str], ...],
) -> None:
    with pytest.raises(SettingsError):
        build_pipeline(Settings(redact=True, redact_rules=rules))
