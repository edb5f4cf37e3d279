"""Calls that are made again, cut anywhere, in any split and batches: readers end with one call's text."""

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import StepEnd, StepFail, StepStart
from riverdelta.core.events import Event
from riverdelta.core.fold import ChatFold
from riverdelta.pipeline import Pipeline
from riverdelta_workers.filters import Sections
from riverdelta_workers.filters.redact import Redact
from tests.support.core.codec_tools import lines_of, recordings
from tests.support.core.fold_tools import NOW_MS, chunk, control, entries, new_state, start, view_of
from tests.support.core.restart_tools import Steps, restart
from tests.support.core.secrets_tools import SECRETS
from tests.support.core.stitch_tools import split, stitched
from tests.support.drawing import examples

PIPELINES = {
    "plain": Pipeline(),
    "redact": Pipeline(stream_filter=Redact),
    "cut": Pipeline(splitter=Sections, cut_all=True),
}
RECORDED = [
    (path.parent.name, lines_of(path))
    for path in recordings("openai-chat", "openai-responses", "anthropic")
    if path.stem != "error"
]
CUTS = st.sets(st.integers(1, 200), max_size=8)


def folded(steps: Steps, cuts: set[int], pipeline: Pipeline) -> list[Event]:
    """Fold *steps* in batches that end at *cuts*."""
    folder, whole = ChatFold(new_state(), pipeline), entries(steps)
    bounds = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    batches = [whole[a:b] for a, b in itertools.pairwise(bounds)]
    return [Event(raw) for batch in batches for raw in folder.apply(batch, NOW_MS).events]


def said(source: str, text: str, cuts: set[int]) -> Steps:
    pieces = split(text, cuts) if text else []
    return [
        chunk(piece)
        for piece in (itertools.accumulate(pieces) if source == "text-snapshot" else pieces)
    ]


def views(events: Sequence[Event]) -> list[str]:
    """The text that a reader has after each event."""
    view, texts = view_of([]), []
    for event in events:
        view.apply(event)
        texts.append(view.text("m"))
    return texts


words = st.sampled_from(
    ["so ", "the ", "river ", "runs ", "to the sea, ", "é🙂 ", SECRETS["email"], SECRETS["card"]]
)
prose = st.lists(words, max_size=12).map("".join)


@st.composite
def retries(draw: st.DrawFn) -> tuple[str, str]:
    """What a call said before it was cut off, and what it says when it is made again."""
    text, more = draw(prose), draw(prose)
    cut = draw(st.integers(0, len(text)))
    match draw(st.integers(0, 3)):
        case 0:
            return text[:cut], text + more
        case 1:
            return text, text[cut:] + more
        case 2:
            return text, text[:cut] + "#" + text[cut + 1 :] + more
        case _:
            return text, more


@pytest.mark.parametrize("source", ["text", "text-snapshot"])
@pytest.mark.parametrize("name", ["plain", "redact"])
@settings(max_examples=examples(150))
@given(pair=retries(), cuts=st.tuples(CUTS, CUTS, CUTS))
def test_a_text_that_is_said_again(
    source: str, name: str, pair: tuple[str, str], cuts: tuple[set[int], set[int], set[int]]
) -> None:
    pipeline, (delivered, again) = PIPELINES[name], pair
    first, second, batches = cuts

    def read(steps: Steps) -> str:
        return ["", *views(folded(steps, set(), pipeline))][-1]

    begin, end = [start(source), *said(source, delivered, first)], control("end")
    had, new = read(begin), read([start(source), *said(source, again, set()), end])
    # Without a text nothing of the new call ever comes: what was delivered stays, all of it.
    expected = stitched(had, new) if again else read([*begin, end])
    steps = [*begin, restart(), *said(source, again, second), end]
    events = folded(steps, batches, pipeline)
    assert view_of(events).text("m") == expected
    one_by_one = folded(steps, set(range(len(steps))), pipeline)
    assert view_of(one_by_one).messages == view_of(events).messages
    for text in views(one_by_one):
        assert had.startswith(text) or expected.startswith(text)


def step_bounds(source: str, raws: list[bytes]) -> list[int | None]:
    """For each number of raw chunks taken, where the step that is then under way began."""
    codec, began, bounds = make_codec(source), None, list[int | None]([None])
    for at, raw in enumerate(raws):
        for piece in codec.decode(raw):
            if isinstance(piece, StepStart):
                began = at
            elif isinstance(piece, StepEnd | StepFail):
                began = None
        # A complete step may wait for more, but the call after it is another one.
        probe = make_codec(source)
        probe.load(codec.dump())
        bounds.append(None if probe.settle(retried=True) else began)
    return bounds


def shape(events: Sequence[Event]) -> Any:
    (message,) = view_of(events).messages
    return message["status"], message["finish_reason"], message["usage"], message["chunks"]


@pytest.mark.parametrize("name", PIPELINES)
@settings(max_examples=examples(150))
@given(data=st.data(), batches=CUTS)
def test_recorded_calls_that_are_cut_off_and_made_again(
    name: str, data: st.DataObject, batches: set[int]
) -> None:
    """Cut anywhere, as often as it happens; nothing is emitted twice, and the end is the same."""
    source, raws = data.draw(st.sampled_from(RECORDED))
    bounds, pipeline = step_bounds(source, raws), PIPELINES[name]
    steps, at = [start(source)], 0
    for cut in data.draw(st.lists(st.integers(0, len(raws)), max_size=3)):
        began = bounds[cut]
        if began is None or min(cut, began) < at:  # a call before that has ended is not made again
            continue
        steps += [*(chunk(raw) for raw in raws[at:cut]), restart()]
        at = began
    steps += [*(chunk(raw) for raw in raws[at:]), control("end")]
    plain = folded([start(source), *(chunk(raw) for raw in raws), control("end")], set(), pipeline)
    events = folded(steps, batches, pipeline)
    assert shape(events) == shape(plain)
    assert "chunk.reset" not in [event.type for event in events]
    added = sum(len(event.data["text"]) for event in events if event.type == "chunk.delta")
    assert added == sum(len(c["text"]) for c in view_of(plain).messages[0]["chunks"])
    ends = [event.type for event in events if event.type.startswith("step.")]
    assert ends == [event.type for event in plain if event.type.startswith("step.")]
