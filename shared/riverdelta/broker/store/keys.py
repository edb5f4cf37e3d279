"""Every Redis key and channel, built here and nowhere else (not in Lua either)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatKeys:
    """
    The keys of one chat. The braces are the cluster's hash tag: all of a chat is in one slot.

    Attributes:
        head: Hash: epoch, seq, version, owner, counters.
        chunks: Stream of raw entries; entry id ``<number>-0``.
        deltas: Stream of events (the log), entry id ``<seq>-0``; and the channel of the same name.
        wake: Channel that wakes the owner: there are unread entries.
        producers: Hash ``<producer>:<message>`` -> message_seq of its last stored entry.
        dead: Stream of entries that could not be used.
        outbox: Hash ``<message> <observer>`` -> a call that is owed after the message's end.
    """

    head: str
    chunks: str
    deltas: str
    wake: str
    producers: str
    dead: str
    outbox: str

    def message(self, message_id: str) -> str:
        """Hash of one message."""
        return f"{self.head}:msg:{message_id}"

    def chunk(self, message_id: str, index: int) -> str:
        """Hash of chunk *index* of a message; its id is ``<message_id>.<index>``."""
        return f"{self.head}:chunk:{message_id}.{index}"

    def message_and_chunks(self, message_id: str, chunk_count: int) -> list[str]:
        """Every key that belongs to one message."""
        chunks = (self.chunk(message_id, index) for index in range(chunk_count))
        return [self.message(message_id), *chunks]


@dataclass(frozen=True, slots=True)
class Keys:
    """
    All keys under one prefix.

    The second half is on the queue's Redis, beside arq's own keys; it can never be atomic with a
    chat's slot, so: register before, remove after, and reconcile at every heartbeat.
    """

    prefix: str = "rd"

    def chat(self, chat_id: str) -> ChatKeys:
        """Keys of one chat, on the chats' Redis."""
        head = f"{self.prefix}:{{{chat_id}}}"
        return ChatKeys(
            head=head,
            chunks=f"{head}:chunks",
            deltas=f"{head}:deltas",
            wake=f"{head}:wake",
            producers=f"{head}:producers",
            dead=f"{head}:dead",
            outbox=f"{head}:outbox",
        )

    def chat_id_of_wake(self, channel: str) -> str:
        """Chat id in the name of a wake channel."""
        return channel[len(self.prefix) + 2 : -len("}:wake")]

    @property
    def queue(self) -> str:
        """Arq's queue of attach jobs (zset)."""
        return f"{self.prefix}:queue"

    @property
    def turns(self) -> str:
        """Arq's queue of turns (zset): replies that a gateway requested."""
        return f"{self.prefix}:turns"

    def turn_job(self, chat_id: str, message_id: str) -> str:
        """Arq's id of the job that runs a turn; arq's own keys carry no prefix."""
        return f"{self.prefix}:turn:{chat_id}:{message_id}"

    @property
    def workers(self) -> str:
        """Hash: worker id -> heartbeat counter."""
        return f"{self.prefix}:workers"

    def worker_chats(self, worker_id: str) -> str:
        """Set of the chats a worker has, or is about to claim."""
        return f"{self.prefix}:worker:{worker_id}:chats"

    @property
    def producers(self) -> str:
        """Hash: producer id -> heartbeat counter."""
        return f"{self.prefix}:producers"

    def producer_messages(self, producer_id: str) -> str:
        """Set of ``<chat> <message>``: the messages a producer has open, or is about to open."""
        return f"{self.prefix}:producer:{producer_id}:messages"

    def user_chats(self, user: str) -> str:
        """Sorted set of a user's chats by last activity; and the channel that announces new messages."""
        return f"{self.prefix}:user:{user}:chats"

    def user_of_chats(self, channel: str) -> str:
        """User in the name of a key that `user_chats` made."""
        return channel[len(self.prefix) + len(":user:") : -len(":chats")]

    def user_bucket(self, user: str, name: str) -> str:
        """Hash: how much of a limit a user has left."""
        return f"{self.prefix}:user:{user}:bucket:{name}"

    @property
    def waiting(self) -> str:
        """Sorted set: chats that need an owner, scored by the attach attempts made for them."""
        return f"{self.prefix}:waiting"
