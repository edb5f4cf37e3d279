"""Request an owner for a chat: attach jobs in arq's own format, so that producers need no arq."""

from __future__ import annotations

import time
from typing import Final

import orjson

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta.broker.store.keys import Keys

ATTACH_JOB: Final = "attach_chat"
"""Name of the arq function that attaches a chat to the process that picks the job."""

JOB_LIFE_MS: Final = 24 * 3600 * 1000
"""arq drops a job's definition after this; a chat that waits longer is enqueued again by a reaper."""

SCORE_PAST_MS: Final = 24 * 3600 * 1000
"""Jobs are due this long ago: arq compares scores with the worker's clock, and clocks differ."""


def attach_job(
    keys: Keys, chat_id: str, *, term: int, attempt: int, now_ms: int
) -> scripts.AttachJob:
    """
    Encode the job that attaches *chat_id*, last owned at *term*.

    The id contains term and attempt: a job that arq blocks (a worker killed between pick and start
    blocks its id for minutes) does not block the next attempt. It begins with the key prefix, because
    arq's own keys do not: two deployments on one server may have chats of the same id.
    """
    body: dict[str, object] = {
        "t": None,
        "f": ATTACH_JOB,
        "a": [chat_id, term],
        "k": {},
        "et": now_ms,
    }
    return scripts.AttachJob(
        job_id=_job_id(keys, chat_id, term, attempt),
        score_ms=now_ms - SCORE_PAST_MS,
        life_ms=JOB_LIFE_MS,
        body=orjson.dumps(body),
    )


async def is_queued(client: Client, chat_id: str, *, term: int, attempt: int) -> bool:
    """Whether the attach job of *attempt* still waits in arq's queue for a worker with room."""
    job_id = _job_id(client.keys, chat_id, term, attempt)
    if await client.queue.execute("EXISTS", f"arq:in-progress:{job_id}"):
        return False
    return await client.queue.execute("ZSCORE", client.keys.queue, job_id) is not None


def _job_id(keys: Keys, chat_id: str, term: int, attempt: int) -> str:
    return f"{keys.prefix}:attach:{chat_id}:{term}:{attempt}"


async def request_owner(client: Client, chat_id: str, *, term: int, attempt: int = 0) -> bool:
    """
    List *chat_id* as waiting, and enqueue an attach job; False: the same job is queued or running.

    Raises:
        BrokerUnavailable: The queue's Redis did not answer; ask again.
    """
    now_ms = time.time_ns() // 1_000_000
    job = attach_job(client.keys, chat_id, term=term, attempt=attempt, now_ms=now_ms)
    return await scripts.enqueue(
        client.queue, client.keys, chat_id=chat_id, attempt=attempt, job=job
    )
