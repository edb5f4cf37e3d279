"""Run turns: adopt the reply, wait for those before it, ask the backend, push what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any, Final, Self

from riverdelta.broker.producer.message import Message
from riverdelta.broker.producer.producer import Producer
from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta.broker.settings import Settings
from riverdelta.core.errors import (
    BrokerUnavailable,
    MessageEnded,
    MessageExists,
    MessageLost,
    NotChatOwner,
    RiverdeltaError,
    Stopped,
)
from riverdelta.core.events import SnapshotMessage
from riverdelta.core.view import ChatView
from riverdelta_gateway.assets import Asset, AssetCatalog
from riverdelta_gateway.backends.base import (
    BackendError,
    ChatBackend,
    Question,
    ToolAnswer,
    may_call_again,
)
from riverdelta_gateway.backends.opening import SOURCE as OPENING_SOURCE
from riverdelta_gateway.backends.opening import opening_reply
from riverdelta_gateway.backends.scripted import title_from
from riverdelta_gateway.turn import TITLE, Turn, from_message_on, title_of
from riverdelta_gateway.turns.history import HistoryStore, latest, what_was_said
from riverdelta_gateway.turns.plugins import make_backend, make_catalog, make_history
from riverdelta_gateway.turns.settings import TurnSettings

_LOOK_S: Final = 0.25
"""How soon the call of a silent provider is cancelled after its reply was stopped."""
_SETTLE_S: Final = 30.0
_FAIL_WAIT_S: Final = 2.0

_log = logging.getLogger("riverdelta.turns")


class TurnRunner:
    """
    Runs the turns of one process. An async context manager.

    On leaving, replies may go on for ``drain_s``. Then a turn of which nothing was sent waits for another
    process, and the others fail with ``turn_interrupted``.

    Raises:
        SettingsError: A backend, catalog or store that cannot be used.
    """

    def __init__(self, settings: Settings, turns: TurnSettings) -> None:
        self.settings = settings
        self.turns = turns
        self._backend: ChatBackend = make_backend(turns)
        self._catalog: AssetCatalog = make_catalog(turns)
        self._producer = Producer(settings)
        self._subscriber = ChatReader(settings)
        self._history: HistoryStore = make_history(turns, self._subscriber)
        self._running: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._queued: set[asyncio.Task[None]] = set()
        """Turns that wait for those before them."""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """
        Connect.

        Raises:
            BrokerUnavailable: No server there.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._backend.aclose)
            await stack.enter_async_context(self._producer)
            await stack.enter_async_context(self._subscriber)
            stack.push_async_callback(self._drain)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let replies end, then close the connections."""
        await self._stack.aclose()

    async def run(self, turn: Turn) -> None:
        """
        Run *turn*, unless it ran already; return when it is over, however it ended.

        A turn goes on if the caller is cancelled: arq cancels its jobs whenever it loses its Redis.

        Raises:
            BrokerUnavailable: The reply could not be opened; try again.
            TurnTaken: Another process runs it; try again, in case that one lets it wait.
        """
        key = (turn.chat_id, turn.message_id)
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(self._run(turn), name=f"riverdelta-turn-{turn.message_id}")
            self._running[key] = task
            task.add_done_callback(lambda done: self._over(key, done))
        await asyncio.shield(task)

    def _over(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # its caller may be gone

    async def _drain(self) -> None:
        tasks = list(self._running.values())
        for task in self._queued:  # another process begins them
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=self.turns.drain_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one turn --------------------------------------------------------------------------------

    async def _run(self, turn: Turn) -> None:
        if turn.accepted:
            message = self._adopted(turn)
        else:
            messages = (await self._subscriber.snapshot(turn.chat_id)).data["messages"]
            if turn.message_id in (message["message"] for message in messages):
                return
            replaces = turn.replaces or from_message_on(messages, turn.from_message)
            turn = replace(turn, replaces=replaces, title=_title_without(messages, replaces))
            message = self._opened(turn)
        try:
            async with message:
                await self._reply(turn, message)
        except MessageExists:
            if turn.accepted:
                raise TurnTaken from None
            return  # another process runs it, or did: that one ends it, or its producer's lease does
        except NotChatOwner:
            # Another user was faster to make the chat. `OwnerGuard` answers those who wait for this turn.
            _log.warning("turn %s: chat %s is another user's", turn.message_id, turn.chat_id)
            return
        except MessageLost:
            if not turn.accepted:
                raise
            # The server lost what it had accepted: the job has all of it.
            _log.warning("turn %s: Redis lost it from chat %s", turn.message_id, turn.chat_id)
            await self._run(replace(turn, accepted=False))
            return
        except (Stopped, MessageEnded) as end:
            _log.info("turn %s of chat %s: %s", turn.message_id, turn.chat_id, end)
        if self._history.saves:
            await self._save(turn)

    def _source(self, turn: Turn) -> str:
        return OPENING_SOURCE if turn.prompt is None else self._backend.source

    def _adopted(self, turn: Turn) -> Message:
        """Prepare to write a turn that its chat has."""
        return self._producer.adopt(
            turn.chat_id,
            turn.message_id,
            source=self._source(turn),
            metadata=turn.metadata(turn.replaces, turn.title),
            user=turn.user,
            replaces=turn.replaces,
        )

    def _opened(self, turn: Turn) -> Message:
        """Prepare to open the message of a turn that its chat does not have."""
        return self._producer.message(
            turn.chat_id,
            source=self._source(turn),
            message_id=turn.message_id,
            metadata=turn.metadata(turn.replaces, turn.title),
            user=turn.user,
            replaces=turn.replaces,
        )

    async def _reply(self, turn: Turn, message: Message) -> None:
        """Write the reply; an error becomes its end, in words that are safe for readers."""
        limit_s = self.turns.turn_timeout_s
        calls: list[str] = []
        try:
            if turn.behind:
                await self._wait_in_line(turn, message)
                # It may have been stopped just now: then no model is asked.
                with contextlib.suppress(BrokerUnavailable):
                    await message.check()
            async with asyncio.timeout(limit_s):
                await _while_open(message, self._write(turn, message, calls))
        except BackendError as error:
            await _fail(message, "provider_error", error.sentence, error.__cause__ or error)
        except _ProviderSilent as error:
            silence_s = f"{self.turns.provider_silence_s:g}"
            sentence = f"The language model sent nothing for {silence_s} s"
            await _fail(message, "provider_timeout", sentence, error)
        except TimeoutError as error:
            sentence = f"The reply was not done after {limit_s:g} s"
            await _fail(message, "turn_timeout", sentence, error)
        except asyncio.CancelledError as error:
            async with asyncio.timeout(_FAIL_WAIT_S):
                if not calls or may_call_again(self._backend):
                    with contextlib.suppress(RiverdeltaError):
                        if await message.release():
                            _log.info("turn %s waits for another process", turn.message_id)
                            raise
                sentence = "The server was shut down while it wrote this reply"
                await _fail(message, "turn_interrupted", sentence, error)
            raise

    async def _wait_in_line(self, turn: Turn, message: Message) -> None:
        task = self._running[turn.chat_id, turn.message_id]
        self._queued.add(task)
        try:
            await _while_open(message, self._comes_next(turn))
        finally:
            self._queued.discard(task)

    async def _comes_next(self, turn: Turn) -> None:
        """Wait until the turns before this one have ended; then the chat has their replies."""
        before = set(turn.behind)
        view = ChatView()
        async with aclosing(self._subscriber.events(turn.chat_id)) as events:
            async for event in events:
                view.apply(event)
                messages = view.messages
                here = any(one["message"] == turn.message_id for one in messages)
                open_ = {one["message"] for one in messages if one["status"] == "open"}
                if here and not open_ & before:
                    return

    async def _write(self, turn: Turn, message: Message, calls: list[str]) -> None:
        """Write the reply; *calls* gets a name for each call of the backend."""
        asset = await self._asset(turn)
        if turn.asset_id is not None and asset is None:
            sentence = f"The {turn.asset_type} does not exist any more"
            await _fail(message, "asset_gone", sentence, LookupError(turn.asset_id))
            return
        snapshot = await self._subscriber.snapshot(turn.chat_id)
        messages = snapshot.data["messages"]
        # This turn and the questions that wait behind it are no part of what it replies to. Its title may
        # be there, of a process that let it wait again.
        later = from_message_on(messages, turn.message_id) or [turn.message_id]
        needs_title = (
            turn.title is None and _title_without(messages, [*turn.replaces, *later[1:]]) is None
        )
        if turn.prompt is None:
            if asset is not None:
                if needs_title:
                    await message.annotate(TITLE, {"title": asset.name})
                await self._push(message, opening_reply(asset))
            return
        said = await self._history.load(turn.chat_id, [*turn.replaces, *later])
        question = Question(turn.prompt, latest(said, self.turns.history_max_chars), asset)
        calls.append("reply")
        if not needs_title:
            await self._push(message, self._backend.reply(question))
            return
        title = asyncio.create_task(self._title(message, question), name="riverdelta-title")
        try:
            await self._push(message, self._backend.reply(question))
            done, _ = await asyncio.wait((title,), timeout=self.turns.title_grace_s)
            if not done:  # a title that hangs does not hold the reply's end
                title.cancel()
                await asyncio.gather(title, return_exceptions=True)
                await message.annotate(TITLE, {"title": title_from(question.prompt)})
        finally:
            title.cancel()
            (error,) = await asyncio.gather(title, return_exceptions=True)
            if isinstance(error, Exception):  # a reply does not need a title
                _log.warning("chat %s got no title", turn.chat_id, exc_info=error)

    async def _asset(self, turn: Turn) -> Asset | None:
        if turn.asset_id is None or turn.asset_type is None:
            return None
        return await self._catalog.get(turn.user, turn.asset_type, turn.asset_id)

    async def _push(self, message: Message, chunks: AsyncGenerator[object, None]) -> None:
        """Push a backend's chunks as they come."""
        async with aclosing(chunks):
            while True:
                try:
                    async with asyncio.timeout(self.turns.provider_silence_s):
                        chunk = await anext(chunks)
                except StopAsyncIteration:
                    return
                except TimeoutError as error:
                    raise _ProviderSilent from error
                if isinstance(chunk, ToolAnswer):
                    await message.push_tool_result(chunk.tool_call_id, chunk.content)
                else:
                    await message.push(chunk)

    async def _title(self, message: Message, question: Question) -> None:
        """Annotate the chat's title, beside the reply: the backend's, or the beginning of the prompt."""
        pieces: list[str] = []
        try:
            async with (
                asyncio.timeout(self.turns.title_timeout_s),
                aclosing(self._backend.title(question)) as stream,
            ):
                async for piece in stream:
                    pieces.append(piece)
                    await message.annotate(TITLE, {"title_chunk": piece})
        except (BackendError, TimeoutError) as error:
            _log.warning("no title for chat %s: %s", message.chat_id, error.__cause__ or error)
            pieces.clear()
        title = "".join(pieces).strip() or title_from(question.prompt)
        await message.annotate(TITLE, {"title": title})

    async def _save(self, turn: Turn) -> None:
        """Save the turn in the history store, once the chat has all of it."""
        view = ChatView()
        async with (
            asyncio.timeout(_SETTLE_S),
            aclosing(self._subscriber.events(turn.chat_id)) as events,
        ):
            async for event in events:
                view.apply(event)
                ours = [m for m in view.messages if m["message"] == turn.message_id]
                if ours and ours[0]["status"] != "open":
                    said = what_was_said(ours[0])
                    await self._history.save(turn.chat_id, turn.message_id, said)
                    return


class TurnTaken(Exception):
    """Another process runs the turn."""


class _ProviderSilent(Exception):
    """The provider sent nothing for ``provider_silence_s``."""


def _title_without(messages: Sequence[SnapshotMessage], without: Sequence[str]) -> str | None:
    return title_of([message for message in messages if message["message"] not in without])


async def _while_open(message: Message, writing: Coroutine[Any, Any, None]) -> None:
    """
    Await *writing*, and cancel it when the message ends.

    A push sees a stop by itself, but a silent provider causes no push.
    """
    task = asyncio.create_task(writing, name=f"riverdelta-reply-{message.id}")
    try:
        while not task.done() and not message.is_ended:
            await asyncio.wait((task,), timeout=_LOOK_S)
    finally:
        ended_by_itself = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if ended_by_itself:
        task.result()


async def _fail(message: Message, code: str, sentence: str, error: BaseException) -> None:
    """Fail a reply. What readers must not see goes to the log, under an id that the sentence names."""
    error_id = secrets.token_hex(4)
    _log.warning(
        "error %s: turn %s of chat %s failed with %s",
        error_id,
        message.id,
        message.chat_id,
        code,
        exc_info=error,
    )
    try:
        await message.fail(code, f"{sentence}. The id of this error is {error_id}.")
    except RiverdeltaError as refused:
        _log.warning("error %s: turn %s ended otherwise: %s", error_id, message.id, refused)
