"""How often Python's cyclic garbage collector runs in a process that does nothing but pump."""

from __future__ import annotations

import gc
from typing import Final

_YOUNG: Final = 10_000
"""
New objects at which it looks at them (Python's own: 700). A batch makes some hundreds, which their
reference counts free at once: looking found nothing, and was a fifth of a worker's time.
"""


def collect_less() -> None:
    """
    Leave what stands now out of every collection, and collect less often. Once, after the imports.

    A full collection would stop all chats of the process, for 10 ms over the imported modules alone.
    It is for whoever owns the process to decide: a library does not call this.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
