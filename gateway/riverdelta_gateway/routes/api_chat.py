"""
HTTP endpoints for the AI SDK's `useChat`: UI message streams.

=============================  ======================================================================
POST /api/chat                 ``{"id", "messages"}`` as `DefaultChatTransport` sends it; answers with
                               the reply as a UI message stream
GET /api/chat/{id}             the chat as UIMessages: ``{"id", "messages"}``
GET /api/chat/{id}/stream      the open reply, or the last one if it ended less than a minute ago, from
                               its beginning; 204: there is none
POST /api/chat/{id}/stop       stops the open reply; the client's own abort only closes the connection
=============================  ======================================================================

Only the last message that a client sends is read: the chat's own log is its history.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from riverdelta.core.errors import BrokerUnavailable
from riverdelta.core.events import Event
from riverdelta_gateway.access import OwnerGuard
from riverdelta_gateway.auth import Identity
from riverdelta_gateway.errors import RequestError, bad_request, no_such_chat
from riverdelta_gateway.posting.request import Post, read_post, read_prompt_id
from riverdelta_gateway.routes.ai_sdk import CUT, DONE, HEADERS, UIMessageStream, encode_part
from riverdelta_gateway.routes.checks import checked_id
from riverdelta_gateway.routes.event_stream import EventStream
from riverdelta_gateway.routes.http import endpoint, json_body, readable_chat
from riverdelta_gateway.routes.ui_messages import ui_messages
from riverdelta_gateway.services import Services

_ASSET_FIELDS: Final = ("asset_id", "asset_type", "metric_id", "dashboard_id")
"""Fields that `useChat` may add (its option ``body``), the same as of `/chats/post`."""
_REGENERATE: Final = "regenerate-message"
"""Value of ``trigger`` where the user wants another reply to the same prompt."""
_RESUMABLE_MS: Final = 60_000
"""A reply that ended this long ago can still be resumed."""
_LAST_EVENTS: Final = 100
"""The end of a chat's last message is among this many last events, or long ago."""


def read_chat_request(body: Mapping[str, Any]) -> tuple[Post, str | None]:
    """
    Read the body of ``POST /api/chat``. Returns the post, and the client's id of the prompt.

    Raises:
        RequestError: BAD_REQUEST, with a sentence that names the field.
    """
    if not isinstance(body.get("id"), str):
        raise bad_request("id must be a string")
    messages = body.get("messages", [body.get("message")])
    last = messages[-1] if isinstance(messages, list) and messages else None
    if not isinstance(last, dict) or last.get("role") != "user":
        raise bad_request("messages must end with one of role `user`")
    about = {name: body.get(name) for name in _ASSET_FIELDS}
    post = read_post({"chat_id": body["id"], "prompt": _text_of(last), **about})
    if post.prompt is None:
        raise bad_request("messages must end with one that has a text")
    if not isinstance(last.get("id"), str | None):
        raise bad_request("the id of a message must be a string")
    return post, read_prompt_id({"prompt_id": last.get("id") or None})


def _text_of(message: Mapping[str, Any]) -> str:
    parts = message.get("parts")
    if not isinstance(parts, list):
        raise bad_request("the parts of a message must be a list")
    texts = []
    for part in parts:
        match part:
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case _:
                raise bad_request("the parts of a message must be of type `text`")
    return "\n".join(texts)


@endpoint
async def post_message(request: Request, services: Services) -> Response:
    """
    Ask for a reply, and stream it.

    A message with a known id replaces that message and all behind it; while its reply is open, it is the
    same reply, unless the client asks to regenerate it.
    """
    identity = services.auth.identify(request)
    body = await json_body(request, services.gateway.max_body_bytes)
    post, prompt_id = read_chat_request(body)
    with contextlib.ExitStack() as place:
        # The place comes first: a refused post writes nothing.
        place.enter_context(services.connections.place(identity.user))
        await services.post_limit.take(identity.user)
        accepted = await services.posts.accept(
            identity.user,
            post,
            prompt_id=prompt_id,
            may_begin=True,
            again=body.get("trigger") == _REGENERATE,
        )
        services.posts.follow(accepted)
        turn = accepted.turn
        guard = services.access.guard(turn.chat_id, identity.user, owned=True)
        return _stream(services, identity, guard, turn.message_id, place)


@endpoint
async def resume(request: Request, services: Services) -> Response:
    """Stream the open reply, or one that has just ended, from its beginning; 204: there is none."""
    identity = services.auth.identify(request)
    chat_id = checked_id("id", request.path_params["chat_id"])
    owner = await services.access.user_of(chat_id)
    if owner is None or not services.access.is_readable(owner, identity.user):
        # The page of a chat that does not exist yet; another user's chat looks the same.
        return Response(status_code=204)
    # First: a turn that is accepted behind this read is none of this request's.
    accepted = await services.subscriber.open_messages(chat_id)
    snapshot = await services.subscriber.snapshot(chat_id)
    guard = services.access.guard(chat_id, identity.user)
    await guard.check(snapshot)
    message_id = await _resumable(services, snapshot, accepted)
    if message_id is None:
        return Response(status_code=204)
    with contextlib.ExitStack() as place:
        place.enter_context(services.connections.place(identity.user))
        return _stream(services, identity, guard, message_id, place)


async def _resumable(services: Services, snapshot: Event, accepted: Sequence[str]) -> str | None:
    """
    Find the open reply; else the last one, if it ended while its client was away for a moment.

    Args:
        services: Read the chat.
        snapshot: The chat.
        accepted: Ids of its messages that were open before, also those that no worker has read of yet.
    """
    messages = snapshot.data["messages"]
    statuses = {message["message"]: message["status"] for message in messages}
    if accepted and accepted[-1] not in statuses:
        return accepted[-1]
    for message in reversed(messages):
        if message["status"] == "open":
            return str(message["message"])
    if messages:
        last_id = messages[-1]["message"]
        for event in reversed(await services.subscriber.last_events(snapshot.chat, _LAST_EVENTS)):
            if event.message == last_id and event.ends_message:
                return str(last_id) if snapshot.ts - event.ts <= _RESUMABLE_MS else None
    return None


@endpoint
async def chat(request: Request, services: Services) -> Response:
    """Answer with the chat as UIMessages."""
    identity, chat_id = await readable_chat(request, services)
    snapshot = await services.subscriber.snapshot(chat_id)
    guard = services.access.guard(chat_id, identity.user)
    await guard.check(snapshot)
    if not snapshot.data["messages"] and await services.access.user_of(chat_id) is None:
        raise no_such_chat()
    document = {"id": chat_id, "messages": ui_messages(snapshot.data["messages"])}
    headers = {"Cache-Control": "no-store"}
    return Response(orjson.dumps(document), media_type="application/json", headers=headers)


@endpoint
async def stop(request: Request, services: Services) -> Response:
    """Stop every open message of a chat."""
    identity, chat_id = await readable_chat(request, services)
    owner = services.access.owner_for(identity.user)
    marked = await services.subscriber.stop(chat_id, user=owner)
    return JSONResponse({"chat_id": chat_id, "message_ids": marked})


ROUTES: Final[tuple[BaseRoute, ...]] = (
    Route("/api/chat", post_message, methods=["POST"]),
    Route("/api/chat/{chat_id}", chat),
    Route("/api/chat/{chat_id}/stream", resume),
    Route("/api/chat/{chat_id}/stop", stop, methods=["POST"]),
)


def _stream(
    services: Services,
    identity: Identity,
    guard: OwnerGuard,
    message_id: str,
    place: contextlib.ExitStack,
) -> Response:
    source = guard.events(services.subscriber.events(guard.chat_id))
    return EventStream(
        _lines(source, services, guard.chat_id, message_id),
        services,
        identity,
        place=place.pop_all(),
        headers=HEADERS,
        last_words=CUT,
    )


async def _lines(
    source: AsyncGenerator[Event, None], services: Services, chat_id: str, message_id: str
) -> AsyncGenerator[bytes, None]:
    stream = UIMessageStream(message_id)
    try:
        async with contextlib.aclosing(source):
            async for event in source:
                parts = stream.apply(event)
                if event.type == "snapshot" and not stream.started:
                    # No worker has read of it yet; or another message replaced it, and it never comes.
                    gone = await _is_gone(services, chat_id, message_id)
                    parts = stream.replaced() if gone else parts
                yield b"".join(encode_part(part) for part in parts)
                if stream.done:
                    yield DONE
                    return
    except RequestError as refusal:  # another user made the chat: the turn was dropped
        yield encode_part({"type": "error", "errorText": refusal.message})
        yield DONE


async def _is_gone(services: Services, chat_id: str, message_id: str) -> bool:
    """Whether a message that a snapshot does not have is not accepted either."""
    try:
        return message_id not in await services.subscriber.open_messages(chat_id)
    except BrokerUnavailable:
        return False  # the stream goes on, with a snapshot more
