"""Read a chat's head hash: its epoch, position, owner and open messages."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store import scripts
from riverdelta.broker.store.fields import check_format, int_of, text_of
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.core.state import Recent


class Head(NamedTuple):
    """The head hash, read."""

    epoch: str
    seq: int
    version: int
    processed: int
    processed_bytes: int
    pushed: int
    term: int
    owner: str
    claims: int
    open: list[str]
    recent: dict[str, Recent]
    log: tuple[int, int, int]

    @classmethod
    def of(cls, fields: dict[str, bytes]) -> Head:
        """
        Read HGETALL's fields.

        Raises:
            FormatTooNew: A newer riverdelta wrote them.
        """
        check_format(fields, "chat")
        messages = orjson.loads(fields.get("messages", b"[]"))
        return cls(
            epoch=text_of(fields, "epoch"),
            seq=int_of(fields, "seq"),
            version=int_of(fields, "version"),
            processed=int_of(fields, "processed"),
            processed_bytes=int_of(fields, "processed_bytes"),
            pushed=int_of(fields, "pushed"),
            term=int_of(fields, "term"),
            owner=text_of(fields, "owner"),
            claims=int_of(fields, "claims"),
            open=text_of(fields, "open").split(),
            recent={mid: Recent(*entry) for mid, *entry in messages},
            log=(
                int_of(fields, "log_first", 1),
                int_of(fields, "log_half", 1),
                int_of(fields, "log_half_bytes"),
            ),
        )


async def read_head(executor: Commands, keys: ChatKeys) -> Head | None:
    """Read a chat's head; None: there is no such chat."""
    fields = scripts.as_hash(await executor.execute("HGETALL", keys.head))
    return Head.of(fields) if fields else None
