"""
Breaks a guarantee on purpose, in the harness's own child processes, to show that the harness sees it.

Production code has no switch for any of this: scripts are rewritten and methods replaced from here,
before the role begins. What each must be seen as is in `SEEN_AS`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final

from riverdelta.broker.store import scripts
from riverdelta.broker.store.head import Head
from riverdelta.broker.store.load import load
from riverdelta_workers import pump

_APART_S: Final = 0.02
"""Between publishing and committing: the window in which a fault tells them apart."""


def commit(name: str | None) -> None:
    """Break *name*; None: nothing."""
    if name is not None:
        SABOTAGES[name]()


def _rewrite(script: scripts.Script, old: str, new: str) -> None:
    """Swap a piece of a Lua script; it must be there once, or the switch would do nothing."""
    source = script._source  # noqa: SLF001  # production code offers no way to do this
    if source.count(old) != 1:
        raise LookupError(f"the script is not what this sabotage was written for: {old!r}")
    script._source = source.replace(old, new)  # noqa: SLF001  # as above
    script._sha = hashlib.sha1(script._source.encode(), usedforsecurity=False).hexdigest()  # noqa: SLF001


class _Whatever(str):
    """An owner that is equal to every other."""

    __slots__ = ()

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = str.__hash__


class _Any(int):
    """A term that is equal to every other."""

    __slots__ = ()

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = int.__hash__


def _no_term_check() -> None:
    """
    Owners are not fenced: they load and commit as before, even when they were declared dead.

    The check in the script alone is not enough to break anything: a fenced owner's state is old, too,
    and it learns from its heartbeat that it is dead before it could load again.
    """
    _rewrite(scripts._commit, "h[1] ~= ARGV[1] or version ~= ARGV[2]", "version ~= ARGV[2]")  # noqa: SLF001

    _rewrite(scripts._persist, "term ~= ARGV[1]", "false")  # noqa: SLF001

    async def load_as_ours(*args: Any, **options: Any) -> tuple[Head, Any] | None:
        loaded = await load(*args, **options)
        if loaded is None:
            return None
        head, hot = loaded
        return head._replace(term=_Any(head.term), owner=_Whatever(head.owner)), hot

    async def beat_again(
        executor: Any, members_key: str, member: str, *, first: bool
    ) -> int | None:
        return await beat(
            executor, members_key, member, first=first or members_key.endswith("workers")
        )

    beat, scripts.beat = scripts.beat, beat_again
    pump.load = load_as_ours  # type: ignore[attr-defined]  # as pump itself sees it


def _no_version_check() -> None:
    """A commit is stored whatever it builds on."""
    _rewrite(scripts._commit, "h[1] ~= ARGV[1] or version ~= ARGV[2]", "h[1] ~= ARGV[1]")  # noqa: SLF001


def _no_dedupe() -> None:
    """What is pushed again is stored again."""
    _rewrite(
        scripts._push,  # noqa: SLF001  # as in _rewrite
        "if first + count - 1 <= last then",
        "if false then",
    )
    _rewrite(scripts._push, "local skip = last + 1 - first", "local skip = 0")  # noqa: SLF001


def _publish_outside() -> None:
    """Events are published by a command of their own, before they are committed."""
    _rewrite(scripts._commit, "redis.call('SPUBLISH', KEYS[3], event)", "")  # noqa: SLF001
    commit_only = scripts.commit

    async def publish_and_commit(executor: Any, keys: Any, args: Any) -> Any:
        first = 8 + args[6]  # behind the head's fields, see commit.lua
        for event in args[first : first + args[first - 1]]:
            await executor.execute("SPUBLISH", keys[2], event)
        await asyncio.sleep(_APART_S)
        return await commit_only(executor, keys, args)

    scripts.commit = publish_and_commit


def _wake_dropped() -> None:
    """Owners get no wakes."""
    pump.Pump._on_wake = lambda *_: None  # type: ignore[method-assign]  # noqa: SLF001


def _epoch_kept() -> None:
    """A log keeps its epoch whatever the server has forgotten."""
    pump._new_epoch = lambda: "aaaaaaaa"  # noqa: SLF001  # as in _rewrite


SABOTAGES: Final[dict[str, Callable[[], None]]] = {
    "no-term-check": _no_term_check,
    "no-version-check": _no_version_check,
    "no-dedupe": _no_dedupe,
    "publish-outside": _publish_outside,
    "wake-dropped": _wake_dropped,
    "epoch-kept": _epoch_kept,
}

SEEN_AS: Final[dict[str, frozenset[str]]] = {
    "no-term-check": frozenset({"two owners"}),
    # A commit that is stored twice moves what is behind it, also where its reply reaches nobody.
    "no-version-check": frozenset({"two owners", "diverged", "reordered", "repeated"}),
    "no-dedupe": frozenset({"repeated"}),
    "publish-outside": frozenset({"diverged"}),
    "wake-dropped": frozenset({"no end"}),
    "epoch-kept": frozenset({"diverged"}),
}
"""The kinds of violation of which one must be seen. None but `no end` ever comes of a slow machine."""
