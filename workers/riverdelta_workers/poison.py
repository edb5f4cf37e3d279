"""Fold a batch for the pump, and skip an entry that breaks the fold or kills its worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from riverdelta.broker.redis.executor import Arg
from riverdelta.broker.store.save import HotChat, LogLimits
from riverdelta.core.changes import Changes
from riverdelta.core.filter_results import FilterResult
from riverdelta.core.state import Entry
from riverdelta_workers.attachment import Attachment

CLAIMS_BEFORE_DEAD_LETTER: Final = 3
"""Claims without a commit after which the next entry is taken for a worker-killing one."""

_MAY_KILL: Final = frozenset({"chunk", "tool_result", "annotate"})
"""Entry types that may be skipped; without the others, a message could never begin or end."""

_LOGGED_CHARS: Final = 500

_log = logging.getLogger("riverdelta.worker")


class Folded(NamedTuple):
    """The changes of a batch, and the commit that writes them: see ``commit.lua``."""

    changes: Changes
    keys: list[str]
    args: list[Arg]


def fold_batch(
    attachment: Attachment,
    hot: HotChat,
    entries: Sequence[Entry],
    filter_results: Mapping[int, FilterResult],
    *,
    log: LogLimits,
    trim: bool,
) -> Folded | None:
    """
    Fold a batch; None: an entry broke the fold, start over to find it.

    Args:
        attachment: The chat; remembers which entry to skip, and why.
        hot: The chat's state, which is advanced. After None it is void.
        entries: The next entries.
        filter_results: Results of filter agents for them.
        log: Bounds of the chat's log.
        trim: Whether processed entries may be trimmed.
    """
    now_ms = time.time_ns() // 1_000_000
    poison = attachment.poison
    killer = attachment.claims > CLAIMS_BEFORE_DEAD_LETTER and entries[0].type in _MAY_KILL
    if poison is None and killer:
        detail = f"{attachment.claims - 1} workers died before they could commit it"
        poison = (entries[0].number, "killed_workers", detail)
    if poison is not None and poison[0] == entries[0].number:
        attachment.poison = None
        changes = hot.fold.reject(entries[0], poison[1], poison[2], now_ms)
        _log_hidden(attachment.chat_id, changes)
        return Folded(changes, *hot.encode(changes, log=log, now_ms=now_ms, trim=trim))
    try:
        changes = hot.fold.apply(entries, now_ms, filter_results)
        _log_hidden(attachment.chat_id, changes)
        return Folded(changes, *hot.encode(changes, log=log, now_ms=now_ms, trim=trim))
    except Exception as error:  # noqa: BLE001  # guarantee 7: whatever breaks, the stream goes on
        if len(entries) == 1:
            detail = f"{type(error).__name__}: {error}"
            attachment.poison = (entries[0].number, "fold_error", detail)
            _log.exception("chat %s: dead letter %d", attachment.chat_id, entries[0].number)
        else:
            attachment.single_until = entries[-1].number
        attachment.drop()
        attachment.single = True
        return None


def _log_hidden(chat_id: str, changes: Changes) -> None:
    """Log what readers do not get of failures, under the ids that their events name."""
    for failure in changes.hidden:
        text = failure.text[:_LOGGED_CHARS]
        _log.warning("error %s: chat %s: %s: %s", failure.id, chat_id, failure.code, text)
