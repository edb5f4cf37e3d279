"""Settings of the turns, from ``RIVERDELTA_TURNS_*`` environment variables or arguments."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from riverdelta.broker.environment import EnvironmentSettings


class TurnSettings(EnvironmentSettings):
    """
    Settings of a turns process. Every name is also an environment variable.

    Example: ``openai_model`` is ``RIVERDELTA_TURNS_OPENAI_MODEL``. Units are in the names.
    """

    model_config = SettingsConfigDict(env_prefix="RIVERDELTA_TURNS_", frozen=True)

    backend: str = Field(
        default="scripted",
        description="Backend: scripted, openai, anthropic, gemini, or your own as package.module:name, a "
        "function that takes these settings and returns a ChatBackend.",
    )
    system_prompt: str = Field(
        default="You are a data analyst. Answer briefly, in the language of the question.",
        description="First instruction to a language model. Empty: none.",
    )
    assets_dir: Path | None = Field(
        default=None,
        description="Folder with metrics/<id>.yml and dashboards/<id>.yml. Unset: the demo's.",
    )

    asset_catalog: str | None = Field(
        default=None,
        description="Your own AssetCatalog as package.module:name, a function that takes these settings.",
    )
    asset_policy: str | None = Field(
        default=None,
        description="Your own AssetPolicy as package.module:name, a function that takes these settings: "
        "who may see which asset. Unset: whatever the catalog gives.",
    )
    history_store: str | None = Field(
        default=None,
        description="Your own HistoryStore as package.module:name, a function that takes these settings. "
        "Unset: a chat's own keys are its history, for retention_s.",
    )

    scripted_pace_ms: int = Field(
        default=25, ge=0, description="Backend scripted: pause between two tokens."
    )

    openai_base_url: str | None = Field(
        default=None, description="Any OpenAI-compatible API. Unset: OpenAI's own."
    )
    openai_api_key: SecretStr | None = Field(
        default=None, description="Unset: OPENAI_API_KEY; with openai_base_url: a placeholder."
    )
    openai_model: str = Field(default="gpt-5.4-mini", min_length=1, description="Model.")
    anthropic_base_url: str | None = Field(default=None, description="Unset: Anthropic's own API.")
    anthropic_api_key: SecretStr | None = Field(
        default=None,
        description="Unset: ANTHROPIC_API_KEY; with anthropic_base_url: a placeholder.",
    )
    anthropic_model: str = Field(default="claude-sonnet-5-5", min_length=1, description="Model.")
    gemini_base_url: str | None = Field(default=None, description="Unset: Google's own API.")
    gemini_api_key: SecretStr | None = Field(
        default=None,
        description="Unset: GOOGLE_API_KEY or GEMINI_API_KEY; with gemini_base_url: a placeholder.",
    )
    gemini_model: str = Field(default="gemini-3-pro-preview", min_length=1, description="Model.")
    max_reply_tokens: int = Field(
        default=4096, gt=0, description="Longest reply in tokens, where the API requires a limit."
    )

    turn_timeout_s: float = Field(default=600.0, gt=0, description="Longest time of a reply.")
    provider_silence_s: float = Field(
        default=60.0, gt=0, description="A provider that sends nothing for this long has failed."
    )
    provider_retries: int = Field(
        default=2, ge=0, description="Retries of a call that got no answer."
    )
    title_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="Longest time of a title; then it is the beginning of the prompt.",
    )
    title_grace_s: float = Field(
        default=1.0,
        ge=0,
        description="How long a reply that is done waits for its title; then it is the beginning of the "
        "prompt.",
    )
    drain_s: float = Field(
        default=2.0,
        ge=0,
        description="Time that replies get at SIGTERM. Then those of which nothing was sent wait for "
        "another process, and the others fail.",
    )
    max_turns: int = Field(default=100, gt=0, description="Turns of one process at the same time.")
    history_max_chars: int = Field(
        default=200_000,
        ge=0,
        description="Limit of the earlier turns that a model gets; the latest count first.",
    )
