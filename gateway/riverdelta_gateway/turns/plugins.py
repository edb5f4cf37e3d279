"""Make what the settings name: the backend, the asset catalog, the history store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

from pydantic import SecretStr

from riverdelta.broker.plugin import load_plugin
from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta.core.errors import SettingsError
from riverdelta_gateway.assets import (
    DEMO_FOLDER,
    AssetCatalog,
    AssetPolicy,
    FolderCatalog,
    GuardedCatalog,
)
from riverdelta_gateway.backends.base import ChatBackend
from riverdelta_gateway.turns.history import ChatHistory, HistoryStore
from riverdelta_gateway.turns.settings import TurnSettings


def make_backend(settings: TurnSettings) -> ChatBackend:
    """
    Make the backend that ``settings.backend`` names.

    Raises:
        SettingsError: Nothing has this name, its package is not installed, or it lacks a setting.
    """
    name, variable = settings.backend, _variable("backend")
    if ":" in name:
        return cast("ChatBackend", load_plugin(variable, name)(settings))
    built_in = _BACKENDS.get(name)
    if built_in is None:
        choices = ", ".join(_BACKENDS)
        raise SettingsError(f"{variable}={name}: use {choices}, or package.module:name")
    make = load_plugin(variable, built_in.path, hint='pip install "riverdelta[backends]"')
    return cast("ChatBackend", make(**built_in.arguments(settings)))


def source_of(settings: TurnSettings) -> str:
    """
    Say how the backend that ``settings.backend`` names encodes replies; ``text`` for one of your own.

    For a process that makes no backend; the turns process says it for certain.
    """
    built_in = _BACKENDS.get(settings.backend)
    return "text" if built_in is None else built_in.source


def make_catalog(settings: TurnSettings) -> AssetCatalog:
    """
    Make the asset catalog that ``settings.asset_catalog`` names; unset: files in a folder.

    With ``settings.asset_policy``, that policy is asked for each asset.

    Raises:
        SettingsError: Nothing has this name.
    """
    catalog: AssetCatalog = FolderCatalog(settings.assets_dir or DEMO_FOLDER)
    if settings.asset_catalog is not None:
        make = load_plugin(_variable("asset_catalog"), settings.asset_catalog)
        catalog = cast("AssetCatalog", make(settings))
    if settings.asset_policy is None:
        return catalog
    make = load_plugin(_variable("asset_policy"), settings.asset_policy)
    return GuardedCatalog(catalog, cast("AssetPolicy", make(settings)))


def make_history(settings: TurnSettings, subscriber: ChatReader) -> HistoryStore:
    """
    Make the history store that ``settings.history_store`` names; unset: the chat itself.

    Raises:
        SettingsError: Nothing has this name.
    """
    if settings.history_store is None:
        return ChatHistory(subscriber)
    make = load_plugin(_variable("history_store"), settings.history_store)
    return cast("HistoryStore", make(settings))


def _variable(field: str) -> str:
    return f"RIVERDELTA_TURNS_{field.upper()}"


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _scripted(settings: TurnSettings) -> dict[str, Any]:
    return {"pace_ms": settings.scripted_pace_ms}


def _openai(settings: TurnSettings) -> dict[str, Any]:
    return {
        "model": settings.openai_model,
        "system_prompt": settings.system_prompt,
        "api_key": _secret(settings.openai_api_key),
        "base_url": settings.openai_base_url,
        "timeout_s": settings.provider_silence_s,
        "max_retries": settings.provider_retries,
    }


def _anthropic(settings: TurnSettings) -> dict[str, Any]:
    return {
        "model": settings.anthropic_model,
        "system_prompt": settings.system_prompt,
        "max_reply_tokens": settings.max_reply_tokens,
        "api_key": _secret(settings.anthropic_api_key),
        "base_url": settings.anthropic_base_url,
        "timeout_s": settings.provider_silence_s,
        "max_retries": settings.provider_retries,
    }


def _gemini(settings: TurnSettings) -> dict[str, Any]:
    return {
        "model": settings.gemini_model,
        "system_prompt": settings.system_prompt,
        "api_key": _secret(settings.gemini_api_key),
        "base_url": settings.gemini_base_url,
        "timeout_s": settings.provider_silence_s,
        "max_retries": settings.provider_retries,
    }


class _BuiltIn(NamedTuple):
    """
    A backend of ours.

    Attributes:
        path: Imported only when it is chosen: an SDK comes with an extra, and loads for a second.
        source: How it encodes replies.
        arguments: Keyword arguments of its class, read from the settings.
    """

    path: str
    source: str
    arguments: Callable[[TurnSettings], dict[str, Any]]


_BACKENDS: Final[Mapping[str, _BuiltIn]] = {
    "scripted": _BuiltIn(
        "riverdelta_gateway.backends.scripted:ScriptedBackend", "openai-chat", _scripted
    ),
    "openai": _BuiltIn(
        "riverdelta_gateway.backends.openai_chat:OpenAIBackend", "openai-chat", _openai
    ),
    "anthropic": _BuiltIn(
        "riverdelta_gateway.backends.anthropic:AnthropicBackend", "anthropic", _anthropic
    ),
    "gemini": _BuiltIn("riverdelta_gateway.backends.gemini:GeminiBackend", "gemini", _gemini),
}
"""Name in the settings -> backend."""
