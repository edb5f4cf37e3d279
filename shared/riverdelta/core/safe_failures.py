"""
What readers get of a failure: a code, a safe sentence, and the id under which the log says more. Pure.

An exception's text, and what a provider says of its own errors, may hold what no reader must see: parts of
prompts, keys, addresses. It goes to the worker's log and the dead letter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from riverdelta.core.events import Failure

_CODE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_OTHER_CODE: Final = "provider_error"

_SENTENCES: Final[Mapping[str, str]] = {
    "bad_adopt": "Another process wrote this reply already",
    "bad_restart": "The rule of a retried call is unknown",
    "fold_error": "This input could not be processed",
    "killed_workers": "This input ended the workers that processed it",
    "not_an_event_stream": "Nothing of this reply was understood: it is no event stream",
    "not_understood": "Nothing of this reply was understood",
    "unknown_entry": "Input of this type is unknown",
    "unknown_message": "This input is for a message that is not open",
}
_UNUSABLE: Final = "This input could not be used"
_PROVIDER: Final = "The language model reported an error"


class HiddenFailure(NamedTuple):
    """The text of a failure that readers do not get. *id*: what its event names."""

    id: str
    code: str
    text: str


def failure_id(message_id: str, number: int) -> str:
    """Name a failure by its message and the number of its entry on the raw stream."""
    return f"{message_id}:{number}"


def rejected_failure(code: str, failure: str, skipped: int = 0) -> Failure:
    """Say that an input was rejected; *failure* is its id, *skipped* how much of a reply was skipped."""
    sentence = _SENTENCES.get(code, _UNUSABLE)
    if skipped:
        parts = "1 payload was" if skipped == 1 else f"{skipped} payloads were"
        sentence = f"{sentence}; {parts} skipped"
    return _failure(code, sentence, failure)


def provider_failure(code: str, failure: str) -> Failure:
    """Say that a provider failed. Its *code* is kept where it looks like one; *failure* is the id."""
    return _failure(code if _CODE.fullmatch(code) else _OTHER_CODE, _PROVIDER, failure)


def _failure(code: str, sentence: str, failure: str) -> Failure:
    return Failure(code=code, detail=f"{sentence}. The id of this error is {failure}.")
