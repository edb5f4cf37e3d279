"""The route ``/chats/post``."""

from __future__ import annotations

from riverdelta_gateway.posting.accept import POST
from riverdelta_gateway.posting.request import read_post
from riverdelta_gateway.routes.table import Context, route


@route(POST)
async def post(context: Context) -> None:
    """
    Ask for a reply: ``{"prompt"?, "chat_id"?, "message_id"?, "asset_id"?, "asset_type"?}``.

    Nothing answers it but the turn itself, to all sockets of the user: see `posting.projection`.
    """
    asked = read_post(context.payload)
    await context.services.limits.take_post(context.user)
    await context.services.posts.accept(context.user, asked)
