"""What a deployment puts between raw chunks and readers: processors, and a filter of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from riverdelta.core.filters import StreamFilter
from riverdelta.core.processors import ProcessorRegistry, builtin_processors


@dataclass(frozen=True, slots=True)
class Pipeline:
    """
    The parts of a fold that settings choose. Every worker of a deployment has to have the same.

    Attributes:
        processors: Makes the processors of chunks.
        stream_filter: Makes the filter of one chunk's text; None: text goes out as it comes.
    """

    processors: ProcessorRegistry = field(default_factory=builtin_processors)
    stream_filter: Callable[[], StreamFilter] | None = None
