"""A pipeline whose filter stops at a long text until a test lets it go on."""

import threading

from riverdelta import Settings
from riverdelta.core.filters import TextFilter
from riverdelta.pipeline import Pipeline
from riverdelta_workers.long_work import LONG_BYTES

reached = threading.Event()
go_on = threading.Event()


class StopAtLongText(TextFilter):
    """Passes every text on; a long one only after `go_on`."""

    def feed(self, delta: str) -> str:
        if len(delta) > LONG_BYTES:
            reached.set()
            assert go_on.wait(60), "nothing else could run meanwhile"
        return delta


def build(_settings: Settings) -> Pipeline:
    return Pipeline(stream_filter=StopAtLongText)
