"""Makes the pipeline that settings ask for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from pydantic import ValidationError

from riverdelta.broker.settings import Settings
from riverdelta.core.errors import SettingsError
from riverdelta.core.pipeline import Pipeline
from riverdelta_workers.filters import SHIPPED, Redact, RedactRule


def build_pipeline(settings: Settings) -> Pipeline:
    """
    Make the pipeline of this deployment.

    Raises:
        SettingsError: A rule cannot be used; the text says which, and why.
    """
    pipeline = Pipeline(on_processor_failure=settings.on_processor_failure)
    if not settings.redact and not settings.redact_rules:
        return pipeline
    patterns = [*SHIPPED] if settings.redact else []
    for rule in settings.redact_rules:
        try:
            patterns.append(RedactRule.model_validate(rule).pattern())
        except ValidationError as error:
            message = f"RIVERDELTA_REDACT_RULES: {rule}: {error.errors()[0]['msg']}"
            raise SettingsError(message) from error
    Redact(patterns)  # compiles them, and refuses two of one name, before any chat needs them
    return replace(pipeline, stream_filter=partial(Redact, patterns))
