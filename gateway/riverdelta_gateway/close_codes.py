"""
Why the gateway closes a socket. The code's range says what the client does then.

=============  ===================================================================================
range          what the client does
=============  ===================================================================================
1000 to 1015   the protocol's own: the client chose 1000 and 1001; 1007 and 1009 are its bug (a
               text frame that is no UTF-8, a frame beyond ``max_message_bytes`` four times over);
               after 1006, 1011 (no pong in time) and 1012 reconnect as in the next line
4000 to 4499   reconnect after a random part of a second, then twice as long each time; subscribe
               again with the position of the last event of each chat: nothing is lost or repeated
4500 to 4999   do not reconnect until something changes: the reason says what
=============  ===================================================================================
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class CloseCode(IntEnum):
    """Codes of the gateway's own; see the module for the ranges."""

    RESTARTING = 4000
    """This process ends (SIGTERM, a deployment): reconnect to another one."""
    TOO_SLOW = 4001
    """Nothing was read for ``stall_timeout_s``, or answers piled up unread."""
    TOKEN_EXPIRED = 4002
    """Reconnect with a new token."""
    UNAUTHORIZED = 4500
    """No token, or an invalid one: get another one first."""
    TOO_MANY_SOCKETS = 4501
    """The user has ``max_sockets_per_user`` sockets and streams open in this process."""


REASONS: Final = {
    CloseCode.RESTARTING: "the gateway restarts: reconnect",
    CloseCode.TOO_SLOW: "nothing was read for too long: reconnect",
    CloseCode.TOKEN_EXPIRED: "the token expired: reconnect with a new one",
    CloseCode.UNAUTHORIZED: "no valid token: get a new one",
    CloseCode.TOO_MANY_SOCKETS: "too many sockets: close one first",
}
"""Text of the close frame, for people; at most 123 bytes."""
