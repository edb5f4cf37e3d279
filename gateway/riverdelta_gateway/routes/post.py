"""The route ``/chats/post``."""

from __future__ import annotations

import contextlib

from riverdelta_gateway.posting.request import read_post, read_prompt_id
from riverdelta_gateway.routes.context import Context


async def post(context: Context) -> None:
    """
    Ask for a reply: ``{"prompt"?, "chat_id"?, "message_id"?, "asset_id"?, "asset_type"?, "prompt_id"?}``.

    Answers ``accepted``: ``{"chat_id", "message_id", "position"}``. Behind it, the turn itself is sent to
    all sockets of the user: see `posting.projection`.
    """
    request = read_post(context.payload)
    prompt_id = read_prompt_id(context.payload)
    await context.services.post_limit.take(context.user)
    with contextlib.ExitStack() as answering:
        accepted = await context.services.posts.accept(
            context.user, request, prompt_id=prompt_id, answering=answering
        )
        turn = accepted.turn
        answer = {
            "chat_id": turn.chat_id,
            "message_id": turn.message_id,
            "position": accepted.position,
        }
        context.reply("accepted", answer)
    context.services.posts.follow(accepted)
