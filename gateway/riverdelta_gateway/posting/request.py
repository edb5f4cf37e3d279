"""Validate the request ``/chats/post``, as far as that needs no Redis. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from riverdelta.core.errors import InvalidIdError
from riverdelta.core.ids import check_id
from riverdelta_gateway.assets import ASSET_TYPES, AssetType
from riverdelta_gateway.errors import RequestError, bad_request

MAX_PROMPT_CHARS: Final = 100_000
"""A prompt is stored with its message, and sent with every snapshot: it is not the place for files."""

MAX_PROMPT_ID_CHARS: Final = 256
"""It is stored with the message, as the prompt is."""

_ALLOWED_TYPES: Final = " or ".join(f"`{name}`" for name in ASSET_TYPES)
_ASSET_FIELDS: Final[Mapping[str, AssetType | None]] = {
    "asset_id": None,
    "metric_id": "metric",
    "dashboard_id": "dashboard",
}
"""Field with an asset's id -> its type; None: the field ``asset_type`` has it."""


class AssetRef(NamedTuple):
    """The asset that a post is about. *field*: the client's field for it, named in errors."""

    type: AssetType
    id: str
    field: str = "asset_id"


class Post(NamedTuple):
    """A valid post: *prompt* or *asset* is set, ids are well-formed."""

    prompt: str | None = None
    chat_id: str | None = None
    message_id: str | None = None
    asset: AssetRef | None = None


def read_post(payload: Mapping[str, Any]) -> Post:
    """
    Read the payload of ``/chats/post``. Unknown fields are ignored.

    Raises:
        RequestError: BAD_REQUEST, with a sentence that names the field.
    """
    prompt = _prompt(payload)
    chat_id, message_id = _id(payload, "chat_id"), _id(payload, "message_id")
    asset = _asset(payload)
    if message_id is not None and chat_id is None:
        raise bad_request("chat_id must be provided when message_id is specified")
    if prompt is None and asset is None:
        raise bad_request("prompt must not be empty unless an asset is specified")
    return Post(prompt, chat_id, message_id, asset)


def read_prompt_id(payload: Mapping[str, Any]) -> str | None:
    """
    Read the client's own id of a prompt, any string; None: it has none.

    Raises:
        RequestError: BAD_REQUEST: it is no string, or too long.
    """
    prompt_id = _text(payload, "prompt_id")
    if prompt_id is not None and not 0 < len(prompt_id) <= MAX_PROMPT_ID_CHARS:
        raise bad_request(f"prompt_id must have 1 to {MAX_PROMPT_ID_CHARS} characters")
    return prompt_id


def unknown_asset(asset: AssetRef) -> RequestError:
    """Make the error of an asset that is not in the catalog."""
    return RequestError("NOT_FOUND", f"{asset.field}: there is no {asset.type} with this id")


def _prompt(payload: Mapping[str, Any]) -> str | None:
    prompt = _text(payload, "prompt")
    if prompt is None or not prompt.strip():
        return None
    if len(prompt) > MAX_PROMPT_CHARS:
        raise bad_request(f"prompt must have {MAX_PROMPT_CHARS} characters at most")
    return prompt


def _asset(payload: Mapping[str, Any]) -> AssetRef | None:
    ids = {field: id_ for field in _ASSET_FIELDS if (id_ := _id(payload, field)) is not None}
    asset_type = _text(payload, "asset_type")
    if len(ids) > 1:
        raise bad_request(f"only one of {', '.join(_ASSET_FIELDS)} may be specified")
    if asset_type is not None and asset_type not in ASSET_TYPES:
        raise bad_request(f"asset_type must be {_ALLOWED_TYPES}")
    if "asset_id" in ids:
        if asset_type is None:
            raise bad_request("asset_type must be provided when asset_id is specified")
        return AssetRef(asset_type, ids["asset_id"])
    if asset_type is not None:
        raise bad_request("asset_id must be provided when asset_type is specified")
    for field, type_ in _ASSET_FIELDS.items():
        if field in ids and type_ is not None:
            return AssetRef(type_, ids[field], field)
    return None


def _id(payload: Mapping[str, Any], field: str) -> str | None:
    value = _text(payload, field)
    if value is None:
        return None
    try:
        return check_id(field, value)
    except InvalidIdError:
        raise bad_request(
            f"{field} must have 1 to 128 characters, of A-Z a-z 0-9 . _ : @ -"
        ) from None


def _text(payload: Mapping[str, Any], field: str) -> str | None:
    value = payload.get(field)
    if not isinstance(value, str | None):
        raise bad_request(f"{field} must be a string")
    return value
