"""Backend `gemini`: Google's Gemini API, through Google's own SDK."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final, cast

import httpx2
from google.genai import Client
from google.genai.errors import APIError
from google.genai.types import (
    Content,
    GenerateContentConfig,
    GenerateContentResponse,
    HttpOptions,
    HttpRetryOptions,
    Part,
)

from riverdelta.core.errors import SettingsError
from riverdelta_gateway.backends.base import (
    TITLE_INSTRUCTION,
    Question,
    safe_errors,
    system_texts,
)

_NO_KEY: Final = "none"
"""Other servers mostly want no key; and Google's own must not be sent to them."""
_ERRORS: Final = (APIError, httpx2.HTTPError, ValueError)
"""A `ValueError`: what came is no JSON, or not what the SDK knows."""
_NOT_SENT: Final = frozenset({"sdk_http_response", "automatic_function_calling_history", "parsed"})
"""What the SDK adds to the provider's chunk."""


class GeminiBackend:
    """
    Streams replies of the API's `streamGenerateContent`.

    Args:
        model: Name of the model.
        system_prompt: First instruction to the model; empty: none.
        api_key: None: the SDK reads ``GOOGLE_API_KEY`` or ``GEMINI_API_KEY``; with *base_url*, a
            placeholder is sent.
        base_url: None: Google's own API.
        timeout_s: A provider that sends nothing for this long has failed.
        max_retries: Retries, by the SDK, of a call that got no answer.

    Raises:
        SettingsError: There is no key.
    """

    source = "gemini"

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
        self._http = httpx2.AsyncClient(timeout=timeout_s)
        try:
            self._client = Client(
                enterprise=False,
                api_key=_NO_KEY if api_key is None and base_url is not None else api_key,
                http_options=HttpOptions(
                    base_url=base_url,
                    timeout=int(timeout_s * 1000),
                    retry_options=HttpRetryOptions(attempts=max_retries + 1),
                    httpx_async_client=self._http,
                ),
            )
        except ValueError as error:
            raise SettingsError(
                "backend gemini needs RIVERDELTA_TURNS_GEMINI_API_KEY, GOOGLE_API_KEY, "
                "GEMINI_API_KEY, or RIVERDELTA_TURNS_GEMINI_BASE_URL"
            ) from error
        self._model = model
        self._system_prompt = system_prompt

    async def reply(self, question: Question) -> AsyncGenerator[object, None]:
        """Stream the provider's chunks as they come."""
        system = system_texts(self._system_prompt, question.asset)
        config = GenerateContentConfig(system_instruction="\n\n".join(system) or None)
        async with contextlib.aclosing(self._stream(_contents(question), config)) as chunks:
            async for chunk in chunks:
                yield chunk.model_dump(
                    mode="json", by_alias=True, exclude_none=True, exclude=set(_NOT_SENT)
                )

    async def title(self, question: Question) -> AsyncGenerator[str, None]:
        """Stream the answer of one short call of the same model."""
        # No limit: a model's thoughts count, and would leave nothing for the title.
        config = GenerateContentConfig(system_instruction=TITLE_INSTRUCTION)
        contents = [Content(role="user", parts=[Part(text=question.prompt)])]
        async with contextlib.aclosing(self._stream(contents, config)) as chunks:
            async for chunk in chunks:
                if chunk.text:
                    yield chunk.text

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        self._client.close()

    async def _stream(
        self, contents: list[Content], config: GenerateContentConfig
    ) -> AsyncGenerator[GenerateContentResponse, None]:
        with safe_errors(*_ERRORS):
            stream = await self._client.aio.models.generate_content_stream(
                model=self._model, contents=cast("Any", contents), config=config
            )
            async for chunk in stream:
                yield chunk


def _contents(question: Question) -> list[Content]:
    said = [
        Content(role="user" if one.role == "user" else "model", parts=[Part(text=one.text)])
        for one in question.history
    ]
    return [*said, Content(role="user", parts=[Part(text=question.prompt)])]
