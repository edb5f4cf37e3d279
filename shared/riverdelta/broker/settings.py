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
    Settings of producers, workers and readers. Each is also an environment variable.

    Example: ``redis_url`` is ``RIVERDELTA_REDIS_URL``. Names end with the unit.
    """

    model_config = SettingsConfigDict(env_prefix="RIVERDELTA_", frozen=True)

    redis_url: str = Field(
        default="redis://localhost:6379",
        repr=False,  # it may have a password
        description=(
            "Redis of the chats: redis://, rediss:// or unix://; the primary that sentinels name: "
            "redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],HOST.../SERVICE[/DATABASE], with the "
            "server's user, and ?sentinel_username=...&sentinel_password=... for the sentinels; "
            "a cluster: redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],HOST...; rediss+... for TLS."
        ),
    )
    queue_url: str | None = Field(
        default=None,
        repr=False,
        description=(
            "Redis of arq's queue; not a cluster. Unset: redis_url, which must not be a cluster then."
        ),
    )
    key_prefix: str = Field(
        default="rd",
        pattern=r"^[A-Za-z0-9._:-]{1,64}$",
        description="First part of every key. Deployments that share a server need different prefixes.",
    )
    command_timeout_s: float = Field(
        default=5.0, gt=0, description="A server silent for this long counts as gone."
    )
    allow_eviction: bool = Field(
        default=False,
        description=(
            "Start with a Redis that evicts keys at maxmemory, which takes parts of chats. Off: refuse it."
        ),
    )
    durability: Literal["local", "replicated"] = Field(
        default="local",
        description=(
            "When push returns: local: when the primary has the chunk; replicated: when one replica has"
            " it, too, so that a failover does not lose it."
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
        description="Bytes that a producer process keeps to send again what Redis lost: for all its "
        "messages together, until 30 s after their end. 0: nothing is kept or sent again.",
    )

    retention_s: float = Field(
        default=86_400.0,
        gt=0,
        description="A chat's keys expire this long after its last activity.",
    )
    log_max_events: int = Field(
        default=10_000,
        gt=0,
        description="Events that a chat's log keeps; a reader at an older position gets a snapshot.",
    )
    log_max_bytes: int = Field(default=16 * MIB, gt=0, description="Bytes that a chat's log keeps.")
    retain_raw: bool = Field(
        default=False, description="Keep raw chunks after they were processed (debugging)."
    )

    max_chats: int = Field(
        default=2_000, gt=0, description="Most chats that one worker process owns."
    )
    batch_chunks: int = Field(
        default=64, gt=0, description="Entries of one chat that a worker folds into one commit."
    )
    rollup_ms: int = Field(
        default=0,
        ge=0,
        description="Wait this long before the next read, so that more deltas merge. 0: never wait.",
    )
    lease_s: float = Field(
        default=2.0, gt=0, description="A worker without a heartbeat for this long is dead."
    )
    idle_release_s: float = Field(
        default=10.0,
        ge=0,
        description="A worker releases a chat without an open message after this time.",
    )

    failure_texts: bool = Field(
        default=False,
        description="Show readers the text of provider errors and rejections. Only where all readers are "
        "operators, as on the temporary server of `riverdelta pipe`, which sets it.",
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
            "Split replies into named parts, each a chunk: `<think>` and `<thinking>` become reasoning,"
            " fenced code a text chunk. A JSON list of names: only these. Off by default: the markers"
            " are removed, and a reader that renders Markdown needs its fences."
        ),
    )
    section_rules: tuple[dict[str, Any], ...] = Field(
        default=(),
        description="Own parts, tried first, as `riverdelta.core.filters.SectionRule` has them.",
    )
    pipeline: str | None = Field(
        default=None,
        description="`package.module:build`: a function that makes the workers' pipeline. Unset: the"
        " settings around this one make it.",
    )
    on_processor_failure: OnProcessorFailure = Field(
        default="disable",
        description="What an exception of a processor ends. disable: the processor, for that chunk;"
        " otherwise the message fails, too.",
    )
    observer_timeout_s: float = Field(
        default=1.0,
        gt=0,
        description="How long a chat waits for an observer's live hooks, per commit.",
    )
    observer_end_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Time limit of one call of `on_complete` or `on_error`.",
    )
    observer_tries: int = Field(
        default=10,
        gt=0,
        description="Most tries of `on_complete` or `on_error`, crashes included; then it failed for good.",
    )
    observer_pause_s: float = Field(
        default=0.5,
        gt=0,
        description="Pause before the second try; each later one is twice as long, a minute at most.",
    )
    filter_agents: tuple[HttpAgent, ...] = Field(
        default=(), description="Agents that filter every raw chunk, in this order. A JSON list."
    )
    filter_calls_per_chat: int = Field(
        default=8,
        gt=0,
        description="Most chunks of one chat that agents check at the same time. 1: one after the other.",
    )
    filter_spare_calls: int = Field(
        default=256,
        ge=0,
        description="Most agent calls that a worker process makes at a time, beyond one per chat.",
    )

    @property
    def effective_queue_url(self) -> str:
        """
        URL of the Redis that has arq's queue.

        Raises:
            SettingsError: It is a cluster, which arq cannot use.
        """
        url = self.queue_url or self.redis_url
        if is_cluster(url):
            message = (
                "arq's queue cannot be on a cluster: set RIVERDELTA_QUEUE_URL (queue_url) to a plain "
                "Redis, as redis://HOST, rediss://HOST or redis+sentinel://HOST/SERVICE"
            )
            raise SettingsError(message)
        return url
