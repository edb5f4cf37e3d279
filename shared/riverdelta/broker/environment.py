"""Read settings from environment variables, with one form of error for all of them."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource


class EnvironmentSettings(BaseSettings):
    """
    Base of our settings: a variable that is not valid JSON fails with the same error as any other.

    pydantic-settings would raise another error, which names neither the variable nor the expected form.
    """

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings names them
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Replace the source that reads the environment; keep the others."""
        return init_settings, _Environment(settings_cls), dotenv_settings, file_secret_settings


class _Environment(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Decode JSON; text that is no JSON is left to the field, which refuses it."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value
