"""Makes the backend that the settings name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from riverdelta.core.errors import SettingsError
from riverdelta_gateway.backends.base import ChatBackend
from riverdelta_gateway.plugs import factory_named
from riverdelta_gateway.turns.settings import TurnSettings

_BUILT_IN: Final[Mapping[str, str]] = {
    "scripted": "riverdelta_gateway.backends.scripted:ScriptedBackend",
    "openai": "riverdelta_gateway.backends.openai_chat:OpenAIBackend",
    "anthropic": "riverdelta_gateway.backends.anthropic:AnthropicBackend",
}
"""Not imported before they are asked for: the SDKs come with an extra, and load for a second."""

_HINT: Final = ': pip install "riverdelta[backends]"'


def make_backend(settings: TurnSettings) -> ChatBackend:
    """
    Make the backend that ``settings.backend`` names.

    Raises:
        SettingsError: Nothing has that name, its package is not installed, or it lacks a setting.
    """
    name = settings.backend
    if name not in _BUILT_IN and ":" not in name:
        choices = ", ".join(_BUILT_IN)
        raise SettingsError(
            f"backend {name!r} is unknown: use {choices}, or package.module:factory"
        )
    factory = factory_named(
        "backend", _BUILT_IN.get(name, name), _HINT if name in _BUILT_IN else ""
    )
    return cast("ChatBackend", factory(settings))
