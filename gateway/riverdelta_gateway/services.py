"""What all parts of a gateway process share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from riverdelta.broker.client import Client
from riverdelta.broker.settings import Settings
from riverdelta_gateway.access import Chats
from riverdelta_gateway.auth import Authenticator
from riverdelta_gateway.hub import Hub
from riverdelta_gateway.limits import Limits
from riverdelta_gateway.posting.accept import Posts
from riverdelta_gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from riverdelta_gateway.sockets import Sockets


@dataclass(frozen=True, slots=True)
class Services:
    """
    Handlers get it as ``context.services``, HTTP endpoints as ``request.app.state.services``.

    Attributes:
        settings: What producers, workers and readers agree on.
        gateway: The gateway's own settings.
        client: Redis.
        hub: The chats that sockets of this process follow; ``hub.subscriber`` reads others.
        sockets: Who is connected here.
        chats: Whose chats are whose.
        limits: What a user may do how often.
        auth: Who a request is from.
        posts: Accepts posts, and tells sockets how the turns go.
        ending: Set when this process ends: streams end, too.
    """

    settings: Settings
    gateway: GatewaySettings
    client: Client
    hub: Hub
    sockets: Sockets
    chats: Chats
    limits: Limits
    auth: Authenticator
    posts: Posts
    ending: asyncio.Event = field(default_factory=asyncio.Event)
