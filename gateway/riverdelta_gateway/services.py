"""What all parts of a gateway process share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from riverdelta.broker.client import Client
from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta.broker.settings import Settings
from riverdelta_gateway.access import ChatAccess
from riverdelta_gateway.auth import Authenticator
from riverdelta_gateway.hub import Hub
from riverdelta_gateway.limits import ConnectionLimit, PostLimit
from riverdelta_gateway.posting.accept import Posts
from riverdelta_gateway.posting.watch import Watches
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.sockets import Sockets


@dataclass(frozen=True, slots=True)
class Services:
    """
    Handlers get it as ``context.services``, HTTP endpoints as ``request.app.state.services``.

    Attributes:
        settings: What producers, workers and readers agree on.
        gateway: The gateway's own settings.
        client: Connections to Redis.
        subscriber: Reads and stops single chats.
        hub: The chats that sockets of this process are subscribed to.
        sockets: The sockets of this process.
        access: Chat ownership.
        connections: Limits open sockets and streams.
        post_limit: Limits posts.
        auth: Authenticates requests.
        posts: Accepts posts.
        watches: Send the progress of turns to their users' sockets.
        ending: Set when this process ends: streams end, too.
    """

    settings: Settings
    gateway: GatewaySettings
    client: Client
    subscriber: ChatReader
    hub: Hub
    sockets: Sockets
    access: ChatAccess
    connections: ConnectionLimit
    post_limit: PostLimit
    auth: Authenticator
    posts: Posts
    watches: Watches
    ending: asyncio.Event = field(default_factory=asyncio.Event)
