"""
The ``http`` filter agent: one POST for each raw chunk.

The request's body is the chunk's bytes; ``Riverdelta-Chat``, ``-Message``, ``-Source`` and ``-Entry``
say where it belongs. A 200 with a body answers with the new chunk, a 200 without one or a 204 drops
it; anything else is a failure. Requests carry what the settings say and nothing else: no cookie, no
credential of a client, no proxy from the environment, and a redirect is a failure, because a chunk
goes only where the settings send it.
"""

from __future__ import annotations

import io
from importlib.metadata import version
from typing import Final

import aiohttp

from riverdelta.broker.filter_agents import HttpAgent
from riverdelta_workers.filters.agents import Agent, AgentError, RawChunk, oversized

_KEEP_ALIVE_S: Final = 4.0
"""Below the 5 s after which common servers close an idle connection, so that they rarely do so first."""
_WARNS_PAST: Final = 1024 * 1024
"""aiohttp wants a file-like body past this, because it writes bytes in one piece."""

_USER_AGENT: Final = f"riverdelta/{version('riverdelta')}"


def http_agent(settings: HttpAgent, *, max_chunk_bytes: int) -> Agent:
    """Make the chain's agent of *settings*; it connects when it is first asked."""
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
    """Asks one agent, over kept-alive connections of its own. How many is the chain's to bound."""

    def __init__(self, settings: HttpAgent, max_chunk_bytes: int) -> None:
        self._url = str(settings.url)
        self._headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
        self._headers |= settings.headers
        self._max_chunk_bytes = max_chunk_bytes
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, chunk: RawChunk) -> bytes:
        """
        Ask about one chunk. The caller bounds the time.

        Raises:
            AgentError: It did not answer as it should.
        """
        try:
            try:
                return await self._post(chunk)
            except aiohttp.ClientConnectionError as error:
                if isinstance(error, aiohttp.ClientConnectorError):
                    raise
                # Most likely an idle connection that the server closed as we took it: once more.
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
            # No limit here: waiting for a connection would be waiting for another chat's call.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(),  # none: the chain has one for the whole call
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
            # Ends where the connection does: an agent that dies would shorten the chunk, or drop it.
            raise AgentError("broken", "answered without saying how much")
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
        return "text/event-stream"  # any piece of one, frames may be cut
    if source in {"text", "text-snapshot"}:
        return "text/plain; charset=utf-8"
    return "application/json"
