"""Handlers of chats: subscribe, unsubscribe, stop, list."""

from __future__ import annotations

from riverdelta_gateway.routes.checks import checked_position
from riverdelta_gateway.routes.context import Context


async def subscribe(context: Context) -> None:
    """
    Subscribe to a chat: ``{"chat_id", "after"?}``.

    Answers ``subscribed``, then events: those behind the position *after*, or a snapshot and those behind
    it. A second subscription to the same chat replaces the first.
    """
    chat_id = context.id_in_payload("chat_id")
    after = checked_position(context.payload.get("after"))
    await context.services.access.check_readable(chat_id, context.user)
    outputs = context.socket.session.subscribe(chat_id, after)
    context.reply("subscribed", {"chat_id": chat_id})
    context.socket.perform(outputs)


async def unsubscribe(context: Context) -> None:
    """Unsubscribe from a chat: ``{"chat_id"}``. No event comes after the answer ``unsubscribed``."""
    chat_id = context.id_in_payload("chat_id")
    context.socket.perform(context.socket.session.unsubscribe(chat_id))
    context.reply("unsubscribed", {"chat_id": chat_id})


async def stop(context: Context) -> None:
    """Stop a message: ``{"chat_id", "message_id"?}``; without an id, every open message of the chat."""
    chat_id = context.id_in_payload("chat_id")
    message_id = None
    if context.payload.get("message_id") is not None:
        message_id = context.id_in_payload("message_id")
    await context.services.access.check_readable(chat_id, context.user)
    owner = context.services.access.owner_for(context.user)
    marked = await context.services.subscriber.stop(chat_id, message_id, user=owner)
    context.reply("stopping", {"chat_id": chat_id, "message_ids": marked})


async def list_chats(context: Context) -> None:
    """List the user's chats, the last active first: answers ``chats``."""
    chats = await context.services.access.chats_of(context.user)
    context.reply("chats", {"chats": chats})
