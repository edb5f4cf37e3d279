"""Choose the server that a command uses."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from riverdelta import BrokerUnavailable, Settings, SettingsError
from riverdelta.broker.client import name_of
from riverdelta_cli.errors import CliError
from riverdelta_cli.output.words import redacted
from riverdelta_cli.processes.folder import running_url


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
        CliError: The URL cannot be used; the text says where it is from.
    """
    if url is None and folder is not None:
        url = running_url(folder)
    if url is not None:
        changes["redis_url"] = url
    settings = Settings(**changes)
    given = (
        "RIVERDELTA_REDIS_URL" if url == os.environ.get("RIVERDELTA_REDIS_URL") else "--redis-url"
    )
    _check(settings.redis_url, given)
    _check(settings.effective_queue_url, "RIVERDELTA_QUEUE_URL")
    return settings


def _check(url: str, given: str) -> None:
    try:
        name_of(url)
    except (SettingsError, ValueError) as error:
        why = "use redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
        if url.startswith(("redis://", "rediss://", "unix://")):
            why = "it must be redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]"
        elif url.startswith(("redis+", "rediss+")) and isinstance(error, SettingsError):
            why = str(error).partition(": ")[2]
        # Not the error itself: it may quote the URL, and so the password.
        raise CliError(f"cannot use {given} {redacted(url)!r}: {why}") from None


@contextlib.contextmanager
def hint_at_up(url: str | None) -> Iterator[None]:
    """
    Explain how to get a server, if the user named none and none answers.

    Args:
        url: The server that was named, if one was.
    """
    try:
        yield
    except BrokerUnavailable as error:
        if url is not None or not _is_refused(error):
            raise
        text = f"{str(error).rstrip('.')}; start it (riverdelta up), or name another (--redis-url)"
        raise CliError(text) from error


def _is_refused(error: BaseException | None) -> bool:
    """Whether no server listens: the connection was refused, or its socket does not exist."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError | FileNotFoundError | socket.gaierror):
            return True
        error = error.__cause__ or error.__context__
    return False


def embedded_settings(url: str, **changes: Any) -> Settings:
    """Make the settings for an embedded server: it has both chats and queue."""
    return Settings(redis_url=url, queue_url=url, **changes)
