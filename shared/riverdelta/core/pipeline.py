"""What a deployment puts between raw chunks and readers: processors, filters, a splitter, observers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self, TypeAlias

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import Codec, CodecState, Mode
from riverdelta.core.codecs.sectioned import STATE, SectionedCodec
from riverdelta.core.errors import SettingsError
from riverdelta.core.filters import ChainedFilter, Splitter, StreamFilter
from riverdelta.core.ids import check_id
from riverdelta.core.observers import Observer
from riverdelta.core.processors import ProcessorRegistry, generic_processors
from riverdelta.core.tracker import OnMismatch

OnProcessorFailure: TypeAlias = Literal["disable", "fail_message"]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """
    The parts of a fold that settings choose. Every worker of a deployment has to have the same.

    Attributes:
        processors: Makes the processors of chunks. The generic ones by default; `riverdelta.Pipeline`
            has the cards, too.
        stream_filter: Makes the filter of one chunk's text; None: text goes out as it comes.
        on_processor_failure: What a processor's exception ends: the processor, for its chunk; or also the
            message, which fails with the code ``processor_failed``.
        splitter: Makes what cuts one text into named parts; None: nothing is cut.
        cut_all: Cut all text, and not only chunks that name ``sections`` as their processor.
        observers: Are told how messages go; each has a name of its own.
        version: Raise it with every change: it is written into each message at its start, and a worker
            of another version that takes the message over says so.
    """

    processors: ProcessorRegistry = field(default_factory=generic_processors)
    stream_filter: Callable[[], StreamFilter] | None = None
    on_processor_failure: OnProcessorFailure = "disable"
    splitter: Callable[[], Splitter] | None = None
    cut_all: bool = False
    observers: Sequence[Observer] = ()
    version: str = ""

    def __post_init__(self) -> None:
        """
        See that the observers can be told apart.

        Raises:
            SettingsError: Two have one name.
            InvalidIdError: One has a name with characters that ids must not have.
        """
        names = [check_id("an observer's name", observer.name) for observer in self.observers]
        for name in names:
            if names.count(name) > 1:
                message = f"two observers are called {name!r}: give one of them another `name`"
                raise SettingsError(message)

    def with_filter(self, stream_filter: Callable[[], StreamFilter]) -> Self:
        """Give this pipeline one more filter, behind those it has."""
        before = self.stream_filter
        if before is None:
            return replace(self, stream_filter=stream_filter)
        return replace(self, stream_filter=lambda: ChainedFilter(before(), stream_filter()))

    def codec(
        self,
        source: str,
        mode: Mode,
        on_mismatch: OnMismatch,
        state: CodecState | None = None,
    ) -> Codec:
        """
        Make the codec of one message.

        Args:
            source: How its raw chunks are spelled.
            mode: How its texts follow each other.
            on_mismatch: What the tracker does with a snapshot that does not fit.
            state: Go on where the codec that dumped this stopped: what was being cut still is,
                whatever the settings say by now.

        Raises:
            ValueError: No such source.
        """
        codec = make_codec(source)
        cut = self.cut_all or source == "chunks" or (state is not None and STATE in state)
        if cut and self.splitter is not None:
            codec = SectionedCodec(
                codec,
                self.splitter,
                mode=mode,
                on_mismatch=on_mismatch,
                only_asked=not self.cut_all,
            )
        if state is not None:
            codec.load(state)
        return codec
