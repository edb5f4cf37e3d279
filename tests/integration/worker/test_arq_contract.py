"""What the base writes for arq, held to arq's own code."""

import orjson
from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix, result_key_prefix
from arq.jobs import Job, JobStatus, deserialize_job_raw, serialize_job

from riverdelta import Settings
from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import ATTACH_JOB, attach_job, request_owner
from riverdelta.broker.store.keys import Keys
from riverdelta_workers.jobs import arq_options

NOW_MS = 1_763_600_000_123


def test_a_job_is_encoded_as_arq_encodes_it() -> None:
    job = attach_job(Keys(), "c1", term=3, attempt=2, now_ms=NOW_MS)
    theirs = serialize_job(ATTACH_JOB, ("c1", 3), {}, None, NOW_MS, serializer=orjson.dumps)
    assert job.body == theirs
    assert job.job_id == "rd:attach:c1:3:2"
    read = deserialize_job_raw(job.body, deserializer=orjson.loads)
    assert list(read) == [ATTACH_JOB, ["c1", 3], {}, None, NOW_MS]


def test_keys_are_arqs() -> None:
    assert (job_key_prefix, result_key_prefix, in_progress_key_prefix) == (
        "arq:job:",
        "arq:result:",
        "arq:in-progress:",
    )


def test_the_worker_answers_to_the_name_that_producers_enqueue() -> None:
    options = arq_options(Settings(key_prefix="p"))
    assert [function.name for function in options["functions"]] == [ATTACH_JOB]
    assert options["queue_name"] == Keys("p").queue


async def test_arq_finds_the_job_and_enqueueing_twice_is_once(client: Client) -> None:
    assert await request_owner(client, "c1", term=0)
    assert not await request_owner(client, "c1", term=0)
    assert await request_owner(client, "c1", term=0, attempt=1)
    pool: ArqRedis = ArqRedis.from_url(client.settings.redis_url)
    try:
        job = Job(
            f"{client.keys.prefix}:attach:c1:0:0",
            pool,
            _queue_name=client.keys.queue,
            _deserializer=orjson.loads,
        )
        assert await job.status() is JobStatus.queued
        info = await job.info()
        assert info is not None
        assert (info.function, list(info.args)) == (ATTACH_JOB, ["c1", 0])
    finally:
        await pool.aclose()
    waiting = await client.queue.execute("ZRANGE", client.keys.waiting, 0, -1, "WITHSCORES")
    assert waiting == [b"c1", b"1"]
