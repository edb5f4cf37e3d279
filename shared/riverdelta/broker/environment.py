"""Settings from environment variables, which say what is wrong with one in one way."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource


class EnvironmentSettings(BaseSettings):
    """
    Base of our settings: a variable that should be JSON and is not fails as every other one does.

    pydantic-settings would raise an error of its own, which names neither the variable nor the form.
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
        """Read the environment our way, and the rest as ever."""
        return init_settings, _Environment(settings_cls), dotenv_settings, file_secret_settings


class _Environment(EnvSettingsSource):
    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Decode JSON; what is none stays text, for the field to refuse."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value
