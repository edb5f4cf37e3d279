"""
Codecs: from the raw chunks of each source to the pieces the fold understands.

Pure folds of bytes, one module per source; `pieces` has the words they share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from riverdelta.core.codecs.anthropic import AnthropicCodec
from riverdelta.core.codecs.bedrock_converse import BedrockConverseCodec
from riverdelta.core.codecs.direct import ChunksCodec
from riverdelta.core.codecs.gemini import GeminiCodec
from riverdelta.core.codecs.openai_chat import OpenAIChatCodec
from riverdelta.core.codecs.openai_responses import OpenAIResponsesCodec
from riverdelta.core.codecs.pieces import Codec, Mode
from riverdelta.core.codecs.plain import SnapshotCodec, TextCodec
from riverdelta.core.codecs.sse import SseCodec

_MAKERS: Mapping[str, Callable[[], Codec]] = {
    "text": TextCodec,
    "text-snapshot": SnapshotCodec,
    "chunks": ChunksCodec,
    "openai-chat": OpenAIChatCodec,
    "openai-responses": OpenAIResponsesCodec,
    "anthropic": AnthropicCodec,
    "gemini": GeminiCodec,
    "bedrock-converse": BedrockConverseCodec,
    "openai-chat+sse": lambda: SseCodec(OpenAIChatCodec()),
    "openai-responses+sse": lambda: SseCodec(OpenAIResponsesCodec()),
    "anthropic+sse": lambda: SseCodec(AnthropicCodec()),
    "gemini+sse": lambda: SseCodec(GeminiCodec()),
    "bedrock-converse+sse": lambda: SseCodec(BedrockConverseCodec()),
}

SOURCES = tuple(_MAKERS)
"""The ways in which raw chunks can be encoded."""


def make_codec(source: str) -> Codec:
    """
    Make a codec for one message of *source*.

    Raises:
        ValueError: No such source; a caller bug. The message names those there are.
    """
    maker = _MAKERS.get(source)
    if maker is None:
        raise ValueError(f"unknown source {source!r}; it must be one of {', '.join(SOURCES)}")
    return maker()


def default_mode(source: str) -> Mode:
    """Return how texts of *source* follow each other, unless the producer sets another mode."""
    return "snapshot" if source == "text-snapshot" else "append"
