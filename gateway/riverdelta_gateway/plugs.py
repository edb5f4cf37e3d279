"""Finds what a setting names as ``package.module:factory``."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from riverdelta.core.errors import SettingsError


def factory_named(setting: str, path: str, hint: str = "") -> Callable[..., Any]:
    """
    Import the factory that *path* names.

    Args:
        setting: The setting that has it, for the error.
        path: ``package.module:factory``.
        hint: What to install, for the error.

    Raises:
        SettingsError: There is nothing of that name.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise SettingsError(f"{setting} {path!r} must be package.module:factory")
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"{setting} {path!r} cannot be used: {error}{hint}") from error
    if not callable(factory):
        raise SettingsError(f"{setting} {path!r} cannot be called")
    return factory  # type: ignore[no-any-return]  # whatever it makes
