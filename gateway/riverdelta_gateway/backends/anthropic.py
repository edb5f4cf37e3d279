"""Backend `anthropic`: Anthropic's messages API, through its own SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import httpx2
from anthropic import AnthropicError, APIStatusError, AsyncAnthropic, omit
from anthropic.types import MessageParam

from riverdelta.core.errors import SettingsError
from riverdelta_gateway.backends.base import (
    TITLE_INSTRUCTION,
    TITLE_TOKENS,
    Question,
    safe_errors,
    system_texts,
)
from riverdelta_gateway.turns.settings import TurnSettings

_NO_KEY: Final = "none"
_ERRORS: Final = (APIStatusError, AnthropicError, httpx2.HTTPError, ValueError)
"""The SDK lets through what breaks a stream off; a `ValueError`: what came is no JSON."""


class AnthropicBackend:
    """
    Streams messages.

    Raises:
        SettingsError: There is no key.
    """

    source = "anthropic"

    def __init__(self, settings: TurnSettings) -> None:
        key = settings.anthropic_api_key
        placeholder = _NO_KEY if settings.anthropic_base_url else None
        self._client = AsyncAnthropic(
            base_url=settings.anthropic_base_url,
            api_key=placeholder if key is None else key.get_secret_value(),
            timeout=settings.provider_silence_s,
            max_retries=settings.provider_retries,
        )
        if self._client.api_key is None and self._client.auth_token is None:
            raise SettingsError(
                "backend anthropic needs RIVERDELTA_TURNS_ANTHROPIC_API_KEY, ANTHROPIC_API_KEY, "
                "or RIVERDELTA_TURNS_ANTHROPIC_BASE_URL"
            )
        self._model = settings.anthropic_model
        self._system_prompt = settings.system_prompt
        self._max_tokens = settings.max_reply_tokens

    async def reply(self, question: Question) -> AsyncGenerator[object, None]:
        """Give the SDK's events as they come."""
        system = system_texts(self._system_prompt, question.asset)
        with safe_errors(*_ERRORS):
            stream = await self._client.messages.create(
                model=self._model,
                max_tokens=self._max_tokens,
                system="\n\n".join(system) or omit,
                messages=_messages(question),
                stream=True,
            )
            async with stream:
                async for event in stream:
                    yield event

    async def title(self, question: Question) -> AsyncGenerator[str, None]:
        """Give what one short call of the same model says."""
        with safe_errors(*_ERRORS):
            stream = await self._client.messages.create(
                model=self._model,
                max_tokens=TITLE_TOKENS,
                system=TITLE_INSTRUCTION,
                messages=[{"role": "user", "content": question.prompt}],
                stream=True,
            )
            async with stream:
                async for event in stream:
                    if event.type == "content_block_delta" and event.delta.type == "text_delta":
                        yield event.delta.text

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()


def _messages(question: Question) -> list[MessageParam]:
    messages: list[MessageParam] = []
    for said in question.history:
        if said.role == "user":
            messages.append({"role": "user", "content": said.text})
        else:
            messages.append({"role": "assistant", "content": said.text})
    return [*messages, {"role": "user", "content": question.prompt}]
