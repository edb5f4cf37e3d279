"""
The ``http`` filter agent: one POST for each raw chunk.

The request's body is the chunk; ``Riverdelta-Chat``, ``-Message``, ``-Source`` and ``-Entry`` identify it.
A 200 with a body returns the new chunk; a 200 without a body or a 204 drops the chunk; anything else is a
failure. Requests carry only what the settings say: no cookies, no credentials of a client, no proxy from
the environment; a redirect is a failure, because a chunk goes only where the settings send it.
"""

from __future__ import annotations

import io
from importlib.metadata import version
from typing import Final

import aiohttp

from riverdelta.broker.filter_agents import HttpAgent
from riverdelta_workers.filters.agents import Agent, AgentError, RawChunk, oversized

_KEEP_ALIVE_S: Final = 4.0
"""Below the 5 s after which common servers close an idle connection, so that we close first."""
_WARNS_PAST: Final = 1024 * 1024
"""aiohttp wants a file-like body past this, because it writes bytes in one piece."""

_USER_AGENT: Final = f"riverdelta/{version('riverdelta')}"


def http_agent(settings: HttpAgent, *, max_chunk_bytes: int) -> Agent:
    """Make the agent that *settings* describe; it connects on its first call."""
    caller = _Caller(settings, max_chunk_bytes)
    return Agent(
        name=settings.name,
        ask=caller.ask,
        timeout_s=settings.timeout_s,
        on_failure=settings.on_failure,
        sources=settings.sources,
        close=caller.close,
    )


class _Caller:
    """Calls one agent over its own keep-alive connections. The chain bounds their number."""

    def __init__(self, settings: HttpAgent, max_chunk_bytes: int) -> None:
        self._url = str(settings.url)
        self._headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        self._headers |= settings.headers
        self._max_chunk_bytes = max_chunk_bytes
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, chunk: RawChunk) -> bytes:
        """
        Send one chunk. The caller bounds the time.

        Raises:
            AgentError: The agent did not answer as specified.
        """
        try:
            try:
                return await self._post(chunk)
            except aiohttp.ClientConnectionError as error:
                if isinstance(error, aiohttp.ClientConnectorError):
                    raise
                # Most likely the server just closed this idle connection: try once more.
                return await self._post(chunk)
        except aiohttp.ClientConnectorError:
            raise AgentError("unreachable", "could not be reached") from None
        except aiohttp.ClientConnectionError:
            raise AgentError("disconnected", "closed the connection without an answer") from None
        except (aiohttp.ClientError, ValueError):
            raise AgentError("broken", "answered with broken HTTP") from None

    async def _post(self, chunk: RawChunk) -> bytes:
        if self._session is None:
            self._session = self._connect()
        data = chunk.data
        async with self._session.post(
            self._url,
            data=data if len(data) <= _WARNS_PAST else io.BytesIO(data),
            headers={
                "Content-Type": _content_type(chunk.source),
                "Riverdelta-Chat": chunk.chat,
                "Riverdelta-Message": chunk.message,
                "Riverdelta-Source": chunk.source,
                "Riverdelta-Entry": str(chunk.number),
            },
            allow_redirects=False,
        ) as response:
            return await self._read(response)

    def _connect(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            # No limit here: waiting for a connection would mean waiting for another chat's call.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(),  # none: the chain limits the whole call
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            skip_auto_headers=("Accept",),
            auto_decompress=False,
            trust_env=False,
        )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status == 204:
            return b""
        if response.status != 200:
            raise AgentError("status", f"answered {response.status}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise AgentError("broken", "answered with an encoding that was not asked for")
        length = response.content_length
        if length is None and response.headers.get("Transfer-Encoding", "").lower() != "chunked":
            # The body would end with the connection: an agent that dies would truncate or drop the chunk.
            raise AgentError("broken", "answered without a Content-Length or chunked encoding")
        if length is not None and length > self._max_chunk_bytes:
            raise oversized(self._max_chunk_bytes)
        answer = bytearray()
        async for block in response.content.iter_any():
            answer += block
            if len(answer) > self._max_chunk_bytes:
                raise oversized(self._max_chunk_bytes)
        return bytes(answer)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _content_type(source: str) -> str:
    if source.endswith("+sse"):
        return "text/event-stream"  # a raw chunk may be any part of an SSE stream
    if source in {"text", "text-snapshot"}:
        return "text/plain; charset=utf-8"
    return "application/json"
