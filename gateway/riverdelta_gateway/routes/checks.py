"""Check single values of a request, of a WebSocket or of HTTP."""

from __future__ import annotations

from riverdelta.core.errors import InvalidIdError, InvalidPositionError
from riverdelta.core.ids import check_id
from riverdelta.core.positions import Position
from riverdelta_gateway.errors import bad_request


def checked_id(name: str, value: str) -> str:
    """
    Return *value* if it is a valid id.

    Raises:
        RequestError: BAD_REQUEST.
    """
    try:
        return check_id(name, value)
    except InvalidIdError as error:
        raise bad_request(f"{error}.") from None


def checked_position(value: object) -> Position | None:
    """
    Read a position; None stays None.

    Raises:
        RequestError: BAD_REQUEST.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise bad_request("after must be a position, a string such as 9f2c41aa:7.")
    try:
        return Position.parse(value)
    except InvalidPositionError:
        raise bad_request("after must be a position, a string such as 9f2c41aa:7.") from None
