"""One typed function per Lua script; the contract of each is at the top of its ``lua/`` file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final, NamedTuple

import orjson
from redis.exceptions import NoScriptError

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.redis.executor import Arg
from riverdelta.broker.store.fields import OPENED_FORMAT, STORED_FORMAT
from riverdelta.broker.store.keys import ChatKeys, Keys
from riverdelta.broker.store.outbox import encode_call, field_of
from riverdelta.core.changes import OwedCall
from riverdelta.core.outgoing import NewEntry, PushReply

WAKE_PAYLOAD_BYTES: Final = 16 * 1024
"""Entries up to this size travel in the wake; larger ones would only be copied once more."""

END_ENTRIES: Final = frozenset({"end", "fail", "stop"})
"""Types of entries that end a message; ``push.lua`` has the same."""


class Script:
    """
    One script, called by its hash; sent in full when the server does not have it (a restart).

    Args:
        name: File name, without ``.lua``.
        also_when_full: Run on a server that is out of memory, too (flag ``allow-oom``).
    """

    def __init__(self, name: str, *, also_when_full: bool = False) -> None:
        source = (
            resources.files("riverdelta.broker.store")
            .joinpath("lua", f"{name}.lua")
            .read_text("utf-8")
        )
        if also_when_full:
            source = source.replace("#!lua\n", "#!lua flags=allow-oom\n", 1)
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, executor: Commands, keys: Sequence[str], args: Sequence[Arg]) -> Any:
        """Run the script. Each may be repeated, so sending it a second time is safe, too."""
        try:
            return await executor.execute("EVALSHA", self._sha, len(keys), *keys, *args)
        except NoScriptError:
            return await executor.execute("EVAL", self._source, len(keys), *keys, *args)


_open = Script("open")
_push = Script("push")
_push_end = Script("push", also_when_full=True)
_check = Script("check")
_claim = Script("claim")
_commit = Script("commit")
_release = Script("release")
_hand_over = Script("hand_over")
_persist = Script("persist")
_snapshot = Script("snapshot")
_settle = Script("settle")
_try_again = Script("try_again")
_stop = Script("stop")
_requeue = Script("requeue")
_enqueue = Script("enqueue")
_add_chats = Script("add_chats")
_add_messages = Script("add_messages")
_beat = Script("beat")
_remove_worker = Script("remove_worker")
_remove_producer = Script("remove_producer")
_list_chat = Script("list_chat")
_take_token = Script("take_token")


class PushLimits(NamedTuple):
    """Unread entries and bytes of a chat at which a push of raw chunks is refused."""

    chunks: int
    bytes: int


def push_reply(reply: list[Any]) -> PushReply:
    """Decode the reply of a script that answers as ``push.lua``."""
    status, last, pushed, processed, owner, term, stop = reply
    return PushReply(
        status.decode(), last, pushed, processed, owner.decode(), int(term), stop.decode()
    )


async def open_message(
    executor: Commands,
    keys: ChatKeys,
    *,
    producer: str,
    message_id: str,
    opener: str,
    start: bytes,
    user: str = "",
) -> PushReply:
    """
    Open a message; repeat it with the same *opener* only. See ``open.lua``.

    A new chat belongs to *user* ("": to no user). An existing one must, too, unless *user* is "".
    """
    reply = await _open(
        executor,
        (
            keys.head,
            keys.chunks,
            keys.producers,
            keys.message(message_id),
            keys.wake,
            keys.deltas,
            keys.dead,
            keys.outbox,
        ),
        (producer, message_id, opener, OPENED_FORMAT, start, user),
    )
    return push_reply(reply)


async def push(
    executor: Commands,
    keys: ChatKeys,
    *,
    producer: str,
    message_id: str,
    message_seq: int,
    entries: Sequence[NewEntry],
    limits: PushLimits,
) -> PushReply:
    """Store *entries*; *message_seq* is the first one's number in its message. See ``push.lua``."""
    flat: list[Arg] = []
    for entry in entries:
        flat += entry
    script = _push_end if entries and entries[-1].type in END_ENTRIES else _push
    reply = await script(
        executor,
        (keys.head, keys.chunks, keys.producers, keys.message(message_id), keys.wake),
        (
            f"{producer}:{message_id}",
            message_seq,
            message_id,
            limits.chunks,
            limits.bytes,
            WAKE_PAYLOAD_BYTES,
            *flat,
        ),
    )
    return push_reply(reply)


async def check(executor: Commands, keys: ChatKeys, *, producer: str, message_id: str) -> PushReply:
    """Read the state of a message, and wake its owner if anything is unread. See ``check.lua``."""
    reply = await _check(
        executor,
        (keys.head, keys.producers, keys.message(message_id), keys.wake),
        (f"{producer}:{message_id}",),
    )
    return push_reply(reply)


class Claimed(NamedTuple):
    """The caller owns the chat at *term*; *claims*: how often it was claimed since the last commit."""

    term: int
    claims: int


async def claim(  # the script's own arguments
    executor: Commands,
    keys: ChatKeys,
    *,
    worker_id: str,
    term_seen: int,
    new_epoch: str,
    least_seq: int = 0,
    force_epoch: bool = False,
    trim: bool = True,
) -> Claimed | None:
    """Become the owner of a chat; None: another worker did, or it is gone. See ``claim.lua``."""
    reply = await _claim(
        executor,
        (keys.head, keys.chunks, keys.deltas, keys.producers, keys.dead),
        (worker_id, term_seen, new_epoch, least_seq, int(force_epoch), int(trim), STORED_FORMAT),
    )
    return Claimed(int(reply[1]), int(reply[2])) if reply[0] == b"claimed" else None


class Refused(NamedTuple):
    """A commit was refused: the term, version and owner that the head has."""

    term: int
    version: int
    owner: str


async def commit(executor: Commands, keys: Sequence[str], args: Sequence[Arg]) -> int | Refused:
    """Write a batch and return the new version; `HotChat.encode` makes *args*. See ``commit.lua``."""
    reply = await _commit(executor, keys, args)
    if reply[0] == b"committed":
        return int(reply[1])
    return Refused(int(reply[1] or 0), int(reply[2]), reply[3].decode())


async def release(  # the script's own arguments
    executor: Commands,
    keys: ChatKeys,
    others: Sequence[str],
    *,
    term: int,
    retention_ms: int,
    trim: bool,
) -> str:
    """Release an idle chat: ``released``, ``busy`` or ``refused``. See ``release.lua``."""
    every = (keys.head, keys.chunks, keys.outbox, keys.deltas, keys.producers, keys.dead, *others)
    reply = await _release(executor, every, (term, retention_ms, int(trim)))
    return str(reply[0].decode())


async def hand_over(executor: Commands, keys: ChatKeys, *, term: int) -> bool:
    """Release a chat that still has work; False: it was not ours. See ``hand_over.lua``."""
    reply = await _hand_over(executor, (keys.head,), (term,))
    return bool(reply[0] == b"released")


async def settle(
    executor: Commands, keys: ChatKeys, call: OwedCall, *, term: int, given_up: str = ""
) -> bool:
    """
    Remove *call* from the outbox; False: the chat is not ours. See ``settle.lua``.

    *given_up* is the reason why it is not made any more ("": it was made); the message keeps it.
    """
    field = f"gave_up.{call.observer}" if given_up else ""
    reply = await _settle(
        executor,
        (keys.head, keys.outbox, keys.message(call.message_id)),
        (term, field_of(call), field, given_up),
    )
    return bool(reply[0] == b"settled")


async def try_again(executor: Commands, keys: ChatKeys, call: OwedCall, *, term: int) -> bool:
    """Store one more try of *call*; False: it is settled, or not ours. See ``try_again.lua``."""
    args = (term, field_of(call), encode_call(call))
    reply = await _try_again(executor, (keys.head, keys.outbox), args)
    return bool(reply[0] == b"noted")


async def persist(executor: Commands, keys: ChatKeys, others: Sequence[str], *, term: int) -> bool:
    """Remove the expiry of *others*; False: the chat is not ours. See ``persist.lua``."""
    reply = await _persist(executor, (keys.head, *others), (term,))
    return bool(reply[0] == b"persisted")


async def snapshot(
    executor: Commands, keys: ChatKeys, others: Sequence[str]
) -> list[dict[str, bytes]]:
    """Read the head and *others* as of one seq: a dict each, in order. See ``snapshot.lua``."""
    reply = await _snapshot(executor, (keys.head, *others), ())
    return [as_hash(flat) for flat in reply]


class Stored(NamedTuple):
    """
    What a script did that may have stored the end of a message.

    Attributes:
        status: See the script.
        unread: Whether the chat has entries that no worker has processed.
        owner: Worker that has the chat; "": none.
        term: Fencing number of the last owner.
    """

    status: str
    unread: bool = False
    owner: str = ""
    term: int = 0


def stored(reply: list[Any]) -> Stored:
    """Decode such a reply, behind its status: pushed, processed, owner, term."""
    status, pushed, processed, owner, term = reply
    return Stored(status.decode(), int(pushed) > int(processed), owner.decode(), int(term))


async def stop(
    executor: Commands, keys: ChatKeys, *, message_id: str, reason: str, user: str | None = None
) -> Stored:
    """
    Ask the producer of a message to end it; end a turn that waits. See ``stop.lua``.

    The status is ``marked``, ``ended`` or ``absent``: also where the chat is not *user*'s (None: whoever
    owns it).
    """
    reply = await _stop(
        executor,
        (keys.message(message_id), keys.head, keys.chunks, keys.wake),
        (reason, message_id, stop_entry(reason), *(() if user is None else (user,))),
    )
    return stored(reply) if reply[0] == b"marked" else Stored(reply[0].decode())


def stop_entry(reason: str) -> bytes:
    """Encode the entry that ends a message because it was stopped."""
    return orjson.dumps({"reason": reason})


# -- dead letters, lists and limits --------------------------------------------------------------


class Requeued(NamedTuple):
    """Result of `requeue`: *status* is ``requeued``, or says why nothing was done."""

    status: str
    owner: str = ""
    term: int = 0


async def requeue(
    executor: Commands, keys: ChatKeys, *, letter_id: str, message_id: str
) -> Requeued:
    """Move one dead letter to the end of the raw stream, once. See ``requeue.lua``."""
    reply = await _requeue(
        executor,
        (keys.head, keys.chunks, keys.dead, keys.message(message_id), keys.wake),
        (letter_id, message_id),
    )
    if reply[0] != b"requeued":
        return Requeued(reply[0].decode())
    return Requeued("requeued", reply[2].decode(), int(reply[3]))


class AttachJob(NamedTuple):
    """An encoded arq job: *body* is what arq itself would store under *job_id*."""

    job_id: str
    score_ms: int
    life_ms: int
    body: bytes


async def enqueue(
    executor: Commands, keys: Keys, *, chat_id: str, attempt: int, job: AttachJob
) -> bool:
    """List a chat as waiting and enqueue *job*; False: it is queued already. See ``enqueue.lua``."""
    reply = await _enqueue(
        executor,
        (
            keys.waiting,
            keys.queue,
            f"arq:job:{job.job_id}",
            f"arq:result:{job.job_id}",
            f"arq:in-progress:{job.job_id}",
        ),
        (chat_id, attempt, job.job_id, job.score_ms, job.life_ms, job.body),
    )
    return bool(reply[0] == b"enqueued")


async def add_chats(executor: Commands, list_key: str, *chat_ids: str) -> None:
    """Add chats to the list of a worker, on a full server too. See ``add_chats.lua``."""
    await _add_chats(executor, (list_key,), chat_ids)


async def add_messages(
    executor: Commands, keys: Keys, *, producer_id: str, members: Sequence[str]
) -> None:
    """List open messages under their producer, and the producer. See ``add_messages.lua``."""
    listed = keys.producer_messages(producer_id)
    await _add_messages(executor, (keys.producers, listed), (producer_id, *members))


async def beat(executor: Commands, members_key: str, member: str, *, first: bool) -> int | None:
    """Raise a heartbeat counter and return it; None: removed as dead. See ``beat.lua``."""
    reply = await _beat(executor, (members_key,), (member, int(first)))
    return int(reply[1]) if reply[0] == b"alive" else None


async def remove_worker(
    executor: Commands, keys: Keys, *, worker_id: str, counter: int
) -> list[str] | None:
    """
    Remove a dead worker and return its chats, which wait for an owner now. See ``remove_worker.lua``.

    None: it is alive (its counter is not *counter*), or already removed.
    """
    reply = await _remove_worker(
        executor, (keys.workers, keys.worker_chats(worker_id), keys.waiting), (worker_id, counter)
    )
    return [chat.decode() for chat in reply[1]] if reply[0] == b"removed" else None


async def remove_producer(
    executor: Commands, keys: Keys, *, producer_id: str, counter: int
) -> bool:
    """Remove a dead producer; False: it is alive, or already removed. See ``remove_producer.lua``."""
    reply = await _remove_producer(
        executor,
        (keys.producers, keys.producer_messages(producer_id)),
        (producer_id, counter),
    )
    return bool(reply[0] == b"removed")


async def list_chat(
    executor: Commands, user_chats_key: str, *, chat_id: str, announcement: bytes, kept_ms: int
) -> None:
    """List a chat under its user, and announce it. See ``list_chat.lua``."""
    await _list_chat(executor, (user_chats_key,), (chat_id, announcement, kept_ms))


async def take_token(executor: Commands, bucket_key: str, *, capacity: int, per_s: float) -> float:
    """Take one token and return 0, or the seconds until there is one. See ``take_token.lua``."""
    reply = await _take_token(executor, (bucket_key,), (capacity, per_s))
    return 0.0 if reply[0] == b"taken" else int(reply[1]) / 1000


def as_hash(flat: Sequence[bytes]) -> dict[str, bytes]:
    """Turn an HGETALL reply into a dict."""
    return {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
