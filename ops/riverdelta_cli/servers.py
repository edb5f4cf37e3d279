"""Which server a command talks to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from riverdelta import Settings
from riverdelta.broker.connection import Endpoint
from riverdelta_cli.folder import running_url


def settings_for(url: str | None, folder: Path | None, **changes: Any) -> Settings:
    """
    Make the settings of a command.

    Args:
        url: ``--redis-url`` or RIVERDELTA_REDIS_URL. None: the ``up`` that runs on *folder*, else
            the default of `Settings`.
        folder: Where to look for an ``up``. None: nowhere.
        changes: Other settings.

    Raises:
        ValidationError: A RIVERDELTA_* variable cannot be used.
        SettingsError: The URL cannot be used.
    """
    if url is None and folder is not None:
        url = running_url(folder)
    if url is not None:
        changes["redis_url"] = url
    settings = Settings(**changes)
    for checked in {settings.redis_url, settings.effective_queue_url}:
        Endpoint(checked, settings.command_timeout_s)
    return settings


def embedded_settings(url: str, **changes: Any) -> Settings:
    """Make the settings for a server of our own: chats and queue are both there."""
    return Settings(redis_url=url, queue_url=url, **changes)
