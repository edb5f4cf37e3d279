"""The reply to a post without a prompt: the asset's file, then a text. No model is called."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator
from typing import Final

from riverdelta_gateway.assets import Asset
from riverdelta_gateway.backends.base import ToolAnswer
from riverdelta_gateway.backends.tokens import Step

SOURCE: Final = "openai-chat"


async def opening_reply(asset: Asset) -> AsyncGenerator[object, None]:
    """Stream the raw chunks, of source `SOURCE`, that show *asset*."""
    token = secrets.token_hex(8)
    call_id = f"call-{token}"
    opening = Step(f"open-{token}")
    file = {"id": asset.id, "yml_content": asset.yml_content, "name": asset.name}
    for chunk in opening.call(call_id, f"open_{asset.type}s", {"files": [file]}):
        yield chunk
    for chunk in opening.end():
        yield chunk
    yield ToolAnswer(call_id, {"files": [{"id": asset.id, "name": asset.name}]})
    saying = Step(f"say-{token}")
    text = f"This is the {asset.type} **{asset.name}**. What would you like to know about it?"
    for chunk in (*saying.text(text), *saying.end()):
        yield chunk
