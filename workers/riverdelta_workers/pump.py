"""
The pump: owns chats, and processes each from its raw stream to its log.

One round of a chat: read a batch, fold it, commit it in one script. A chat has a task only while it has
unread entries; all chats share one pipelined connection, so the reads and commits of all due chats go out
together.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Collection, Coroutine
from typing import Any, Final

from redis.exceptions import RedisError

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.store import members, scripts
from riverdelta.broker.store.head import Head
from riverdelta.broker.store.load import load
from riverdelta.broker.store.save import HotChat, LogLimits
from riverdelta.core.errors import BrokerUnavailable, FormatTooNew, RiverdeltaError
from riverdelta.core.filter_results import FilterResult
from riverdelta.core.state import Entry
from riverdelta.core.wake import parse_wake
from riverdelta.pipeline import Pipeline
from riverdelta_workers.attachment import Attachment, next_entries
from riverdelta_workers.fail_message import doubt_producers
from riverdelta_workers.filters.agents import FilterChain
from riverdelta_workers.long_work import LongWork, is_long
from riverdelta_workers.observers import ObserverCaller
from riverdelta_workers.pipeline import compare_versions
from riverdelta_workers.poison import Folded, fold_batch

_RETRY_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)

_log = logging.getLogger("riverdelta.worker")


class Pump:
    """
    The chats of one worker process.

    Attributes:
        worker_id: Random; replaced whenever this process was declared dead.
        attached: Claims of this process, since the start.
        refused_commits: Refused commits of this process, since the start.
        brought_at: When arq last brought a job, on the monotonic clock.
    """

    def __init__(
        self,
        client: Client,
        filters: FilterChain | None = None,
        pipeline: Pipeline | None = None,
    ) -> None:
        settings = client.settings
        self.client = client
        self._filters = filters
        self.worker_id = _new_worker_id()
        self.attached = 0
        self.refused_commits = 0
        self.brought_at = time.monotonic()
        self._log_limits = LogLimits(settings.log_max_events, settings.log_max_bytes)
        self._trim = not settings.retain_raw
        self._pipeline = pipeline or Pipeline()
        self.observers = ObserverCaller(client, self._pipeline.observers)
        self._chats: dict[str, Attachment] = {}
        self._attaching: set[str] = set()
        self._orphans: dict[str, int] = {}
        self._room = asyncio.Event()
        self._room.set()
        self._closing = False
        self._long_work = LongWork()
        self._chores: set[asyncio.Task[Any]] = set()
        self._pubsub = client.pubsub(on_message=self._on_wake, on_gap=self._doubt)

    async def start(self) -> None:
        """
        Start to listen for wakes.

        Raises:
            BrokerUnavailable: Redis is not reachable.
        """
        await self._pubsub.start()

    @property
    def chats(self) -> list[str]:
        """Chats that this process owns or is claiming."""
        return [*self._chats, *self._attaching]

    @property
    def attachments(self) -> list[Attachment]:
        """The owned chats."""
        return list(self._chats.values())

    @property
    def has_room(self) -> bool:
        """Whether this process may take another chat."""
        return self._room.is_set()

    async def room(self, timeout_s: float) -> bool:
        """Wait until this process may take another chat; False: it is still full."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._room.wait()
        return self._room.is_set()

    # -- claim, release, hand over ---------------------------------------------------------------

    async def attach(self, chat_id: str, term_seen: int) -> bool:
        """
        Claim a chat that was last owned at *term_seen*, and pump it until it is idle.

        Returns:
            False: another worker was faster, the chat is gone, or this process owns it already.

        Raises:
            BrokerUnavailable: Redis did not answer; the chat stays on the waiting list.
        """
        known = self._chats.get(chat_id)
        if known is not None and known.term != term_seen:
            known.must_read = True
            self._schedule(known)
            return False
        # Same term: a reader of the head saw no owner, because the reply to our release was lost.
        if chat_id in self._attaching or self._closing:
            return False
        self._attaching.add(chat_id)
        self._update_room()
        try:
            attachment = await self._claim(chat_id, term_seen)
        finally:
            self._attaching.discard(chat_id)
            self._update_room()
        if attachment is None:
            return False
        self._schedule(attachment)
        await members.remove_waiting(self.client.queue, self.client.keys, chat_id)
        return True

    async def _claim(self, chat_id: str, term_seen: int) -> Attachment | None:
        keys, worker_id = self.client.keys.chat(chat_id), self.worker_id
        mine = self.client.keys.worker_chats(worker_id)
        await scripts.add_chats(self.client.queue, mine, chat_id)
        claimed = None
        try:
            # Subscribe before the claim: later pushes wake us, earlier ones are read.
            await self._pubsub.subscribe(keys.wake)
            claimed = await scripts.claim(
                self.client.chats,
                keys,
                worker_id=worker_id,
                term_seen=term_seen,
                new_epoch=_new_epoch(),
                trim=self._trim,
            )
        finally:
            if claimed is None and chat_id not in self._chats:
                await self._pubsub.unsubscribe(keys.wake)
        if claimed is None:
            await members.remove_chat(self.client.queue, self.client.keys, worker_id, chat_id)
            return None
        if worker_id != self.worker_id:
            # Declared dead meanwhile: this claim belongs to an id that no longer exists.
            self._orphans[chat_id] = claimed.term
            await self._pubsub.unsubscribe(keys.wake)
            return None
        self.attached += 1
        attachment = Attachment(
            chat_id,
            keys,
            claimed.term,
            claimed.claims,
            run_id=self.client.chats.run_id_for(keys.head),
            idle_since=asyncio.get_running_loop().time(),
        )
        attachment.single = claimed.claims > 1
        self._chats[chat_id] = attachment
        return attachment

    async def release_idle(self) -> None:
        """Release the chats without open messages for ``idle_release_s``."""
        limit = asyncio.get_running_loop().time() - self.client.settings.idle_release_s
        idle = [
            attachment
            for attachment in self._chats.values()
            if attachment.task is None
            and attachment.idle_since <= limit
            and attachment.hot is not None
            and not attachment.hot.state.messages
            and not attachment.owes
        ]
        results = await asyncio.gather(
            *(self._release(attachment) for attachment in idle), return_exceptions=True
        )
        for error in results:
            if isinstance(error, BaseException):
                _log.warning("an idle chat was not released, will retry: %s", error)

    async def _release(self, attachment: Attachment) -> bool:
        """Release an idle chat; False: it is busy after all."""
        hot = attachment.hot
        if hot is None or hot.state.messages or attachment.task is not None:
            return False
        answer = await scripts.release(
            self.client.chats,
            attachment.keys,
            hot.older_keys(),
            term=attachment.term,
            retention_ms=int(self.client.settings.retention_s * 1000),
            trim=self._trim,
        )
        if answer == "busy":
            attachment.drop()
            self._schedule(attachment)
            return False
        await self._forget(attachment)
        return True

    async def _forget(self, attachment: Attachment) -> None:
        """Remove a chat that this process no longer owns."""
        attachment.closing = True
        self.observers.stop(attachment)
        if self._chats.get(attachment.chat_id) is not attachment:
            return
        del self._chats[attachment.chat_id]
        self._update_room()
        await self._pubsub.unsubscribe(attachment.keys.wake)
        queue, keys = self.client.queue, self.client.keys
        await members.remove_chat(queue, keys, self.worker_id, attachment.chat_id)

    async def close(self) -> None:
        """Hand over every chat, so that other workers continue at once; then stop listening."""
        self._closing = True
        results = await asyncio.gather(
            *(self._hand_over(attachment) for attachment in list(self._chats.values())),
            return_exceptions=True,
        )
        for error in results:
            if isinstance(error, BaseException):
                _log.warning("a chat was not handed over, its lease will run out: %s", error)
        for attachment in self._chats.values():
            self.observers.stop(attachment)
        for chore in self._chores:
            chore.cancel()
        self._long_work.close()
        await self._pubsub.aclose()

    async def _hand_over(self, attachment: Attachment) -> None:
        attachment.closing = True
        if self._filters:
            self._filters.abandon(attachment.chat_id)
        self.observers.abandon(attachment)
        if attachment.task is not None:
            await attachment.task
        await self.observers.hand_over(attachment)
        if attachment.hot is not None and not attachment.has_work:
            attachment.closing = False
            if await self._release(attachment):
                return
            attachment.closing = True
        await self._hand_over_busy(attachment)
        await request_owner(self.client, attachment.chat_id, term=attachment.term)

    async def _hand_over_busy(self, attachment: Attachment) -> None:
        """Leave a chat with more to do to other workers; a reaper asks for an owner after a lease."""
        await members.add_waiting(self.client.queue, self.client.keys, attachment.chat_id)
        await scripts.hand_over(self.client.chats, attachment.keys, term=attachment.term)
        await self._forget(attachment)

    async def restart_with_new_id(self) -> None:
        """Drop all chats and take a new id, because others declared this process dead."""
        _log.warning("worker %s was declared dead; continuing under a new id", self.worker_id)
        old, self._chats = self._chats, {}
        self.worker_id = _new_worker_id()
        for attachment in old.values():
            attachment.closing = True
            self._orphans[attachment.chat_id] = attachment.term
            self.observers.stop(attachment)
            if attachment.task is not None:
                attachment.task.cancel()
            await self._pubsub.unsubscribe(attachment.keys.wake)
        self._update_room()

    async def find_owners(self) -> None:
        """Ask for an owner of each chat that this process owned under its earlier id."""
        for chat_id, term in list(self._orphans.items()):
            await request_owner(self.client, chat_id, term=term)
            self._orphans.pop(chat_id, None)

    def _update_room(self) -> None:
        if len(self._chats) + len(self._attaching) < self.client.settings.max_chats:
            self._room.set()
        else:
            self._room.clear()

    # -- waking ----------------------------------------------------------------------------------

    def _on_wake(self, channel: str, payload: bytes) -> None:
        attachment = self._chats.get(self.client.keys.chat_id_of_wake(channel))
        if attachment is None:
            return
        # A wake from another server than the one for commits may name entries that the latter lacks.
        same_server = self._pubsub.run_id_for(channel) == self._server_of(attachment)
        try:
            entries = parse_wake(payload) if same_server else []
        except ValueError:
            entries = []  # unknown form, perhaps of a newer producer: read the stream
        attachment.offer(entries)
        self._schedule(attachment)

    def _server_of(self, attachment: Attachment) -> str | None:
        return self.client.chats.run_id_for(attachment.keys.head)

    def _doubt(self, channels: Collection[str]) -> None:
        """Make chats read their streams, because wakes may have been lost."""
        for channel in channels:
            attachment = self._chats.get(self.client.keys.chat_id_of_wake(channel))
            if attachment is not None:
                attachment.must_read = True
                self._schedule(attachment)

    def _schedule(self, attachment: Attachment) -> None:
        if attachment.task is None and not attachment.closing and not self._closing:
            attachment.task = asyncio.create_task(self._drain(attachment))

    # -- draining --------------------------------------------------------------------------------

    async def _drain(self, attachment: Attachment) -> None:
        """Run rounds until there is nothing left to read."""
        failures = 0
        try:
            while attachment.has_work and not attachment.closing:
                try:
                    await self._round(attachment)
                    failures = 0
                except (BrokerUnavailable, RedisError) as error:
                    attachment.drop()
                    _log.warning("chat %s: retrying: %s", attachment.chat_id, error)
                    await asyncio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                    failures += 1
                except FormatTooNew as error:
                    _log.error("chat %s is left to a newer worker: %s", attachment.chat_id, error)
                    attachment.closing = True
                    self._chore(self._hand_over_until_done(attachment))
        finally:
            attachment.task = None
            attachment.idle_since = asyncio.get_running_loop().time()

    async def _round(self, attachment: Attachment) -> None:
        if attachment.run_id != self._server_of(attachment):
            attachment.drop()  # another server, which may have lost data: load again
        if attachment.hot is None and not await self._load(attachment):
            # Another worker owns it, or a server that lost data names an earlier owner.
            await members.add_waiting(self.client.queue, self.client.keys, attachment.chat_id)
            await self._forget(attachment)
            return
        hot = attachment.hot
        if hot is None:
            return
        entries = await next_entries(self.client, attachment, hot.state.processed)
        if not entries:
            return
        filter_results = await self._filter(attachment, hot, entries)
        if filter_results is None:
            attachment.drop()
            return
        fold = functools.partial(
            fold_batch,
            attachment,
            hot,
            entries,
            filter_results,
            log=self._log_limits,
            trim=self._trim,
        )
        folded = await self._long_work.run(fold) if is_long(entries) else fold()
        if folded is None or not await self._commit(attachment, hot, folded):
            return
        if self._pipeline.observers:
            await self.observers.committed(attachment, folded.changes)
        if self.client.settings.rollup_ms and folded.changes.chunks:
            # Entries that arrive meanwhile are folded together. The first text was not delayed.
            await asyncio.sleep(self.client.settings.rollup_ms / 1000)

    async def _commit(self, attachment: Attachment, hot: HotChat, folded: Folded) -> bool:
        """Write a batch; False: another worker owns the chat, or has written before us."""
        answer = await scripts.commit(self.client.chats, folded.keys, folded.args)
        if isinstance(answer, scripts.Refused):
            self.refused_commits += 1
            _log.warning(
                "chat %s: commit refused (term %d, version %d, owner %s)",
                attachment.chat_id,
                *answer,
            )
            attachment.drop()
            return False
        hot.committed(answer)
        attachment.version, attachment.seq = answer, hot.state.seq
        attachment.claims = 0
        if attachment.poison is None and hot.state.processed >= attachment.single_until:
            attachment.single = False
        return True

    async def _load(self, attachment: Attachment) -> bool:
        """Load the chat from Redis; False: another worker owns it, or it is gone."""
        loaded = await load(
            self.client.chats,
            attachment.keys,
            attachment.chat_id,
            log_max_bytes=self._log_limits.bytes,
            pipeline=self._pipeline,
        )
        if loaded is None:
            return False
        head, hot = loaded
        if head.term != attachment.term or head.owner != self.worker_id:
            return False
        # Another server, or one that lost commits. It may lack events that readers have seen; the
        # last one even if the version matches (the reply to its commit was lost).
        elsewhere = attachment.run_id != self._server_of(attachment)
        less = head.version < attachment.version
        if (elsewhere or less) and not await self._new_epoch(attachment, head, hot):
            return False
        others = hot.older_keys()
        if others and not await scripts.persist(
            self.client.chats, attachment.keys, others, term=attachment.term
        ):
            return False
        if attachment.version == 0:
            compare_versions(attachment.chat_id, hot.state, self._pipeline)
        await doubt_producers(self.client, attachment.chat_id, hot.state.messages.values())
        attachment.hot = hot
        attachment.version, attachment.seq = hot.state.version, hot.state.seq
        attachment.expect(hot.state.processed + 1)
        attachment.must_read = True
        if attachment.claims > 1:
            attachment.single_until = hot.state.processed + self.client.settings.batch_chunks
        self.observers.chat_loaded(attachment)
        return True

    async def _new_epoch(self, attachment: Attachment, head: Head, hot: HotChat) -> bool:
        """Start a new log, so that readers do not take it for the log of the other server."""
        epoch = _new_epoch()
        claimed = await scripts.claim(
            self.client.chats,
            attachment.keys,
            worker_id=self.worker_id,
            term_seen=head.term,
            new_epoch=epoch,
            least_seq=attachment.seq,
            force_epoch=True,
            trim=self._trim,
        )
        if claimed is None:
            return False
        self.attached += 1
        attachment.term = hot.term = claimed.term
        attachment.run_id = self._server_of(attachment)
        hot.state.epoch = epoch
        hot.state.seq = max(attachment.seq, hot.state.seq)
        return True

    async def _filter(
        self, attachment: Attachment, hot: HotChat, entries: list[Entry]
    ) -> dict[int, FilterResult] | None:
        """Call the filter agents; None: the chat is being handed over, the next owner calls them."""
        if not self._filters:
            return {}
        if attachment.closing:
            return None
        sources = {message.id: message.source for message in hot.state.messages.values()}
        return await self._filters.filter_entries(attachment.chat_id, entries, sources)

    # -- chores ----------------------------------------------------------------------------------

    async def _hand_over_until_done(self, attachment: Attachment) -> None:
        while True:
            try:
                await self._hand_over_busy(attachment)
            except (RiverdeltaError, RedisError) as error:
                _log.warning("chat %s could not be handed over yet: %s", attachment.chat_id, error)
                await asyncio.sleep(_RETRY_S[-1])
            else:
                return

    def _chore(self, work: Coroutine[Any, Any, None]) -> None:
        chore = asyncio.create_task(work)
        self._chores.add(chore)
        chore.add_done_callback(self._chores.discard)


def _new_worker_id() -> str:
    return f"w-{secrets.token_hex(6)}"


def _new_epoch() -> str:
    return secrets.token_hex(4)
