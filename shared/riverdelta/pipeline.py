"""The pipeline of a deployment, with all built-in processors by default."""

from __future__ import annotations

from dataclasses import dataclass, field

from riverdelta.cards import builtin_processors
from riverdelta.core import pipeline
from riverdelta.core.processors import ProcessorRegistry


@dataclass(frozen=True, slots=True)
class Pipeline(pipeline.Pipeline):
    """
    The filters, processors and observers of a deployment; see `riverdelta.core.pipeline` for attributes.

    Attributes:
        processors: All built-in ones by default, the cards included.
    """

    processors: ProcessorRegistry = field(default_factory=builtin_processors)
