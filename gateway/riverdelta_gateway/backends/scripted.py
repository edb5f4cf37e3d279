"""Backend `scripted`: fixed replies at a readable speed, for demos and tests. No key, no network."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Iterator

from riverdelta.core.text import truncate_message
from riverdelta_gateway.backends import script
from riverdelta_gateway.backends.base import Question, ToolAnswer
from riverdelta_gateway.backends.tokens import Step, words

_QUOTE_CHARS = 80
_TITLE_WORDS = 6
_TITLE_CHARS = 48


class ScriptedBackend:
    """
    Plays a reply as a model would stream it: three calls, with tools and their results between them.

    Args:
        pace_ms: The pause between two tokens, in milliseconds.
    """

    source = "openai-chat"

    def __init__(self, *, pace_ms: int) -> None:
        self._pace_s = pace_ms / 1000

    async def reply(self, question: Question) -> AsyncGenerator[object, None]:
        """Stream reasoning, a search, a plan, two metrics and a text about them."""
        for item in _play(question):
            if not isinstance(item, ToolAnswer):
                await asyncio.sleep(self._pace_s)
            yield item

    async def title(self, question: Question) -> AsyncGenerator[str, None]:
        """Stream the beginning of the prompt."""
        for word in words(title_from(question.prompt)):
            await asyncio.sleep(self._pace_s)
            yield word

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""


def title_from(prompt: str) -> str:
    """Make a title from the first words of a prompt."""
    text = " ".join(prompt.split()[:_TITLE_WORDS])
    return truncate_message(text.rstrip(".?!:;, ") or text, _TITLE_CHARS)


def _play(question: Question) -> Iterator[object]:
    token = secrets.token_hex(4)
    searching, planning, telling = (Step(f"step-{token}-{name}") for name in ("1", "2", "3"))
    search, plan, create = (f"call-{token}-{name}" for name in ("search", "plan", "create"))
    again = any(said.role == "assistant" for said in question.history)
    yield from searching.reasoning(script.REASONING)
    yield from searching.text(script.GREETING_AGAIN if again else script.GREETING)
    yield from searching.call(search, "search_data_catalog", script.SEARCH)
    yield from searching.end()
    yield ToolAnswer(search, script.FOUND)
    yield from planning.call(plan, "create_plan", {"plan": script.PLAN})
    yield from planning.call(create, "create_metrics", {"files": script.METRICS})
    yield from planning.end()
    yield ToolAnswer(create, script.CREATED)
    quoted = truncate_message(" ".join(question.prompt.split()), _QUOTE_CHARS)
    about = f" about {question.asset.name}" if question.asset else ""
    yield from telling.text(script.ANSWER.format(about=about, quoted=quoted))
    yield from telling.end()
