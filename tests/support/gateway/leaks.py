"""Markers for what readers must not get, parts of a deployment that raise with them, and a search."""

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from riverdelta import ChunkText, Pipeline, Settings, TextFilter
from riverdelta_gateway.backends.base import BackendError, Question
from riverdelta_gateway.turns.settings import TurnSettings
from riverdelta_workers.pipeline import build_pipeline

SECRET = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
"""What `redact` hides."""
INTERNAL = "postgres://marker:hidden@10.0.0.7"
"""In texts of exceptions and of providers' errors, and in what a producer says to observers."""

PIPELINE = "tests.support.gateway.leaks:build"
BACKEND = "tests.support.gateway.leaks:LeakyBackend"
CATALOG = "tests.support.gateway.leaks:LeakyCatalog"


class Raises(TextFilter):
    """A filter of a deployment, with a bug."""

    def feed(self, delta: str) -> str:
        if "BREAK" in delta:
            raise RuntimeError(f"cannot reach {INTERNAL}")
        return delta


class RaisingCard:
    """A processor of a deployment, with a bug."""

    def can_process(self, tool_name: str | None, value: object) -> bool:  # as the protocol has it
        return True

    def process(self, chunk: ChunkText) -> dict[str, object] | None:
        raise RuntimeError(f"{INTERNAL} {chunk.value}")


class EchoCard:
    """A card that has all arguments of its call."""

    def can_process(self, tool_name: str | None, value: object) -> bool:  # as the protocol has it
        return isinstance(value, dict)

    def process(self, chunk: ChunkText) -> dict[str, object] | None:
        return {"status": "loading", "arguments": dict(chunk.value)}


def build(settings: Settings) -> Pipeline:
    pipeline = build_pipeline(settings)
    pipeline.processors.register("raising", RaisingCard, tools=["raising"])
    pipeline.processors.register("echo", EchoCard, tools=["search"])
    return replace(pipeline.with_filter(Raises), version="leaks")


class LeakyBackend:
    """A backend whose prompt says how it fails; its titles have a secret, cut in two."""

    source = "text"

    def __init__(self, settings: TurnSettings) -> None:
        pass

    async def reply(self, question: Question) -> AsyncGenerator[object, None]:
        yield f"The key {SECRET[:11]}"
        yield f"{SECRET[11:]} it is. "
        if "REFUSED" in question.prompt:
            raise BackendError("The model is not well") from OSError(INTERNAL)
        if "BUG" in question.prompt:
            raise RuntimeError(INTERNAL)

    async def title(self, question: Question) -> AsyncGenerator[str, None]:
        if "BUG" in question.prompt:
            raise RuntimeError(INTERNAL)
        yield f"On {SECRET[:7]}"
        yield SECRET[7:]

    async def aclose(self) -> None:
        pass


class LeakyCatalog:
    """A catalog whose store is away."""

    def __init__(self, settings: TurnSettings) -> None:
        pass

    async def get(self, user: str, asset_type: str, asset_id: str) -> None:
        raise ConnectionError(f"{INTERNAL} refused {user} {asset_type} {asset_id}")


def escaped(text: str) -> str:
    return "".join(f"\\u{ord(char):04x}" for char in text)


def provider_chunks() -> list[dict[str, Any] | bytes]:
    """What a provider may send, with both markers wherever its words go, and then a failure."""
    arguments = f'{{"{escaped(SECRET)}": "x\\n{SECRET}", "at": "{escaped(SECRET)}", "n": 1}}'
    call = {"index": 0, "id": "call_1", "type": "function"}
    begun = {**call, "function": {"name": "search", "arguments": arguments[:31]}}
    rest = {"index": 0, "function": {"arguments": arguments[31:]}}
    named = {**call, "index": 1, "id": "call_2"}
    raising = {**named, "function": {"name": "raising", "arguments": f'{{"a": "{SECRET}"}}'}}
    odd = {**named, "index": 2, "id": "call_3"}
    secret_name = {**odd, "function": {"name": SECRET, "arguments": "{}"}}

    def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
        return {
            "model": f"m-{SECRET}",
            "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
        }

    return [
        delta(reasoning_content=f"They say {SECRET[:12]}"),
        delta(reasoning_content=f"{SECRET[12:]} and more"),
        delta(content=f"```{SECRET}\ncode {SECRET[:9]}"),
        delta(content=f"{SECRET[9:]}\n```\n"),
        delta(tool_calls=[begun]),
        delta(tool_calls=[rest]),
        delta(tool_calls=[raising]),
        delta(tool_calls=[secret_name]),
        delta(finish=SECRET),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "tier": SECRET}},
        b'{"choices": ' + INTERNAL.encode(),
        {"error": {"message": f"no such key {SECRET} at {INTERNAL}", "code": "auth"}},
        {"error": {"message": INTERNAL, "type": f"invalid {INTERNAL}"}},
    ]


def found_in(outputs: dict[str, list[str]]) -> dict[str, str]:
    """Where a marker got out, and in what; JSON is searched as written and as a parser gives it."""
    found = {}
    for place, texts in outputs.items():
        for text in texts:
            for line in (text, _decoded(text), _decoded(_decoded(text))):
                if SECRET in line or INTERNAL in line:
                    found[place] = line[:2000]
    return found


def _decoded(text: str) -> str:
    """*text* with the escapes of JSON decoded, wherever they are."""
    return json.loads(json.dumps(text).replace("\\\\u00", "\\u00"))  # type: ignore[no-any-return]  # a str
