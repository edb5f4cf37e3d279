"""Why a reply failed, as readers see it: a code, and a sentence with nothing internal in it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from riverdelta.core.events import Failure

OWN_CODES: Final = frozenset(
    {"provider_error", "provider_timeout", "turn_timeout", "turn_interrupted", "asset_gone"}
)
"""Codes of failed turns, whose detail was written for readers."""

_SENTENCES: Final[Mapping[str, str]] = {
    "not_started": "No process was free to write this reply",
    "producer_lost": "The process that wrote this reply was lost",
    "producer_timeout": "The process that wrote this reply was lost",
    "source_error": "The language model reported an error",
    "data_lost": "A part of this reply was lost",
}
_OTHERWISE: Final = "Something went wrong while this reply was written"


def safe_failure(failure: Failure, message_id: str) -> Failure:
    """Make a failure safe for readers. The sentence names *message_id*, under which logs say more."""
    code = failure["code"]
    if code in OWN_CODES:
        return failure
    sentence = _SENTENCES.get(code, _OTHERWISE)
    return Failure(code=code, detail=f"{sentence}. The id of this error is {message_id}.")
