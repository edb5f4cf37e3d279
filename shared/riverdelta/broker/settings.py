"""Settings, from ``RIVERDELTA_*`` environment variables or arguments."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from riverdelta.broker.environment import EnvironmentSettings
from riverdelta.broker.filter_agents import HttpAgent
from riverdelta.broker.redis.urls import is_cluster
from riverdelta.core.errors import SettingsError
from riverdelta.core.pipeline import OnProcessorFailure

KIB = 1024
MIB = 1024 * KIB


class Settings(EnvironmentSettings):
    """
    What producers, workers and readers agree on. Every name is also an environment variable.

    Example: ``redis_url`` is ``RIVERDELTA_REDIS_URL``. Units stand in the names.
    """

    model_config = SettingsConfigDict(env_prefix="RIVERDELTA_", frozen=True)

    redis_url: str = Field(
        default="redis://localhost:6379",
        description=(
            "Where the chats are: redis://, rediss:// or unix://; the primary that sentinels name: "
            "redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],HOST.../SERVICE[/DATABASE], the user "
            "being the server's, with ?sentinel_username=...&sentinel_password=... for the sentinels; "
            "a cluster: redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],HOST...; rediss+... for TLS."
        ),
    )
    queue_url: str | None = Field(
        default=None,
        description=(
            "Where arq's queue is; no cluster. Unset: the same as redis_url, which is no cluster then."
        ),
    )
    key_prefix: str = Field(
        default="rd",
        pattern=r"^[A-Za-z0-9._:-]{1,64}$",
        description="First part of every key; two deployments with different ones share a server.",
    )
    command_timeout_s: float = Field(
        default=5.0, gt=0, description="A server silent for this long counts as gone."
    )
    durability: Literal["local", "replicated"] = Field(
        default="local",
        description=(
            "When push returns: local: the primary has the chunk; replicated: one replica has it, too, "
            "so that it outlives a failover."
        ),
    )

    max_chunk_bytes: int = Field(default=MIB, gt=0, description="Largest raw chunk push accepts.")
    max_backlog_chunks: int = Field(
        default=10_000, gt=0, description="Unread chunks in a chat at which push waits."
    )
    max_backlog_bytes: int = Field(
        default=16 * MIB, gt=0, description="Unread bytes in a chat at which push waits."
    )
    push_wait_s: float = Field(
        default=30.0,
        ge=0,
        description="How long push waits for room, or for Redis, before it raises.",
    )
    producer_lease_s: float = Field(
        default=5.0,
        gt=0,
        description="A producer silent for this long is dead; its messages fail with producer_lost.",
    )
    producer_timeout_s: float = Field(
        default=3_600.0,
        ge=0,
        description="An open message that nothing was pushed to for this long fails with "
        "producer_timeout, though its producer lives. Longer than any tool may take. 0: never.",
    )
    resend_bytes: int = Field(
        default=64 * MIB,
        ge=0,
        description="What a producer process keeps to send again what Redis has forgotten, all "
        "messages together, until 30 s after their end. 0: nothing; what is forgotten is lost.",
    )

    retention_s: float = Field(
        default=86_400.0,
        gt=0,
        description="A chat's keys expire this long after its last activity.",
    )
    log_max_events: int = Field(
        default=10_000,
        gt=0,
        description="Events a chat's log keeps; older positions get a snapshot.",
    )
    log_max_bytes: int = Field(default=16 * MIB, gt=0, description="Bytes a chat's log keeps.")
    retain_raw: bool = Field(
        default=False, description="Keep raw chunks after they were processed (debugging)."
    )

    max_chats: int = Field(
        default=2_000, gt=0, description="Chats one worker process holds; a full one takes no more."
    )
    batch_chunks: int = Field(
        default=64, gt=0, description="Entries of one chat that a worker folds into one commit."
    )
    rollup_ms: int = Field(
        default=0,
        ge=0,
        description="Wait this long before reading on, so that more deltas merge. 0: never wait.",
    )
    lease_s: float = Field(
        default=2.0, gt=0, description="A worker whose heartbeat stood still for this long is dead."
    )
    idle_release_s: float = Field(
        default=10.0,
        ge=0,
        description="A worker gives a chat up when nothing was open for this long.",
    )

    redact: bool = Field(
        default=False,
        description="Hide e-mail addresses, card numbers, API keys and private keys from readers.",
    )
    redact_rules: tuple[dict[str, Any], ...] = Field(
        default=(),
        description="Own patterns to hide as well, as `riverdelta_workers.filters.RedactRule` has them.",
    )
    sections: bool | tuple[str, ...] = Field(
        default=False,
        description=(
            "Cut replies into named parts, each a chunk of its own: `<think>` and `<thinking>` become"
            " reasoning, fenced code its own text. A JSON list of names: these only. Off, because the"
            " markers are gone then, and a reader that renders Markdown wants its fences."
        ),
    )
    section_rules: tuple[dict[str, Any], ...] = Field(
        default=(),
        description="Own parts, tried first, as `riverdelta.core.filters.SectionRule` has them.",
    )
    pipeline: str | None = Field(
        default=None,
        description="`package.module:build`: a function that makes the workers' pipeline. Unset: as the"
        " settings around this one say.",
    )
    on_processor_failure: OnProcessorFailure = Field(
        default="disable",
        description="What a processor's exception ends: itself, for its chunk; or the message as well.",
    )
    observer_timeout_s: float = Field(
        default=1.0,
        gt=0,
        description="How long a chat waits for an observer's live hooks, over what one commit brought.",
    )
    observer_end_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="How long a try of `on_complete` or `on_error` may take.",
    )
    observer_tries: int = Field(
        default=10,
        gt=0,
        description="Tries of `on_complete` or `on_error`, crashes included, until it is given up.",
    )
    observer_pause_s: float = Field(
        default=0.5,
        gt=0,
        description="Pause before the second try; each later one is twice as long, a minute at most.",
    )
    filter_agents: tuple[HttpAgent, ...] = Field(
        default=(), description="Asked about every raw chunk, in this order. A JSON list."
    )
    filter_calls_per_chat: int = Field(
        default=8,
        gt=0,
        description="Chunks of one chat that agents are asked about together. 1: one after the other.",
    )
    filter_spare_calls: int = Field(
        default=256,
        ge=0,
        description="Agent calls a worker process has under way beyond one for each chat.",
    )

    @property
    def effective_queue_url(self) -> str:
        """
        Where arq's queue is.

        Raises:
            SettingsError: It would be a cluster, which arq cannot use.
        """
        url = self.queue_url or self.redis_url
        if is_cluster(url):
            message = (
                "arq's queue cannot be on a cluster: set RIVERDELTA_QUEUE_URL (queue_url) to a plain "
                "Redis, as redis://HOST, rediss://HOST or redis+sentinel://HOST/SERVICE"
            )
            raise SettingsError(message)
        return url
