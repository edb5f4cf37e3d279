"""Backend `openai`: any OpenAI-compatible API of chat completions, through OpenAI's own SDK."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

from openai import APIStatusError, AsyncOpenAI, OpenAIError
from openai.types.chat import ChatCompletionMessageParam

from riverdelta.core.errors import SettingsError
from riverdelta_gateway.backends.base import (
    TITLE_INSTRUCTION,
    Question,
    safe_errors,
    system_texts,
)

_NO_KEY: Final = "none"
"""Other servers mostly want no key; and OpenAI's own must not be sent to them."""
_ERRORS: Final = (APIStatusError, OpenAIError, ValueError)
"""A `ValueError`: the data is no JSON."""


class OpenAIBackend:
    """
    Streams replies of the chat completions API.

    Args:
        model: Name of the model.
        system_prompt: First instruction to the model; empty: none.
        api_key: None: the SDK reads ``OPENAI_API_KEY``; with *base_url*, a placeholder is sent.
        base_url: None: OpenAI's own API.
        timeout_s: A provider that sends nothing for this long has failed.
        max_retries: Retries, by the SDK, of a call that got no answer.

    Raises:
        SettingsError: There is no key.
    """

    source = "openai-chat"

    def __init__(
        self,
        *,
        model: str,
        system_prompt: str,
        api_key: str | None,
        base_url: str | None,
        timeout_s: float,
        max_retries: int,
    ) -> None:
        try:
            self._client = AsyncOpenAI(
                base_url=base_url,
                api_key=_NO_KEY if api_key is None and base_url is not None else api_key,
                timeout=timeout_s,
                max_retries=max_retries,
            )
        except OpenAIError as error:
            raise SettingsError(
                "backend openai needs RIVERDELTA_TURNS_OPENAI_API_KEY, OPENAI_API_KEY, "
                "or RIVERDELTA_TURNS_OPENAI_BASE_URL"
            ) from error
        self._model = model
        self._system_prompt = system_prompt

    async def reply(self, question: Question) -> AsyncGenerator[object, None]:
        """Stream the SDK's chunks as they come."""
        with safe_errors(*_ERRORS):
            stream = await self._client.chat.completions.create(
                model=self._model,
                messages=self._messages(question),
                stream=True,
                stream_options={"include_usage": True},
            )
            async with stream:
                async for chunk in stream:
                    yield chunk

    async def title(self, question: Question) -> AsyncGenerator[str, None]:
        """Stream the answer of one short call of the same model."""
        with safe_errors(*_ERRORS):
            stream = await self._client.chat.completions.create(
                model=self._model,
                messages=[
                    {"role": "system", "content": TITLE_INSTRUCTION},
                    {"role": "user", "content": question.prompt},
                ],
                stream=True,
            )
            async with stream:
                async for chunk in stream:
                    if chunk.choices and chunk.choices[0].delta.content:
                        yield chunk.choices[0].delta.content

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _messages(self, question: Question) -> list[ChatCompletionMessageParam]:
        messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": text}
            for text in system_texts(self._system_prompt, question.asset)
        ]
        for said in question.history:
            if said.role == "user":
                messages.append({"role": "user", "content": said.text})
            else:
                messages.append({"role": "assistant", "content": said.text})
        return [*messages, {"role": "user", "content": question.prompt}]
