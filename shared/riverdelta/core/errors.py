"""Errors, in one tree. Each class says whether a retry helps; each text says what to do."""

from __future__ import annotations

from typing import ClassVar


class RiverdeltaError(Exception):
    """Base class of every error that riverdelta raises on purpose."""

    retry: ClassVar[bool] = False
    """True: the same call may succeed later. False: something has to change first."""


class InvalidIdError(RiverdeltaError, ValueError):
    """An id with characters that could move keys between cluster slots. Your bug: do not retry."""


class InvalidPositionError(RiverdeltaError, ValueError):
    """A position that no event ever had. Start with ``after=None`` to get a snapshot."""


class SettingsError(RiverdeltaError, ValueError):
    """A setting or URL that cannot be used. The text names it and the values it may have."""


class ChunkTooLarge(RiverdeltaError, ValueError):
    """A raw chunk over ``max_chunk_bytes``. Nothing was sent; split it, or raise the limit."""


class LimitExceeded(RiverdeltaError, ValueError):
    """An entry would give a message more parts than it may have: it is rejected, the stream goes on."""


class MessageExists(RiverdeltaError):
    """The message id was used before. It is an idempotency key: the reply exists or is under way."""


class NotChatOwner(RiverdeltaError):
    """
    The chat has another owner than the user whom the message is for, or none. Nothing was stored.

    A chat has one owner for its life. Use another chat id; never show the user that chat.
    """


class MessageEnded(RiverdeltaError):
    """The message has ended (completed, failed or stopped); open a new one."""


class MessageLost(RiverdeltaError):
    """The server no longer knows the message: it expired, or the server lost data. Open a new one."""


class Stopped(RiverdeltaError):
    """A reader stopped the reply. End the provider's call; further pushes are refused."""


class BackpressureError(RiverdeltaError):
    """The chat's backlog stayed full for ``push_wait_s``: add workers, or push more slowly."""

    retry = True


class BrokerUnavailable(RiverdeltaError):
    """Redis did not answer. Whether the last call took effect is in doubt; repeating it is safe."""

    retry = True


class NotReplicated(BrokerUnavailable):
    """``durability="replicated"``: the primary has the data, but no replica confirmed it in time."""


class ServerTooOld(RiverdeltaError):
    """The server lacks sharded pub/sub: use Redis >= 7.0 or Valkey >= 7.2."""


class FormatTooNew(RiverdeltaError):
    """State was written by a newer riverdelta. Upgrade this process; another worker may go on."""
