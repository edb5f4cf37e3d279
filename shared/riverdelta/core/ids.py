"""Ids of chats, messages, users and producers."""

from __future__ import annotations

import re

from riverdelta.core.errors import InvalidIdError

_ALLOWED = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


def check_id(name: str, value: str) -> str:
    """
    Return *value* if it is a valid id; *name* describes the id in the error.

    No braces and no spaces: ids are part of the cluster hash tag of every key, and spaces separate the
    fields of the wake payload.

    Raises:
        InvalidIdError: (a ``ValueError``) another character, empty, or over 128; a caller bug.
    """
    if not _ALLOWED.fullmatch(value):
        message = (
            f"{name} {value!r} is not a valid id: use 1 to 128 characters of A-Z a-z 0-9 . _ : @ -"
        )
        raise InvalidIdError(message)
    return value
