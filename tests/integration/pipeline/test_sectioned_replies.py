"""Replies that are cut into sections, through Redis: any split, any owner, any setting."""

import itertools
from typing import Any

import orjson
import pytest

from riverdelta import Producer, Settings, SettingsError, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta.core.events import Event
from riverdelta_workers.pipeline import build_pipeline
from tests.support.core.cutting import CHUNKS, REPLY, chunks_of
from tests.support.local_workers import local_workers
from tests.support.owner import Owner, message_of, taken_over_at_every_entry
from tests.support.reading import BEGINNING, read_until_ends, view_of


def openai(text: str | None) -> dict[str, Any]:
    """Encode a delta, or the end of the reply."""
    delta = {} if text is None else {"content": text}
    finish = "stop" if text is None else None
    return {"id": "r", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


async def test_a_reply_split_anywhere_gives_the_same_chunks(
    settings: Settings, subscriber: Subscriber
) -> None:
    splits = [(at,) for at in range(1, len(REPLY))] + [tuple(range(1, len(REPLY)))]
    async with local_workers(settings.model_copy(update={"sections": True})):
        async with Producer(settings) as producer:
            for n, split in enumerate(splits):
                bounds = [0, *split, len(REPLY)]
                async with producer.message(
                    "c", source="openai-chat", message_id=f"m{n}"
                ) as message:
                    for begin, end in itertools.pairwise(bounds):
                        await message.push(openai(REPLY[begin:end]))
                    await message.push(openai(None))
        events = await read_until_ends(subscriber, "c", ends=len(splits), after=BEGINNING)
        snapshot = await subscriber.snapshot("c")
    for n in range(len(splits)):
        assert chunks_of(events, f"m{n}") == CHUNKS
    last = f"m{len(splits) - 1}"
    assert view_of([snapshot]).message(last) == view_of(events).message(last)


@pytest.mark.parametrize("source", ["openai-chat", "text", "text-snapshot", "chunks"])
async def test_a_new_owner_at_every_entry_finds_what_the_old_one_left(
    source: str, client: Client
) -> None:
    asked = {"chunk": "a", "kind": "text", "processor": "sections"}
    raws = {
        "openai-chat": [orjson.dumps(openai(char)) for char in REPLY],
        "text": [char.encode() for char in REPLY],
        "text-snapshot": [REPLY[: at + 1].encode() for at in range(len(REPLY))],
        "chunks": [orjson.dumps(asked | {"text": char}) for char in REPLY],
    }[source]
    settings = client.settings.model_copy(update={"sections": source != "chunks"})
    owner = Owner(client, "c", build_pipeline(settings))
    events = await taken_over_at_every_entry(owner, message_of(source, raws))
    assert chunks_of(events) == CHUNKS
    fields = scripts.as_hash(await client.chats.execute("HGETALL", owner.keys.chunk("m", 2)))
    assert fields["section"] == b'{"name":"code","info":"python"}'


async def test_each_part_has_a_filter_of_its_own(client: Client) -> None:
    """A secret inside of one part is hidden; a marker in the middle of it makes two texts of it."""
    settings = client.settings.model_copy(update={"sections": True, "redact": True})
    owner = Owner(client, "c", build_pipeline(settings))
    text = "<think>ask eva@example.com</think>or bob@<think>example.com</think>"
    entries = await owner.push(message_of("text", [char.encode() for char in text]))
    await owner.claim()
    events: list[Event] = []
    for entry in entries:
        hot = await owner.load()
        events += await owner.commit(hot, [entry])
    assert [cut.text for cut in chunks_of(events)] == ["ask [email]", "or bob@", "example.com"]


OWN = {"name": "note", "start": "<note(?P<info>[^>]{0,20})>", "end": "</note>"}


def test_a_list_of_names_and_rules_of_ones_own(settings: Settings) -> None:
    update = {"sections": ("think", "note"), "section_rules": (OWN,)}
    pipeline = build_pipeline(settings.model_copy(update=update))
    assert pipeline.cut_all
    assert pipeline.splitter is not None
    parts = pipeline.splitter().feed("<note a><think>```</note><think><thinking>.")
    assert [type(part).__name__ for part in parts] == [
        *("SectionStart", "SectionText", "SectionEnd"),
        *("SectionStart", "SectionText"),
    ]


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVERDELTA_SECTION_RULES", orjson.dumps([OWN]).decode())
    for encoded, meant in (("true", True), ("0", False), ('["note"]', ("note",))):
        monkeypatch.setenv("RIVERDELTA_SECTIONS", encoded)
        assert Settings().sections == meant
        assert Settings().section_rules == (OWN,)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"section_rules": ({"name": "x", "start": "a"},)}, r"SECTION_RULES.*x.*required"),
        ({"section_rules": (OWN | {"kind": "file"},)}, r"SECTION_RULES.*note.*'reasoning'"),
        (
            {"section_rules": (OWN | {"start": "("},)},
            r"SECTION_RULES: section 'note'.*not a valid regular",
        ),
        (
            {"section_rules": (OWN | {"end": r"\Z"},)},
            r"SECTION_RULES: section 'note'.*cannot be decided",
        ),
        ({"section_rules": (OWN, OWN)}, r"SECTION_RULES: two.*note, note, think"),
        ({"sections": ("thunk",)}, r"SECTIONS: thunk: there are only think, thinking, code"),
    ],
)
def test_what_cannot_be_used_is_refused_at_the_start(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SettingsError, match=complaint):
        build_pipeline(Settings(**options))
