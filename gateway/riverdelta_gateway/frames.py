"""Requests and responses as JSON text frames. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson
from websockets.frames import Frame, Opcode

from riverdelta.core.events import Event
from riverdelta_gateway.errors import RequestError, bad_request

SendMethod = Literal["All", "SenderOnly"]

POST: Final = "/chats/post"
SUBSCRIBE: Final = "/chats/subscribe"
_MAX_REQUEST_ID: Final = 128
_POST_ERROR_ALIAS: Final = "postThread"
"""Clients that are older than the name ``error`` know the error frames of `POST` by this name."""


@dataclass(frozen=True, slots=True)
class Request:
    """
    A client's request.

    Attributes:
        route: Name in the route table.
        payload: Its arguments.
        request_id: Echoed in the answer, if the client gave one.
    """

    route: str
    payload: dict[str, Any]
    request_id: str | int | None = None


def parse_request(data: str | bytes, max_bytes: int) -> Request:
    """
    Read a request.

    Raises:
        RequestError: BAD_REQUEST: too long, no JSON, or not of the shape of a request.
    """
    # A character has one byte at least: a text with too many characters need not be encoded.
    if len(data) > max_bytes or (isinstance(data, str) and len(data.encode()) > max_bytes):
        raise bad_request(f"The request is longer than {max_bytes} bytes.")
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise bad_request("The request is not valid JSON.") from None
    if not isinstance(document, dict):
        raise bad_request('A request is an object: {"route": ..., "payload": {...}}.')
    route, payload = document.get("route"), document.get("payload", {})
    request_id = document.get("request_id")
    if not isinstance(route, str):
        raise bad_request("route must be a string.")
    if not isinstance(payload, dict):
        raise bad_request("payload must be an object.")
    if isinstance(request_id, bool) or not isinstance(request_id, str | int | None):
        raise bad_request("request_id must be a string or a whole number.")
    if isinstance(request_id, str) and len(request_id) > _MAX_REQUEST_ID:
        raise bad_request(f"request_id must have {_MAX_REQUEST_ID} characters at most.")
    return Request(route, payload, request_id)


def response(
    route: str,
    event: str,
    payload: Any,
    *,
    error: RequestError | None = None,
    sent_by: str | None = None,
    send_method: SendMethod = "SenderOnly",
    position: str | None = None,
    request_id: str | int | None = None,
) -> bytes:
    """
    Encode a response as a text frame.

    Args:
        route: Route of the request that it answers, or belongs to.
        event: Its name.
        payload: Any value that orjson encodes.
        error: Why the request failed; None: it did not.
        sent_by: The user whose request it was.
        send_method: ``All``: all sockets of the user get it.
        position: Its position on a chat's log.
        request_id: Id of the request; left out where the client gave none.
    """
    fields: dict[str, Any] = {
        "route": route,
        "event": event,
        "payload": payload,
        "error": None if error is None else _error_fields(error),
        "sent_by": sent_by,
        "send_method": send_method,
        "position": position,
    }
    if request_id is not None:
        fields["request_id"] = request_id
    if route == POST and event == "error":
        fields["alias"] = _POST_ERROR_ALIAS
    return framed(orjson.dumps(fields))


def error_response(error: RequestError, request: Request | None = None) -> bytes:
    """Encode the refusal of *request*; None: the request could not be read."""
    route, request_id = ("", None) if request is None else (request.route, request.request_id)
    return response(route, "error", None, error=error, request_id=request_id)


def error_document(error: RequestError) -> dict[str, Any]:
    """Make the body of an HTTP response for an error."""
    return {"error": _error_fields(error)}


def event_response(type_: str, raw: bytes, position: str) -> bytes:
    """Encode the delivery of an event as a text frame; *raw* is the event's own JSON."""
    return framed(
        b'{"route":"%b","event":"%b","payload":%b,"error":null,"sent_by":null,'
        b'"send_method":"SenderOnly","position":"%b"}'
        % (SUBSCRIBE.encode(), type_.encode(), raw, position.encode())
    )


def framed(text: bytes) -> bytes:
    """Put UTF-8 into a WebSocket text frame. Servers do not mask: the same bytes serve all sockets."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)


def merged_delta(first: Event, last: Event, text: str) -> bytes:
    """
    Encode a run of deltas of one chunk as one event; *text* is the text of all of them.

    It has the ``offset`` of the first, the ``seq`` and ``ts`` of the last, and says with
    ``first_seq`` where the run begins: an event follows position ``s`` if its ``first_seq`` (else its
    ``seq``) is ``s + 1``.
    """
    fields = {
        "v": 1,
        "seq": last.seq,
        "first_seq": first.seq,
        "epoch": last.epoch,
        "chat": last.chat,
        "message": last.message,
        "chunk": last.chunk,
        "type": "chunk.delta",
        "ts": last.ts,
        "data": {"offset": first.data["offset"], "text": text},
    }
    return orjson.dumps(fields)


def _error_fields(error: RequestError) -> dict[str, Any]:
    fields: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.retry_after_s is not None:
        fields["retry_after_s"] = error.retry_after_s
    return fields
