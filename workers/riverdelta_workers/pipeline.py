"""Make the pipeline from settings, or by a function of the deployment."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from riverdelta.broker.plugin import load_plugin, unusable
from riverdelta.broker.settings import Settings
from riverdelta.core.errors import SettingsError
from riverdelta.core.filters import DEFAULT_SECTIONS, SectionRule
from riverdelta.core.state import ChatState
from riverdelta.pipeline import Pipeline
from riverdelta_workers.filters import SHIPPED, Pattern, Redact, RedactRule, Sections

_VARIABLE: Final = "RIVERDELTA_PIPELINE"

_Rule = TypeVar("_Rule", bound=BaseModel)

_log = logging.getLogger("riverdelta.worker")


def load_pipeline(settings: Settings) -> Pipeline:
    """
    Make the pipeline of this deployment, by the function in ``RIVERDELTA_PIPELINE`` if it is set.

    Raises:
        SettingsError: A setting cannot be used; the text says which, and what to do. Exceptions of
            that function or its module are not caught.
    """
    if settings.pipeline is None:
        return build_pipeline(settings)
    pipeline = load_plugin(_VARIABLE, settings.pipeline)(settings)
    if not isinstance(pipeline, Pipeline):
        why = f"it returned a {type(pipeline).__name__}; it must return a riverdelta.Pipeline"
        raise unusable(_VARIABLE, settings.pipeline, why)
    return pipeline


def compare_versions(chat_id: str, state: ChatState, pipeline: Pipeline) -> None:
    """Log messages that were begun with another version of the pipeline."""
    for message in state.messages.values():
        if message.pipeline != pipeline.version:
            _log.warning(
                "chat %s: message %s began with pipeline version %r and continues with %r",
                *(chat_id, message.id, message.pipeline, pipeline.version),
            )


def build_pipeline(settings: Settings) -> Pipeline:
    """
    Make the pipeline that the settings describe; a custom pipeline usually starts from it.

    All rules are compiled here, before any chat needs them.

    Raises:
        SettingsError: A rule cannot be used; the text says which, and why.
    """
    patterns = _patterns(settings)
    rules = _section_rules(settings)
    return Pipeline(
        stream_filter=partial(Redact, patterns) if patterns else None,
        on_processor_failure=settings.on_processor_failure,
        failure_texts=settings.failure_texts,
        splitter=partial(Sections, rules),
        cut_all=bool(settings.sections),
    )


def _patterns(settings: Settings) -> tuple[Pattern, ...]:
    """Return the patterns to redact; none by default."""
    shipped = SHIPPED if settings.redact else ()
    rules = [
        _rule(RedactRule, rule, "RIVERDELTA_REDACT_RULES").pattern()
        for rule in settings.redact_rules
    ]
    patterns = (*shipped, *rules)
    Redact(patterns)
    return patterns


def _section_rules(settings: Settings) -> tuple[SectionRule, ...]:
    """Return the rules of sections, for all text or for chunks that ask for it."""
    own = [_rule(SectionRule, rule, "RIVERDELTA_SECTION_RULES") for rule in settings.section_rules]
    rules = (*own, *DEFAULT_SECTIONS)
    try:
        Sections(rules)
    except SettingsError as error:
        raise SettingsError(f"RIVERDELTA_SECTION_RULES: {error}") from error
    if isinstance(settings.sections, bool):
        return rules
    unknown = set(settings.sections).difference(rule.name for rule in rules)
    if unknown:
        names = ", ".join(rule.name for rule in rules)
        raise SettingsError(
            f"RIVERDELTA_SECTIONS: {', '.join(sorted(unknown))}: there are only {names}"
        )
    return tuple(rule for rule in rules if rule.name in settings.sections)


def _rule(model: type[_Rule], rule: dict[str, Any], setting: str) -> _Rule:
    try:
        return model.model_validate(rule)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in (rule.get("name", rule), *first["loc"]))
        raise SettingsError(f"{setting}: {where}: {first['msg']}") from error
