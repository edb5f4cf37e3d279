"""Scripts whose replies are lost, or before which something happens."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from riverdelta import (
    BrokerUnavailable,
)
from riverdelta.broker.store import scripts


def lose_first_reply(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Let the first call of a script take effect, and lose its reply; the list grows by each reply."""
    script, replies = getattr(scripts, name), []

    async def call(*args: Any, **options: Any) -> Any:
        replies.append(await script(*args, **options))
        if len(replies) == 1:
            raise BrokerUnavailable("lost on the way back")
        return replies[-1]

    monkeypatch.setattr(scripts, name, call)
    return replies


def wrap(monkeypatch: pytest.MonkeyPatch, name: str, before: Callable[[], Awaitable[Any]]) -> None:
    """Have *before* run, and perhaps raise, before each call of a script."""
    script = getattr(scripts, name)

    async def call(*args: Any, **options: Any) -> Any:
        await before()
        return await script(*args, **options)

    monkeypatch.setattr(scripts, name, call)
