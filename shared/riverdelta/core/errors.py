"""One tree of errors. Each class says whether trying again helps, and each text what to do now."""

from __future__ import annotations

from typing import ClassVar


class RiverdeltaError(Exception):
    """Root of everything riverdelta raises on purpose."""

    retry: ClassVar[bool] = False
    """True: the same call may succeed later, unchanged. False: something has to change first."""


class InvalidIdError(RiverdeltaError, ValueError):
    """An id with characters that could move keys between cluster slots. Your bug: do not retry."""


class InvalidPositionError(RiverdeltaError, ValueError):
    """A position that no event ever carried. Start with ``after=None``: that gives a snapshot."""


class SettingsError(RiverdeltaError, ValueError):
    """A setting or URL that cannot be used; the text names it and what it may be."""


class ChunkTooLarge(RiverdeltaError, ValueError):
    """A raw chunk over ``max_chunk_bytes``. Nothing was sent; split it, or raise the limit."""


class MessageExists(RiverdeltaError):
    """The message id was opened before. It is an idempotency key: the reply is already under way."""


class MessageEnded(RiverdeltaError):
    """The message has ended (completed, failed or stopped); open a new one."""


class MessageLost(RiverdeltaError):
    """The server no longer knows the message: it expired, or came back with less than it had said."""


class Stopped(RiverdeltaError):
    """A reader stopped the reply. End the provider's call; nothing more will be accepted."""


class BackpressureError(RiverdeltaError):
    """The chat's backlog stayed full for ``push_wait_s``: workers are missing or too slow."""

    retry = True


class BrokerUnavailable(RiverdeltaError):
    """Redis did not answer. Whether the last call took effect is unknown; repeating it is safe."""

    retry = True


class NotReplicated(BrokerUnavailable):
    """``durability="replicated"``: the primary has it, and no replica said in time that it does, too."""


class ServerTooOld(RiverdeltaError):
    """The server lacks sharded pub/sub: use Redis >= 7.0 or Valkey >= 7.2."""


class FormatTooNew(RiverdeltaError):
    """State was written by a newer riverdelta. Upgrade this process; another worker may go on."""
