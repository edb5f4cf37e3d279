"""
Settings of the gateway, from ``RIVERDELTA_GATEWAY_*`` environment variables or arguments.

A class of its own, because producers and workers must not read the gateway's secrets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from riverdelta.broker.environment import EnvironmentSettings

KIB = 1024
MIB = 1024 * KIB


_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def _origin(text: str) -> str:
    """
    Write an origin as browsers send it: in lower case, without the scheme's own port.

    Raises:
        ValueError: No page has this origin, or any page has it.
    """
    wanted = text.lower().removesuffix("/")
    page = urlsplit(wanted)
    if "*" in text:
        raise ValueError(f"{text} would let every page in: name each origin that may come")
    if (
        not (page.hostname and text.isascii())
        or page.username is not None
        or wanted != f"{page.scheme}://{page.netloc}"
        or page.netloc.endswith(":")
        or page.port == 0
    ):
        raise ValueError(f"{text} is no origin: name each one, such as https://chat.example.com")
    if page.port is not None and page.port == _DEFAULT_PORTS.get(page.scheme):
        return wanted.removesuffix(f":{page.port}")
    return wanted


class GatewaySettings(EnvironmentSettings):
    """
    Settings of a gateway process. Every name is also an environment variable.

    Example: ``max_posts_per_minute`` is ``RIVERDELTA_GATEWAY_MAX_POSTS_PER_MINUTE``.
    """

    model_config = SettingsConfigDict(env_prefix="RIVERDELTA_GATEWAY_", frozen=True)

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on. 0: a free one.")
    dev: bool = Field(
        default=False,
        description="No tokens: every request is of the user `dev`. Only on a loopback address.",
    )

    token_secret: SecretStr | None = Field(
        default=None, min_length=32, description="Secret of HS256 tokens."
    )
    token_public_key_file: Path | None = Field(
        default=None,
        description="PEM file with the public key of RS256, ES256 or EdDSA tokens.",
    )
    token_audience: str = Field(
        default="riverdelta", min_length=1, description="Required in a token's `aud`."
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(),
        description="Pages that may open sockets, such as https://chat.example.com. A JSON list. "
        "Clients that send no Origin (not browsers) and pages of the gateway's own host always may.",
    )

    @field_validator("allowed_origins")
    @classmethod
    def _normalise_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_origin, origins))

    max_posts_per_minute: int = Field(
        default=30, gt=0, description="Posts of one user, over all processes."
    )
    second_question: Literal["queue", "reject", "interrupt"] = Field(
        default="queue",
        description="A question while the chat still replies: queue waits until the replies before it are "
        "done, reject refuses it, interrupt stops them.",
    )
    turn_wait_s: float = Field(
        default=60.0,
        gt=0,
        description="How long an accepted question waits for a turns process; then it fails with "
        "`not_started`.",
    )
    max_sockets_per_user: int = Field(
        default=20, gt=0, description="Sockets and streams of one user in one process."
    )
    max_chats_per_socket: int = Field(
        default=100, gt=0, description="Subscriptions of one socket at the same time."
    )
    max_message_bytes: int = Field(
        default=256 * KIB, gt=0, description="Largest request; larger ones are refused."
    )
    max_body_bytes: int = Field(
        default=4 * MIB,
        gt=0,
        description="Largest body of POST /api/chat, where `useChat` sends the whole chat; its prompt is "
        "limited as every prompt.",
    )
    max_queued_bytes: int = Field(
        default=256 * KIB,
        gt=0,
        description="Limit of one socket's send queue; past it, one snapshot replaces the queued deltas.",
    )
    max_unsent_bytes: int = Field(
        default=64 * KIB,
        gt=0,
        description="Limit of a socket's own buffer; past it, events queue and merge.",
    )

    ping_interval_s: float = Field(default=20.0, gt=0, description="Between pings.")
    pong_timeout_s: float = Field(
        default=90.0, gt=0, description="A client without a pong for this long is gone."
    )
    stall_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="A client that takes no byte for this long, though some are queued, is closed.",
    )
    sse_heartbeat_s: float = Field(
        default=15.0,
        gt=0,
        description="Longest time without output on a stream; then it gets a heartbeat.",
    )
    keep_alive_s: int = Field(
        default=75,
        gt=0,
        description="An idle HTTP connection stays open for this long. Keep it longer than the idle time "
        "of the proxy in front (60 s is common): a proxy that reuses a closed connection answers 502.",
    )
    linger_s: float = Field(
        default=5.0, ge=0, description="A chat stays subscribed for this long without readers."
    )
    shutdown_s: float = Field(
        default=2.0, gt=0, description="Time that sockets get to take the close frame."
    )
