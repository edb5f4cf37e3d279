"""The pipeline that a deployment configures: the core's, with all built-in processors by default."""

from __future__ import annotations

from dataclasses import dataclass, field

from riverdelta.cards import builtin_processors
from riverdelta.core import pipeline
from riverdelta.core.processors import ProcessorRegistry


@dataclass(frozen=True, slots=True)
class Pipeline(pipeline.Pipeline):
    """
    What a deployment puts between raw chunks and readers. `riverdelta.core.pipeline` has the attributes.

    Attributes:
        processors: All built-in ones by default, the cards included.
    """

    processors: ProcessorRegistry = field(default_factory=builtin_processors)
