"""What a deployment puts between raw chunks and readers: processors, and a filter of text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from riverdelta.core.filters import ChainedFilter, StreamFilter
from riverdelta.core.processors import ProcessorRegistry, builtin_processors

OnProcessorFailure: TypeAlias = Literal["disable", "fail_message"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """
    The parts of a fold that settings choose. Every worker of a deployment has to have the same.

    Attributes:
        processors: Makes the processors of chunks.
        stream_filter: Makes the filter of one chunk's text; None: text goes out as it comes.
        on_processor_failure: What a processor's exception ends: the processor, for its chunk; or also the
            message, which fails with the code ``processor_failed``.
        version: Raise it with every change: it is written into each message at its start, and a worker
            of another version that takes the message over says so.
    """

    processors: ProcessorRegistry = field(default_factory=builtin_processors)
    stream_filter: Callable[[], StreamFilter] | None = None
    on_processor_failure: OnProcessorFailure = "disable"
    version: str = ""

    def with_filter(self, stream_filter: Callable[[], StreamFilter]) -> Pipeline:
        """Give this pipeline one more filter, behind those it has."""
        before = self.stream_filter
        if before is None:
            return replace(self, stream_filter=stream_filter)
        return replace(self, stream_filter=lambda: ChainedFilter(before(), stream_filter()))
