"""Accept posts: check what they name, make the turn a message of its chat, and queue it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Self, TypeVar

from redis.exceptions import RedisError

from riverdelta.broker import turns
from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta.broker.store.turn_scripts import AcceptedTurn, TurnStart
from riverdelta.broker.turns import NewTurn
from riverdelta.broker.user_chats import Announcement, announce
from riverdelta.core.errors import BrokerUnavailable, RiverdeltaError
from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.access import ChatAccess
from riverdelta_gateway.assets import AssetCatalog
from riverdelta_gateway.errors import RequestError, bad_request, no_such_chat
from riverdelta_gateway.posting.plan import Plan, plan_turn
from riverdelta_gateway.posting.request import Post, unknown_asset
from riverdelta_gateway.posting.watch import Watches
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.turn import Turn, turn_message_id
from riverdelta_gateway.turns.queue import TurnQueue

MIN_CHOSEN_ID_CHARS: Final = 16
"""Shortest id of a new chat that a client chooses: nobody guesses an id that another will use. The AI
SDK's have 16 characters of 62 kinds."""

_MAX_OPEN: Final = 20
"""Questions of a chat that may be open at the same time: more is a script that has gone wrong."""
_TRIES: Final = 100
"""Replies to one prompt that readers see no more: an edit replaced them."""
_RETRY_S: Final = 0.5
_FULL_RETRY_S: Final = 10.0
_CONFLICT: Final = 409
_TAKEN_BACK: Final = "the post was refused"
"""Reason of the stop of a turn whose post was answered with an error."""

_Result = TypeVar("_Result")

_log = logging.getLogger("riverdelta.gateway")


class Accepted(NamedTuple):
    """
    A turn that is a message of its chat.

    Attributes:
        turn: The turn.
        position: Turns of the chat that end first; 0: it is next.
    """

    turn: Turn
    position: int


class TurnRules(NamedTuple):
    """
    How turns are accepted.

    Attributes:
        gateway: Has the policy for a second question, and the time that a turn may wait.
        source: How the turns process encodes replies, as far as this process knows.
        opening_source: The same, of turns without a prompt.
    """

    gateway: GatewaySettings
    source: str
    opening_source: str


class Posts:
    """
    Accepts the posts of this process. An async context manager.

    A turn is accepted when its chat has it, and from then on it ends exactly once at every reader. What is
    left to do then (the job, the announcement, a worker) is repeated until Redis has it: where this process
    ends before, a worker fails the turn with ``not_started``. So the answer to a post says "accepted"
    although its job may not be queued yet. To refuse it then would be wrong both ways: readers have the
    turn already, and while Redis is away it cannot be taken back.

    Args:
        subscriber: Reads chats.
        access: Chat ownership.
        catalog: Finds the assets that posts name.
        queue: Takes the turns.
        watches: Send an accepted turn's progress to the user's sockets.
        rules: How turns are accepted.
    """

    def __init__(
        self,
        subscriber: ChatReader,
        access: ChatAccess,
        *,
        catalog: AssetCatalog,
        queue: TurnQueue,
        watches: Watches,
        rules: TurnRules,
    ) -> None:
        self._subscriber = subscriber
        self._access = access
        self._catalog = catalog
        self._queue = queue
        self._watches = watches
        self._rules = rules
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel what is still being repeated: Redis is away."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def accept(
        self,
        user: str,
        post: Post,
        *,
        prompt_id: str | None = None,
        may_begin: bool = False,
        again: bool = False,
        answering: contextlib.ExitStack | None = None,
    ) -> Accepted:
        """
        Make the turn that *post* asks for a message of its chat; answer, and then call `follow`.

        Args:
            user: Id of the user who posts.
            post: The request.
            prompt_id: The client's own id of the prompt. The same prompt, while its reply is open, is the
                same turn; a reply that has ended is replaced.
            may_begin: Whether a chat that does not exist is begun, instead of refused.
            again: Whether a reply that is open is replaced, too.
            answering: Close it when the post is answered: until then, the user's sockets get nothing of the
                turn. None: they may get the turn before the answer.

        Raises:
            RequestError: NOT_FOUND: the asset, the chat or the message does not exist for this user.
                BAD_REQUEST: the id of a new chat is too short, or (status 409) the chat still replies and
                the policy is to reject. RATE_LIMITED: too many questions wait in the chat.
            BrokerUnavailable: Redis did not answer. The turn may be accepted or not: repeated with the same
                *prompt_id*, it is the same turn.
        """
        asset = post.asset
        if asset is not None and await self._catalog.get(user, asset.type, asset.id) is None:
            raise unknown_asset(asset)
        chat_id, exists = post.chat_id or f"c-{secrets.token_hex(8)}", False
        if post.chat_id is not None:
            exists = await self._check_chat(post.chat_id, user, may_begin=may_begin)
        begins = post.chat_id is None or may_begin
        if answering is not None:
            answering.enter_context(self._watches.answering(user))
        chosen_id, least = prompt_id or secrets.token_hex(16), 0
        for _ in range(_TRIES):
            messages = await self._messages(chat_id) if exists else []
            plan = plan_turn(messages, post, prompt_id, again=again)
            number = max(plan.reply_number, least)
            turn = self._turn(chat_id, user, post, plan._replace(reply_number=number), chosen_id)
            turn = replace(turn, prompt_id=prompt_id)
            accepted = await self._store(turn, begins=begins)
            if accepted.status != "ended":
                return _accepted(turn, accepted)
            exists, least = True, number + 1
            shown = await self._messages(chat_id)
            if turn.message_id in (message["message"] for message in shown):
                return Accepted(turn, 0)  # another post of the same prompt was faster, and is over
        raise bad_request("this prompt had too many replies: give it another id")

    def follow(self, accepted: Accepted) -> None:
        """Send the progress of an accepted turn to the user's sockets."""
        turn = accepted.turn
        self._watches.watch(turn.user, turn.chat_id, turn.message_id)

    async def _check_chat(self, chat_id: str, user: str, *, may_begin: bool) -> bool:
        """Check that the chat is the user's own, or can be begun; return whether it exists."""
        owner = await self._access.user_of(chat_id)
        if owner == user:
            return True
        if may_begin and len(chat_id) < MIN_CHOSEN_ID_CHARS:
            raise bad_request(
                f"the id of a new chat must have {MIN_CHOSEN_ID_CHARS} random characters or more"
            )
        if owner is not None or not may_begin:
            raise no_such_chat()
        return False

    async def _messages(self, chat_id: str) -> Sequence[SnapshotMessage]:
        snapshot = await self._subscriber.snapshot(chat_id)
        messages: Sequence[SnapshotMessage] = snapshot.data["messages"]
        return messages

    def _turn(self, chat_id: str, user: str, post: Post, plan: Plan, chosen_id: str) -> Turn:
        asset = post.asset
        return Turn(
            chat_id=chat_id,
            message_id=turn_message_id(chat_id, chosen_id, plan.reply_number),
            user=user,
            prompt=post.prompt,
            asset_type=None if asset is None else asset.type,
            asset_id=None if asset is None else asset.id,
            accepted=True,
            reply_number=plan.reply_number,
            replaces=plan.replaces,
            title=plan.title,
        )

    async def _store(self, turn: Turn, *, begins: bool) -> AcceptedTurn:
        """Store the start of a turn, and queue it; goes on if the caller's socket is gone meanwhile."""
        return await asyncio.shield(self._task(self._store_and_queue(turn, begins=begins), turn))

    async def _store_and_queue(self, turn: Turn, *, begins: bool) -> AcceptedTurn:
        new = self._new(turn, begins=begins)
        try:
            accepted = await turns.accept(self._subscriber.client, new)
        except BrokerUnavailable:
            if turn.prompt_id is None:  # nobody can repeat it: take back what may be stored
                self._repeat(self._take_back, turn)
            raise
        if accepted.status in {"accepted", "repeat"}:
            self._repeat(self._queue_job, replace(turn, behind=tuple(accepted.behind)))
            try:
                await self._announce(
                    turn
                )  # the answer comes behind it: the user's list has the chat
            except (RiverdeltaError, RedisError):
                self._repeat(self._announce, turn)
        return accepted

    def _new(self, turn: Turn, *, begins: bool) -> NewTurn:
        source = self._rules.opening_source if turn.prompt is None else self._rules.source
        metadata = turn.metadata(turn.replaces, turn.title)
        start = turns.encode_start(
            source=source, user=turn.user, metadata=metadata, replaces=turn.replaces
        )
        gateway = self._rules.gateway
        stored = TurnStart(
            message_id=turn.message_id,
            user=turn.user,
            start=start,
            policy=gateway.second_question,
            replaces=turn.replaces,
            wait_ms=int(gateway.turn_wait_s * 1000),
            max_open=_MAX_OPEN,
            begins=begins,
        )
        return NewTurn(turn.chat_id, stored)

    # -- what is repeated until Redis has it ----------------------------------------------------------

    def _repeat(self, work: Callable[[Turn], Awaitable[None]], turn: Turn) -> None:
        """Do *work* in a task, again and again for as long as the turn may wait, until it succeeds."""
        self._task(self._until_done(work, turn), turn)

    def _task(self, work: Coroutine[Any, Any, _Result], turn: Turn) -> asyncio.Task[_Result]:
        task = asyncio.create_task(work, name=f"riverdelta-{turn.message_id}")
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # who awaited it may be gone

    async def _until_done(self, work: Callable[[Turn], Awaitable[None]], turn: Turn) -> None:
        name = f"turn {turn.message_id} of chat {turn.chat_id}"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._rules.gateway.turn_wait_s):
                while True:
                    try:
                        await work(turn)
                    except (RiverdeltaError, RedisError) as error:
                        _log.warning("%s has to wait for Redis: %s", name, error)
                        await asyncio.sleep(_RETRY_S)
                    else:
                        return
        _log.warning("%s: Redis was away for too long", name)

    async def _queue_job(self, turn: Turn) -> None:
        """Queue the job of a turn, and get its chat a worker."""
        await self._queue.ask(turn)
        await turns.attach(self._subscriber.client, turn.chat_id)

    async def _announce(self, turn: Turn) -> None:
        announcement = Announcement(turn.chat_id, turn.message_id)
        await announce(self._subscriber.client, turn.user, announcement)

    async def _take_back(self, turn: Turn) -> None:
        """End a turn whose post was answered with an error; it may be stored nevertheless."""
        await self._subscriber.stop(
            turn.chat_id, turn.message_id, reason=_TAKEN_BACK, user=turn.user
        )


def _accepted(turn: Turn, accepted: AcceptedTurn) -> Accepted:
    """Read the answer of ``accept_turn.lua``; raises as `Posts.accept`."""
    match accepted.status:
        case "foreign":
            raise no_such_chat()
        case "busy":
            raise RequestError(
                "BAD_REQUEST",
                "The chat is still replying: wait until it is done, or stop it.",
                http_status=_CONFLICT,
            )
        case "full":
            raise RequestError(
                "RATE_LIMITED",
                f"{_MAX_OPEN} questions of this chat wait for their replies: try again later.",
                retry_after_s=_FULL_RETRY_S,
            )
    return Accepted(replace(turn, behind=tuple(accepted.behind)), len(accepted.behind))
