"""
Breaks a guarantee on purpose, in the harness's own child processes, to show that the harness sees it.

Production code has no switch for any of this: scripts are rewritten and methods replaced from here,
before the role begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final


def commit(name: str | None) -> None:
    """Break *name*; None: nothing."""
    if name is not None:
        SABOTAGES[name]()


SABOTAGES: Final[dict[str, Callable[[], None]]] = {}
