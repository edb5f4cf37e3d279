"""Import a deployment's own code, which a setting names as ``package.module:attribute``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from riverdelta.core.errors import SettingsError


def load_plugin(
    variable: str, path: str, *, hint: str = "install it, or put it on PYTHONPATH"
) -> Callable[..., Any]:
    """
    Import the function or class that a setting names. The current folder is searched, too.

    Args:
        variable: The setting as an environment variable; the error begins with it.
        path: ``package.module:name``; the name may have dots.
        hint: What to do where the module is missing, for the error.

    Raises:
        SettingsError: Nothing callable has this name; the text says what to do. Any other error comes
            from the module itself, and is not caught.
    """
    module_name, _, name = path.partition(":")
    parts = (*module_name.split("."), *name.split("."))
    if not all(part.isidentifier() for part in parts):
        raise unusable(variable, path, "write it as package.module:name")
    here = str(Path.cwd())
    if here not in sys.path:  # arq and uvicorn do the same
        sys.path.append(here)
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise unusable(variable, path, f"{error}; {hint}") from error
    try:
        found = attrgetter(name)(module)
    except AttributeError as error:
        raise unusable(variable, path, f"{module_name} has no {name!r}") from error
    if not callable(found):
        raise unusable(variable, path, "that is neither a function nor a class; name one")
    return found  # type: ignore[no-any-return]  # what it returns is checked by the caller


def unusable(variable: str, path: str, why: str) -> SettingsError:
    """Make the error that a plugin cannot be used."""
    return SettingsError(f"{variable}={path}: {why}")
