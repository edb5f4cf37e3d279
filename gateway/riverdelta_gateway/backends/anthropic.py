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

_NO_KEY: Final = "none"
_ERRORS: Final = (APIStatusError, AnthropicError, httpx2.HTTPError, ValueError)
"""The SDK does not wrap errors that break a stream off; a `ValueError`: the data is no JSON."""


class AnthropicBackend:
    """
    Streams replies of the messages API.

    Args:
        model: Name of the model.
        system_prompt: First instruction to the model; empty: none.
        max_reply_tokens: The longest reply; the API wants a limit.
        api_key: None: the SDK reads ``ANTHROPIC_API_KEY``; with *base_url*, a placeholder is sent.
        base_url: None: Anthropic's own API.
        timeout_s: A provider that sends nothing for this long has failed.
        max_retries: Retries, by the SDK, of a call that got no answer.

    Raises:
        SettingsError: There is no key.
    """

    source = "anthropic"

    def __init__(
        self,
        *,
        model: str,
        system_prompt: str,
        max_reply_tokens: int,
        api_key: str | None,
        base_url: str | None,
        timeout_s: float,
        max_retries: int,
    ) -> None:
        self._client = AsyncAnthropic(
            base_url=base_url,
            api_key=_NO_KEY if api_key is None and base_url is not None else api_key,
            timeout=timeout_s,
            max_retries=max_retries,
        )
        if self._client.api_key is None and self._client.auth_token is None:
            raise SettingsError(
                "backend anthropic needs RIVERDELTA_TURNS_ANTHROPIC_API_KEY, ANTHROPIC_API_KEY, "
                "or RIVERDELTA_TURNS_ANTHROPIC_BASE_URL"
            )
        self._model = model
        self._system_prompt = system_prompt
        self._max_tokens = max_reply_tokens

    async def reply(self, question: Question) -> AsyncGenerator[object, None]:
        """Stream the SDK's events as they come."""
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
        """Stream the answer of one short call of the same model."""
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
