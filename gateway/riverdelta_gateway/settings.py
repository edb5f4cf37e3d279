"""
Settings of the gateway, from ``RIVERDELTA_GATEWAY_*`` environment variables or arguments.

A class of its own, because producers and workers install no gateway and must not learn its secrets.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from riverdelta.broker.environment import EnvironmentSettings

KIB = 1024
MIB = 1024 * KIB


class GatewaySettings(EnvironmentSettings):
    """
    What a gateway process is told. Every name is also an environment variable.

    Example: ``max_posts_per_minute`` is ``RIVERDELTA_GATEWAY_MAX_POSTS_PER_MINUTE``.
    """

    model_config = SettingsConfigDict(env_prefix="RIVERDELTA_GATEWAY_", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on. 0: a free one.")
    dev: bool = Field(
        default=False,
        description="No tokens: everybody is the user `dev`. Only on a loopback address.",
    )

    token_secret: SecretStr | None = Field(
        default=None, min_length=32, description="Secret of HS256 tokens."
    )
    token_public_key_file: Path | None = Field(
        default=None,
        description="PEM file with the public key of RS256, ES256 or EdDSA tokens.",
    )
    token_audience: str = Field(
        default="riverdelta", min_length=1, description="What a token's `aud` must name."
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Pages that may open sockets, such as https://chat.example.com. A JSON list. "
        "Clients that send no Origin (not browsers) always may. Empty: the gateway's own host only.",
    )

    max_posts_per_minute: int = Field(default=30, gt=0, description="Of one user, everywhere.")
    max_sockets_per_user: int = Field(
        default=20, gt=0, description="Of one user, SSE streams too, in one process."
    )
    max_chats_per_socket: int = Field(default=100, gt=0, description="Subscribed to at once.")
    max_message_bytes: int = Field(
        default=256 * KIB, gt=0, description="Largest request; a larger one is refused."
    )
    max_queued_bytes: int = Field(
        default=256 * KIB,
        gt=0,
        description="What may wait for one socket; past it, deltas give way to one snapshot.",
    )
    max_unsent_bytes: int = Field(
        default=64 * KIB,
        gt=0,
        description="What may wait in a socket's own buffer before events queue and merge.",
    )

    ping_interval_s: float = Field(default=20.0, gt=0, description="Between pings.")
    pong_timeout_s: float = Field(
        default=90.0, gt=0, description="A client without a pong for this long is gone."
    )
    stall_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="A client that took no byte for this long, though some wait, is closed.",
    )
    sse_heartbeat_s: float = Field(default=15.0, gt=0, description="Between comments on quiet SSE.")
    linger_s: float = Field(
        default=5.0, ge=0, description="A chat stays subscribed for this long without readers."
    )
    shutdown_s: float = Field(
        default=2.0, gt=0, description="Sockets get this long to take the close frame."
    )
