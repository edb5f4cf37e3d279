"""Makes the pipeline that settings ask for, by themselves or by a function of the deployment's own."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from riverdelta.broker.settings import Settings
from riverdelta.core.errors import SettingsError
from riverdelta.core.pipeline import Pipeline
from riverdelta_workers.filters import SHIPPED, Redact, RedactRule


def load_pipeline(settings: Settings) -> Pipeline:
    """
    Make the pipeline of this deployment: by the function that ``RIVERDELTA_PIPELINE`` names, if it does.

    Raises:
        SettingsError: A setting cannot be used; the text says which, and what to do. What that
            function itself raises, or its module, is not caught.
    """
    if settings.pipeline is None:
        return build_pipeline(settings)
    module_name, _, path = settings.pipeline.partition(":")
    if not module_name or not path:
        raise _unusable(settings, "name a function, as in package.module:build")
    here = str(Path.cwd())
    if (
        here not in sys.path
    ):  # the command's own path has not: a file beside the shell is found, too
        sys.path.append(here)
    try:
        found: Any = import_module(module_name)
    except ImportError as error:
        raise _unusable(settings, f"{error}; install it, or put it on PYTHONPATH") from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise _unusable(settings, f"{module_name} has no {path!r}")
        found = getattr(found, name)
    if not callable(found):
        raise _unusable(settings, "that is no function; it has to be called with the settings")
    pipeline = found(settings)
    if not isinstance(pipeline, Pipeline):
        what = type(pipeline).__name__
        raise _unusable(settings, f"it returned a {what}; it has to return a riverdelta.Pipeline")
    return pipeline


def _unusable(settings: Settings, why: str) -> SettingsError:
    return SettingsError(f"RIVERDELTA_PIPELINE={settings.pipeline}: {why}")


def build_pipeline(settings: Settings) -> Pipeline:
    """
    Make the pipeline that the settings describe: what a pipeline of one's own starts from.

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
