"""Errors as clients see them: a code for programs, a safe sentence for people."""

from __future__ import annotations

import logging
import secrets
from typing import Final, Literal

from riverdelta.core.errors import BrokerUnavailable, RiverdeltaError

Code = Literal["BAD_REQUEST", "UNAUTHORIZED", "NOT_FOUND", "RATE_LIMITED", "INTERNAL_SERVER_ERROR"]

HTTP_STATUS: Final[dict[Code, int]] = {
    "BAD_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "NOT_FOUND": 404,
    "RATE_LIMITED": 429,
    "INTERNAL_SERVER_ERROR": 500,
}

UNAVAILABLE_RETRY_S: Final = 2.0
"""When a request that met no Redis may succeed: about what a failover takes to be noticed."""
_UNAVAILABLE: Final = 503

_log = logging.getLogger("riverdelta.gateway")


class RequestError(Exception):
    """
    Refuses a request; the socket stays open.

    Args:
        code: What went wrong, for programs.
        message: A sentence for people. The client sees it: nothing internal, no secret.
        retry_after_s: When the same request may succeed: with RATE_LIMITED, and while Redis is away.
        http_status: Over HTTP; None: the one of *code*.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        retry_after_s: float | None = None,
        *,
        http_status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = http_status or HTTP_STATUS[code]
        self.code: Code = code
        self.message = message
        self.retry_after_s = retry_after_s


def bad_request(message: str) -> RequestError:
    """Make the error of a request that cannot succeed as it is."""
    return RequestError("BAD_REQUEST", message)


def no_such_chat() -> RequestError:
    """Make the error of a chat that is not there, or another user's: the client cannot tell which."""
    return RequestError("NOT_FOUND", "There is no such chat.")


def safe_error(error: BaseException, what: str) -> RequestError:
    """
    Turn any error into one that a client may see; the rest goes to the log, under an id.

    Args:
        error: The error.
        what: What failed, for the log.
    """
    if isinstance(error, RequestError):
        return error
    error_id = secrets.token_hex(4)
    if isinstance(error, RiverdeltaError):
        _log.warning("error %s: %s: %s", error_id, what, error)  # expected, and says what to do
    else:
        _log.error("error %s: %s", error_id, what, exc_info=error)
    if isinstance(error, BrokerUnavailable):
        return RequestError(
            "INTERNAL_SERVER_ERROR",
            f"The service is away for a moment. Try again in {UNAVAILABLE_RETRY_S:g} s, or report the "
            f"error's id: {error_id}.",
            retry_after_s=UNAVAILABLE_RETRY_S,
            http_status=_UNAVAILABLE,
        )
    return RequestError(
        "INTERNAL_SERVER_ERROR",
        f"Something went wrong here. Try again, or report the error's id: {error_id}.",
    )
