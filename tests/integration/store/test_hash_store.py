"""The Redis in plain Python that `test_everything` writes to keeps what a real one keeps."""

import random

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta.broker.store.fields import STORED_FORMAT
from tests.support.core.stories import make_story
from tests.support.core.story_owner import Owner, batches_of


async def test_commits_leave_in_it_what_they_leave_in_a_server(client: Client) -> None:
    for seed in range(12):
        chance = random.Random(seed)
        story = make_story(chance)
        owner = Owner(story.pipeline, client.keys.chat(f"c{seed}"))
        keys, store = owner.keys, owner.store
        head = ("v", STORED_FORMAT, "term", 1, "owner", "w", "epoch", "e1", "processed", 0)
        await client.chats.execute("HSET", keys.head, *head)
        for batch in batches_of(story.entries, story.poison, chance, largest=5):
            await owner.take(batch, story)
        for names, args in owner.commits:
            assert isinstance(await scripts.commit(client.chats, names, args), int)
        stored = {
            key.decode()
            for key in await client.chats.execute("KEYS", f"{keys.head}*")
            if await client.chats.execute("TYPE", key) == b"hash"
        }
        assert stored == {key for key, fields in store.hashes.items() if fields}
        for key in stored:
            flat = await client.chats.execute("HGETALL", key)
            assert scripts.as_hash(flat) == store.hashes[key]
        log = await client.chats.execute("XRANGE", keys.deltas, "-", "+")
        assert [fields[1] for _, fields in log] == store.log
        letters = await client.chats.execute("XRANGE", keys.dead, "-", "+")
        assert [scripts.as_hash(flat) for _, flat in letters] == store.dead
