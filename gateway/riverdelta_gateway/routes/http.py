"""
Chats over plain HTTP: events as SSE, a snapshot, stop.

==========================  =========================================================================
GET /chats/{id}/events      SSE: ``data:`` is an event, ``id:`` its position. ``Last-Event-ID`` (or
                            ``?lastEventId=``, or ``?after=``) resumes behind a position; without, a
                            snapshot comes first
GET /chats/{id}             the chat as it is now: a snapshot event
POST /chats/{id}/stop       stops the message ``{"message_id"}``; without a body, every open message
GET /healthz                200 while Redis answers
==========================  =========================================================================

Errors are ``{"error": {"code", "message"}}`` with the codes of the WebSocket. While Redis is away, every
route answers 503 with ``Retry-After``; open streams go on.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Route

from riverdelta.core.events import Event
from riverdelta.core.positions import Position
from riverdelta_gateway.auth import Identity
from riverdelta_gateway.errors import (
    HTTP_STATUS,
    RequestError,
    bad_request,
    no_such_chat,
    safe_error,
)
from riverdelta_gateway.frames import error_document
from riverdelta_gateway.routes.checks import checked_id, checked_position
from riverdelta_gateway.routes.event_stream import EventStream
from riverdelta_gateway.services import Services

_RETRY_MS: Final = 500
_RETRY_JITTER_MS: Final = 1000
"""The streams of a gateway that ends come back over this time, not all at once."""

Endpoint = Callable[[Request, Services], Awaitable[Response]]


def endpoint(serve: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    """Pass the services to an endpoint; refuse foreign pages; answer errors as JSON."""

    @functools.wraps(serve)
    async def answer(request: Request) -> Response:
        services: Services = request.app.state.services
        if not services.auth.is_origin_allowed(request):
            return foreign_page()
        try:
            return await serve(request, services)
        except Exception as error:  # noqa: BLE001  # whatever goes wrong ends this request only
            return error_answer(safe_error(error, f"{request.method} {request.url.path}"))

    return answer


def error_answer(error: RequestError) -> Response:
    """Make the response that refuses a request."""
    response = JSONResponse(error_document(error), error.http_status)
    if error.code == "UNAUTHORIZED":
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(round(error.retry_after_s))
    return response


def foreign_page() -> Response:
    """Make the response to a page that is not among the allowed origins."""
    error = RequestError("UNAUTHORIZED", "This page may not use this gateway.")
    return JSONResponse(error_document(error), 403)


async def unknown_path(request: Request, error: Exception) -> Response:
    """Answer a request that no route takes; starlette calls it."""
    # The page takes every path, so starlette skipped a route with this path and another method.
    routes: list[BaseRoute] = request.app.routes
    other = any(route.matches(request.scope)[0] is Match.PARTIAL for route in routes)
    missing = isinstance(error, HTTPException) and error.status_code == HTTP_STATUS["NOT_FOUND"]
    if missing and not other:
        return error_answer(RequestError("NOT_FOUND", "There is nothing here."))
    return error_answer(bad_request(f"This path does not take {request.method}."))


async def readable_chat(request: Request, services: Services) -> tuple[Identity, str]:
    """
    Authenticate a request, and check that its user may read its chat.

    Raises:
        RequestError: UNAUTHORIZED; BAD_REQUEST; NOT_FOUND for a chat of another user.
        BrokerUnavailable: Redis did not answer; try again.
    """
    identity = services.auth.identify(request)
    chat_id = checked_id("chat_id", request.path_params["chat_id"])
    await services.access.check_readable(chat_id, identity.user)
    return identity, chat_id


async def json_body(request: Request, max_bytes: int) -> dict[str, Any]:
    """
    Read a JSON body; an empty body is an empty object.

    Raises:
        RequestError: BAD_REQUEST: the body is longer than *max_bytes*, or no JSON object.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > max_bytes:
            raise bad_request(f"The request is longer than {max_bytes} bytes.")
    try:
        document = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        raise bad_request("The request is not valid JSON.") from None
    if not isinstance(document, dict):
        raise bad_request("The request must be an object.")
    return document


# -- the endpoints -------------------------------------------------------------------------------


@endpoint
async def events(request: Request, services: Services) -> Response:
    """Stream a chat's events."""
    identity, chat_id = await readable_chat(request, services)
    after = _position_in(request)
    guard = services.access.guard(chat_id, identity.user)
    source = guard.events(
        services.subscriber.events(chat_id, None if after is None else str(after))
    )
    with contextlib.ExitStack() as place:
        place.enter_context(services.connections.place(identity.user))
        return EventStream(_encoded(source), services, identity, place=place.pop_all())


def _position_in(request: Request) -> Position | None:
    """
    Read where a stream goes on; None: it begins with a snapshot.

    A reconnect sends the last ``id:`` that it has: in the header, and from clients that cannot set one, in
    the query. An id that is no position came from elsewhere; refusing it would end an EventSource for good.

    Raises:
        RequestError: BAD_REQUEST: ``after`` is no position.
    """
    last_id = request.headers.get("last-event-id") or request.query_params.get("lastEventId")
    if not last_id:
        return checked_position(request.query_params.get("after"))
    try:
        return checked_position(last_id)
    except RequestError:
        return None


@endpoint
async def snapshot(request: Request, services: Services) -> Response:
    """Answer with the chat as it is now."""
    identity, chat_id = await readable_chat(request, services)
    event = await services.subscriber.snapshot(chat_id)
    await services.access.guard(chat_id, identity.user).check(event)
    if (
        not event.seq
        and not event.data["messages"]
        and await services.access.user_of(chat_id) is None
    ):
        raise no_such_chat()
    return Response(event.raw, media_type="application/json", headers={"Cache-Control": "no-store"})


@endpoint
async def stop(request: Request, services: Services) -> Response:
    """Stop one message, or every open message of the chat."""
    identity, chat_id = await readable_chat(request, services)
    body = await json_body(request, services.gateway.max_message_bytes)
    message_id = body.get("message_id")
    if message_id is not None and not isinstance(message_id, str):
        raise bad_request("message_id must be a string.")
    if message_id is not None:
        checked_id("message_id", message_id)
    marked = await services.subscriber.stop(
        chat_id, message_id, user=services.access.owner_for(identity.user)
    )
    return JSONResponse({"chat_id": chat_id, "message_ids": marked})


@endpoint
async def healthz(_: Request, services: Services) -> Response:
    """Report that this process can serve: Redis answers."""
    await services.client.ping()
    facts = {"status": "ok", "sockets": len(services.sockets), "chats": services.hub.chats}
    return JSONResponse(facts)


ROUTES: Final[tuple[BaseRoute, ...]] = (
    Route("/healthz", healthz),
    Route("/chats/{chat_id}", snapshot),
    Route("/chats/{chat_id}/events", events),
    Route("/chats/{chat_id}/stop", stop, methods=["POST"]),
)


async def _encoded(source: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    """Encode events as SSE; an ``error`` event ends a chat that is not the reader's any more."""
    yield b"retry: %d\n\n" % (_RETRY_MS + secrets.randbelow(_RETRY_JITTER_MS + 1))
    try:
        async with contextlib.aclosing(source):
            async for event in source:
                yield b"id: %b\ndata: %b\n\n" % (event.position.encode(), event.raw)
    except RequestError as refusal:
        yield b"event: error\ndata: %b\n\n" % orjson.dumps(error_document(refusal))
