"""A Redis that knows two scripts: what ``commit.lua`` and ``snapshot.lua`` do, in plain Python."""

from __future__ import annotations

from collections import deque
from typing import Any

from riverdelta.broker.redis.wire import Arg
from riverdelta.broker.store import scripts
from riverdelta.broker.store.fields import STORED_FORMAT
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.core.errors import BrokerUnavailable


class HashStore:
    """
    Holds one chat as Redis would: its hashes, its log, its dead letters. One owner, at term 1.

    `tests/integration/store/test_hash_store.py` holds it to a real server.
    """

    closed = False

    def __init__(self, keys: ChatKeys) -> None:
        self.hashes: dict[str, dict[str, bytes]] = {}
        self.log: list[bytes] = []
        self.dead: list[dict[str, bytes]] = []
        head: list[Arg] = [
            "v",
            STORED_FORMAT,
            "term",
            1,
            "owner",
            "w",
            "epoch",
            "e1",
            "processed",
            0,
        ]
        self._set(keys.head, head)

    async def connect(self) -> None:
        """Nothing to connect to."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def run_id_for(self, key: str) -> str | None:
        """No server."""
        del key
        return None

    def unavailable(self, error: BaseException | str) -> BrokerUnavailable:
        """Never said."""
        return BrokerUnavailable(str(error))

    async def execute(self, *args: Arg) -> Any:
        """Run one of the few commands that owners and readers send."""
        name, *rest = args
        if name == "HGETALL":
            return self._flat(str(rest[0]))
        if name == "HGET":
            return self.hashes.get(str(rest[0]), {}).get(str(rest[1]))
        assert name == "EVALSHA", name
        count = int(rest[1])
        keys = [str(key) for key in rest[2 : 2 + count]]
        if rest[0] == scripts._snapshot._sha:
            return [self._flat(key) for key in keys]
        assert rest[0] == scripts._commit._sha
        return self._commit(keys, deque(rest[2 + count :]))

    def _flat(self, key: str) -> list[bytes]:
        return [part for field in self.hashes.get(key, {}).items() for part in _pair(*field)]

    def _set(self, key: str, fields: list[Arg]) -> None:
        stored = self.hashes.setdefault(key, {})
        for name, value in zip(fields[::2], fields[1::2], strict=True):
            stored[_bytes(name).decode()] = _bytes(value)

    def _commit(self, keys: list[str], args: deque[Arg]) -> list[bytes]:
        def take(count: Arg) -> list[Arg]:
            return [args.popleft() for _ in range(int(count))]

        head = self.hashes[keys[0]]
        term, version, _trim, _most, _first, first_seq, head_args = take(7)
        assert (_bytes(term), _bytes(version)) == (head["term"], head.get("version", b"0"))
        new_version = int(version) + 1
        self._set(keys[0], ["version", new_version, "claims", 0, *take(head_args)])
        events = take(args.popleft())
        for _ in range(int(args.popleft())):
            letter = map(_bytes, take(5))
            names = ("code", "detail", "message", "type", "data")
            self.dead.append(dict(zip(names, letter, strict=True)))
        take(args.popleft())  # of producers, which nobody here reads
        for field in take(args.popleft()):
            head.pop(str(field), None)
        take(args.popleft())  # numbers of producers, which nobody here reads
        for key in keys[5:]:
            fresh, fields = take(2)
            if fresh == "1":
                self.hashes.pop(key, None)
            if int(fields):
                self._set(key, take(fields))
        assert not args
        assert int(first_seq) == len(self.log) + 1
        self.log += map(_bytes, events)
        return [b"committed", _bytes(new_version)]


def _pair(name: str, value: bytes) -> tuple[bytes, bytes]:
    return name.encode(), value


def _bytes(value: Arg) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
