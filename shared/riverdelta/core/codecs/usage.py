"""
Tokens and ends of a step, from each provider's words to the ones they share.

`Usage.input_tokens` is all input, with what came from a cache; `cached_tokens` is how much of it
did. OpenAI and Gemini count that way. `input_tokens` of Anthropic and Bedrock leaves out what was
written to and read from the cache, so both are added here. `Usage.raw` is always the provider's
own object. Numbers that are missing, negative or no numbers count as 0.

`output_tokens` is all output, with reasoning: Gemini counts its thoughts apart, so they are added.
xAI leaves reasoning out, too; that is not repaired, since nothing in the object says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from riverdelta.core.codecs.json_text import object_or_empty
from riverdelta.core.codecs.pieces import FinishReason, Usage

_WORDS: Mapping[FinishReason, str] = {
    "stop": "stop eos eos_token end_turn stop_sequence stop_token stop_word end endoftext end_of_text "
    "end_of_turn eot done complete completed finish finished normal word",
    "length": "length limit max_tokens max_length max_output_tokens max_completion_tokens max_messages "
    "max_new_tokens model_length token_limit context_length context_length_exceeded error_limit "
    "model_context_window_exceeded truncated",
    "tool_calls": "tool_calls tool_call tool_use tool tools function_call function_calls",
    "content_filter": "content_filter content_filtered filtered blocked safety image_safety sensitive "
    "image_prohibited_content image_recitation recitation language blocklist prohibited_content spii "
    "moderation guardrail guardrail_intervened model_armor jailbreak error_toxic",
    "refusal": "refusal",
    "pause": "pause pause_turn steered continuation",
    "error": "error failed failure network_error server_error internal_error malformed_function_call "
    "malformed_response malformed_model_output malformed_tool_use missing_thought_signature "
    "unexpected_tool_call too_many_tool_calls insufficient_system_resource",
}

ENDS: Mapping[str, FinishReason] = {
    word: reason for reason, words in _WORDS.items() for word in words.split()
}
"""The words of all providers: gateways let those of one API through into another."""

_NO_ENDS = frozenset(
    {
        "",
        "null",
        "none",
        "undefined",
        "nil",
        "false",
        "in_progress",
        "not_finished",
        "unspecified",
        "finish_reason_unspecified",
        "blocked_reason_unspecified",
    }
)
_ENUMS = ("finish_reason.", "finishreason.", "stopreason.", "stop_reason.")


def finish_word(value: Any) -> str | None:
    """Read a finish reason as the provider gave it; None: it is none, like the word "null"."""
    if type(value) is not str or value.strip().lower() in _NO_ENDS:
        return None
    return value


def finish_reason(word: str | None) -> FinishReason | None:
    """Normalise a provider's word for the end of a step; case and dashes do not matter."""
    if word is None:
        return None
    plain = word.strip().lower().replace("-", "_").replace(" ", "_")
    for prefix in _ENUMS:
        plain = plain.removeprefix(prefix)
    return ENDS.get(plain, "other")


ANTHROPIC_MERGED = (
    "output_tokens",
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "server_tool_use",
    "output_tokens_details",
)
"""
What a `message_delta` may change of the usage in `message_start`: cumulative totals, a null leaves
the earlier value. The list is that of Anthropic's SDK, so that `raw` is what the SDK would have.
"""

_TOO_MANY_TOKENS = 1 << 53  # exact in every JSON reader; more is not a count


def later_usage(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Choose of two usages of one step: the later one, unless it counts nothing."""
    return new if not old or any(_count(value) for value in new.values()) else old


_INPUTS = ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "promptTokenCount")
_OUTPUTS = (
    "completion_tokens",
    "output_tokens",
    "completionTokens",
    "outputTokens",
    "candidatesTokenCount",
)
"""Names of counts in usages that gateways let through from other APIs, their own first."""


def openai_chat_usage(raw: dict[str, Any]) -> Usage:
    """Normalise a chunk's `usage`; DeepSeek's name for cached tokens counts, too."""
    cached = _count(_inside(raw, "prompt_tokens_details", "cached_tokens"))
    return Usage(
        input_tokens=_first_count(raw, _INPUTS),
        output_tokens=_first_count(raw, _OUTPUTS),
        reasoning_tokens=_count(_inside(raw, "completion_tokens_details", "reasoning_tokens")),
        cached_tokens=cached or _count(raw.get("prompt_cache_hit_tokens")),
        raw=raw,
    )


def openai_responses_usage(raw: dict[str, Any]) -> Usage:
    """Normalise a response's `usage`."""
    return Usage(
        input_tokens=_count(raw.get("input_tokens")) or _count(raw.get("prompt_tokens")),
        output_tokens=_count(raw.get("output_tokens")) or _count(raw.get("completion_tokens")),
        reasoning_tokens=_count(_inside(raw, "output_tokens_details", "reasoning_tokens")),
        cached_tokens=_count(_inside(raw, "input_tokens_details", "cached_tokens")),
        raw=raw,
    )


def anthropic_usage(raw: dict[str, Any]) -> Usage:
    """Normalise a message's merged `usage`; input includes what its cache took and gave."""
    cached = _count(raw.get("cache_read_input_tokens"))
    written = _count(raw.get("cache_creation_input_tokens"))
    fresh = _first_count(raw, ("input_tokens", "inputTokenCount"))
    return Usage(
        input_tokens=fresh + written + cached,
        output_tokens=_first_count(raw, ("output_tokens", "outputTokenCount")),
        reasoning_tokens=_count(_inside(raw, "output_tokens_details", "thinking_tokens")),
        cached_tokens=cached,
        raw=raw,
    )


def gemini_usage(raw: dict[str, Any]) -> Usage:
    """
    Normalise a `usageMetadata`, with the field names of the REST API or of Python's SDK.

    `candidatesTokenCount` leaves out thoughts, `promptTokenCount` what tools gave back; both are
    added, as in `totalTokenCount`.
    """

    def count(camel: str, snake: str) -> int:
        return _count(raw.get(camel)) or _count(raw.get(snake))

    thoughts = count("thoughtsTokenCount", "thoughts_token_count")
    tools = count("toolUsePromptTokenCount", "tool_use_prompt_token_count")
    return Usage(
        input_tokens=count("promptTokenCount", "prompt_token_count") + tools,
        output_tokens=count("candidatesTokenCount", "candidates_token_count") + thoughts,
        reasoning_tokens=thoughts,
        cached_tokens=count("cachedContentTokenCount", "cached_content_token_count"),
        raw=raw,
    )


def bedrock_usage(raw: dict[str, Any]) -> Usage:
    """Normalise the `usage` of a ConverseStream; its `inputTokens` leave out what a cache holds."""
    cached = _count(raw.get("cacheReadInputTokens"))
    written = _count(raw.get("cacheWriteInputTokens"))
    return Usage(
        input_tokens=_count(raw.get("inputTokens")) + written + cached,
        output_tokens=_count(raw.get("outputTokens")),
        reasoning_tokens=0,
        cached_tokens=cached,
        raw=raw,
    )


def merge_anthropic_usage(old: dict[str, Any] | None, delta: Any) -> dict[str, Any] | None:
    """Add the usage of a `message_delta` to what `message_start` said; None: neither said any."""
    new = object_or_empty(delta)
    if old is None and not new:
        return None
    changed = {name: new[name] for name in ANTHROPIC_MERGED if new.get(name) is not None}
    return {**(old or {}), **changed}


def _first_count(raw: dict[str, Any], names: tuple[str, ...]) -> int:
    return next((count for count in map(_count, map(raw.get, names)) if count), 0)


def _inside(raw: dict[str, Any], outer: str, inner: str) -> Any:
    details = raw.get(outer)
    return details.get(inner) if type(details) is dict else None


def _count(value: Any) -> int:
    if type(value) not in (int, float) or not 0 <= value < _TOO_MANY_TOKENS:
        return 0
    return int(value)
