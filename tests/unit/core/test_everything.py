"""
All features at once: any chat, in any batches, by any number of owners, is the same chat to its readers.

``RIVERDELTA_STORIES=5000`` makes up that many, from the seed ``RIVERDELTA_FIRST_STORY`` on.
"""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.broker.store.snapshot import read_snapshot
from tests.support.core.cutting import cut_whole
from tests.support.core.fold_tools import NOW_MS
from tests.support.core.secrets_tools import redacted
from tests.support.core.stories import Story, make_pipeline, make_story
from tests.support.core.story_owner import KEYS, Owner, Reader, batches_of, has_no_secret, validate
from tests.support.drawing import examples


async def emitted(
    story: Story,
    chance: random.Random,
    *,
    largest: int,
    take_overs: float,
) -> Reader:
    """Have owners fold a story, one behind the other."""
    owner = Owner(story.pipeline)
    for batch in batches_of(story.entries, story.poison, chance, largest=largest):
        await owner.take(batch, story)
        await owner.check()
        if chance.random() < take_overs:
            owner.hot = None
    snapshot = await read_snapshot(owner.store, KEYS, "c", NOW_MS)
    validate(snapshot.raw)
    if story.pipeline.stream_filter is not None:
        has_no_secret(b"".join(owner.store.log))
    return owner.reader


def check_texts(story: Story, reader: Reader) -> None:
    """What plain messages say is what a slow reader makes of all their text at once."""
    redacting = story.pipeline.stream_filter is not None
    for message_id, text in story.texts.items():
        if message_id not in [m["message"] for m in reader.view.messages]:
            continue
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        cuts = [cut.text for cut in cut_whole(clean)] if story.pipeline.cut_all else [clean]
        shown = [redacted(cut) if redacting else cut for cut in cuts]
        chunks = reader.view.message(message_id)["chunks"]
        assert [chunk["text"] for chunk in chunks] == (shown if text else [])


def check_story(seed: int) -> None:
    """Make up a chat and tell it in several ways."""
    chance = random.Random(seed)
    story = make_story(chance)

    async def all_ways() -> None:
        one_by_one = await emitted(story, chance, largest=1, take_overs=0)
        check_texts(story, one_by_one)
        ways = ((1, 1.0), (1, 0.2), (chance.choice([2, 5, 64]), 0.3), (1000, 0.0))
        for largest, take_overs in ways:
            other = await emitted(story, chance, largest=largest, take_overs=take_overs)
            if largest == 1:
                assert [e.raw for e in other.events] == [e.raw for e in one_by_one.events]
            if story.pipeline.on_processor_failure == "disable":
                assert other.view.messages == one_by_one.view.messages

    asyncio.run(all_ways())


def check_upgrades(seed: int) -> None:
    """Tell a chat by workers that do not agree on the pipeline: readers still see one chat."""
    chance = random.Random(seed)
    story = make_story(chance)

    async def upgraded() -> None:
        owner = Owner(story.pipeline)
        for batch in batches_of(story.entries, story.poison, chance, largest=3):
            await owner.take(batch, story)
            await owner.check()
            if chance.random() < 0.3:
                owner.hot, owner.pipeline = None, make_pipeline(chance)
                owner.reader.upgraded = True

    asyncio.run(upgraded())


@settings(max_examples=examples(12))
@given(seed=st.integers(0, 2**32))
def test_any_chat_by_any_owners_in_any_batches(seed: int) -> None:
    check_story(seed)


@settings(max_examples=examples(20))
@given(seed=st.integers(0, 2**32))
def test_any_chat_by_owners_that_differ_in_their_pipelines(seed: int) -> None:
    check_upgrades(seed)


@pytest.mark.timeout(0)
def test_as_many_chats_as_are_asked_for() -> None:
    first = int(os.environ.get("RIVERDELTA_FIRST_STORY", "0"))
    for seed in range(first, first + int(os.environ.get("RIVERDELTA_STORIES", "2"))):
        try:
            check_story(seed)
            check_upgrades(seed)
        except BaseException as error:
            error.add_note(f"story {seed}")
            raise
