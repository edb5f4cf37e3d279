"""The pipeline of a deployment: processors, filters, a splitter and observers."""

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
    The configurable parts of a fold. Every worker of a deployment needs the same.

    Attributes:
        processors: Makes the processors of chunks. The generic ones by default; `riverdelta.Pipeline`
            adds the cards.
        stream_filter: Makes the filter of one chunk's text; None: text is not filtered.
        on_processor_failure: What an exception of a processor ends: only the processor, for that chunk
            (``disable``); or also the message, which fails with the code ``processor_failed``.
        failure_texts: Show readers the text of provider errors and rejections, filtered like all text. Only
            for servers whose readers are their operators: such a text may hold what users must not see.
        splitter: Makes the splitter, which cuts a text into named parts; None: nothing is cut.
        cut_all: Cut all text, not only chunks that name ``sections`` as their processor.
        observers: Called as messages progress; each has a name of its own.
        version: Change it with every change of the pipeline. It is stored in each message at its start; a
            worker with another version that takes the message over logs a warning.
    """

    processors: ProcessorRegistry = field(default_factory=generic_processors)
    stream_filter: Callable[[], StreamFilter] | None = None
    on_processor_failure: OnProcessorFailure = "disable"
    failure_texts: bool = False
    splitter: Callable[[], Splitter] | None = None
    cut_all: bool = False
    observers: Sequence[Observer] = ()
    version: str = ""

    def __post_init__(self) -> None:
        """
        Check the names of the observers.

        Raises:
            SettingsError: Two have the same name.
            InvalidIdError: A name has characters that ids must not have.
        """
        names = [check_id("an observer's name", observer.name) for observer in self.observers]
        for name in names:
            if names.count(name) > 1:
                message = f"two observers are called {name!r}: give one of them another `name`"
                raise SettingsError(message)

    def with_filter(self, stream_filter: Callable[[], StreamFilter]) -> Self:
        """Return this pipeline with one more filter, behind the others."""
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
            source: The encoding of its raw chunks.
            mode: Whether texts are increments or snapshots.
            on_mismatch: Rule for a snapshot that does not continue the one before.
            state: State that an earlier codec dumped: continue there. A text that was being cut stays cut,
                whatever the settings are now.

        Raises:
            ValueError: Unknown source.
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
