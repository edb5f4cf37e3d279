"""The route ``/token/renew``."""

from __future__ import annotations

from riverdelta_gateway.errors import RequestError, bad_request
from riverdelta_gateway.routes.context import Context


async def renew(context: Context) -> None:
    """
    Give the socket a newer token of the same user: ``{"token"}``; the socket ends with that one.

    Answers ``renewed`` with ``expires_in_s`` (null: never). A refused token changes nothing.
    """
    token = context.payload.get("token")
    if not isinstance(token, str):
        raise bad_request("token must be a string.")
    identity = context.services.auth.check(token)
    if identity.user != context.user:
        raise RequestError("UNAUTHORIZED", "The token is another user's.")
    context.socket.renew(identity)
    context.reply("renewed", {"expires_in_s": identity.expires_in_s})
