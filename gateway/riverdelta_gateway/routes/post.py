"""The route ``/chats/post``."""

from __future__ import annotations

from riverdelta_gateway.posting.request import read_post
from riverdelta_gateway.routes.context import Context


async def post(context: Context) -> None:
    """
    Ask for a reply: ``{"prompt"?, "chat_id"?, "message_id"?, "asset_id"?, "asset_type"?}``.

    The turn itself answers, to all sockets of the user: see `posting.projection`.
    """
    request = read_post(context.payload)
    await context.services.post_limit.take(context.user)
    await context.services.posts.accept(context.user, request)
