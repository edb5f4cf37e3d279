"""Replies that are cut: what readers get is a function of the text, and has no byte of a marker."""

import itertools
import random
from collections.abc import Iterable, Sequence

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.events import Event
from riverdelta.core.fold import ChatFold
from riverdelta.core.state import Entry
from riverdelta.pipeline import Pipeline
from tests.support.core.cutting import CUT_ALL, CUT_ASKED, chunks_of, cut_whole
from tests.support.core.fold_tools import NOW_MS, chunk, control, entries, new_state, start, view_of
from tests.support.core.runs import RECORDED, check, steps_of
from tests.support.core.sections_tools import CUTS, TEXT
from tests.support.drawing import examples

BATCHES = st.lists(st.integers(1, 9), min_size=1, max_size=5)
RULES = st.sampled_from(["emit", "hold", "stitch"])


def _pieces(text: str, sizes: list[int]) -> list[str]:
    """Cut *text*; sizes are repeated, with one character in between, and 0 is an empty piece."""
    out, at = list[str](), 0
    for size in itertools.cycle([*sizes, 1]):
        if at >= len(text):
            return out
        out.append(text[at : at + size])
        at += size
    return out


def _batched(whole: list[Entry], sizes: list[int]) -> list[list[Entry]]:
    left = iter(whole)
    batches = (list(itertools.islice(left, size)) for size in itertools.cycle(sizes))
    return list(itertools.takewhile(bool, batches))


def _fold(batches: Iterable[Sequence[Entry]], pipeline: Pipeline = CUT_ALL) -> list[Event]:
    folder = ChatFold(new_state(), pipeline)
    return [Event(raw) for batch in batches for raw in folder.apply(batch, NOW_MS).events]


def _openai(pieces: list[str]) -> list[tuple[str, bytes]]:
    return [
        start("openai-chat"),
        *(
            chunk({"id": "r", "choices": [{"index": 0, "delta": {"content": piece}}]})
            for piece in pieces
        ),
        chunk({"id": "r", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
        control("end"),
    ]


def _direct(pieces: list[str]) -> list[tuple[str, bytes]]:
    """Two chunks in turns: one that asks to be cut, and one with the same text that does not."""
    asked = {"chunk": "a", "kind": "text", "processor": "sections"}
    return [
        start("chunks"),
        *(
            chunk(fields | {"text": piece})
            for piece in pieces
            for fields in (asked, {"chunk": "b"})
        ),
        control("end"),
    ]


@settings(max_examples=examples(400))
@given(TEXT, CUTS, BATCHES)
def test_any_split_and_any_batches_give_the_chunks_of_the_whole_text(
    text: str, sizes: list[int], batches: list[int]
) -> None:
    for pieces in ([text], list(text), _pieces(text, sizes)):
        steps = _openai([piece for piece in pieces if piece])
        events = _fold(_batched(entries(steps), batches))
        assert chunks_of(events) == (cut_whole(text) if text else [])


@given(TEXT, CUTS, BATCHES, RULES)
def test_text_so_far_is_cut_as_increments_are(
    text: str, sizes: list[int], batches: list[int], rule: str
) -> None:
    so_far = list(itertools.accumulate(_pieces(text, sizes)))
    steps = [
        start("text-snapshot", on_mismatch=rule),
        *(chunk(piece) for piece in so_far),
        control("end"),
    ]
    events = _fold(_batched(entries(steps), batches))
    assert chunks_of(events) == (cut_whole(text) if text else [])


@given(TEXT, CUTS, BATCHES)
def test_one_chunk_asks_to_be_cut_and_the_one_beside_it_does_not(
    text: str, sizes: list[int], batches: list[int]
) -> None:
    steps = _direct(_pieces(text, sizes))
    events = _fold(_batched(entries(steps), batches), CUT_ASKED)
    cuts = cut_whole(text) if text else []
    whole = [cut for cut in chunks_of(events) if cut.text == text and cut.section is None]
    left = chunks_of(events)
    if text:
        left.remove(whole[0])
    assert left == cuts


@given(TEXT, CUTS)
def test_a_reader_never_sees_a_byte_of_a_marker(text: str, sizes: list[int]) -> None:
    """At no point: what is shown so far is the beginning of what is shown in the end."""
    expected = cut_whole(text)
    steps = _openai([piece for piece in _pieces(text, sizes) if piece])[:-2]
    folder, seen = ChatFold(new_state(), CUT_ALL), view_of([])
    for entry in entries(steps):
        for raw in folder.apply([entry], NOW_MS).events:
            seen.apply(Event(raw))
        shown = seen.message("m")["chunks"]
        for cut, so_far in zip(expected, shown, strict=False):
            assert cut.text.startswith(so_far["text"])
            assert cut.kind == so_far["kind"]
        assert len(shown) <= len(expected)


@settings(max_examples=examples(400))
@given(TEXT, CUTS, st.sampled_from(["openai", "direct", "snapshot"]))
def test_a_take_over_at_every_entry_changes_nothing(
    text: str, sizes: list[int], source: str
) -> None:
    pieces = [piece for piece in _pieces(text, sizes) if piece]
    pipeline = CUT_ALL
    if source == "openai":
        steps = _openai(pieces)
    elif source == "direct":
        steps, pipeline = _direct(pieces), CUT_ASKED
    else:
        so_far = itertools.accumulate(pieces)
        steps = [start("text-snapshot"), *(chunk(piece) for piece in so_far), control("end")]
    folder = ChatFold(new_state(), pipeline)
    taken_over = []
    for entry in entries(steps):
        taken_over += folder.apply([entry], NOW_MS).events
        for message in folder.state.messages.values():
            state = orjson.loads(orjson.dumps(message.codec.dump()))
            mode, rule = message.mode, message.on_mismatch
            message.codec = pipeline.codec(message.source, mode, rule, state)
            assert orjson.loads(orjson.dumps(message.codec.dump())) == state
    unbroken = _fold([[entry] for entry in entries(steps)], pipeline)
    assert taken_over == [event.raw for event in unbroken]


@given(TEXT, CUTS, st.sampled_from(["stop", "fail"]))
def test_nothing_is_lost_where_a_message_is_cut_off(text: str, sizes: list[int], how: str) -> None:
    end = control("stop", reason="") if how == "stop" else control("fail", code="c", detail="")
    steps = [*_openai([piece for piece in _pieces(text, sizes) if piece])[:-2], end]
    chunks = chunks_of(_fold([entries(steps)]))
    assert [cut._replace(status="completed") for cut in chunks] == (cut_whole(text) if text else [])
    assert [cut.status for cut in chunks[:-1]] == ["completed"] * len(chunks[:-1])


@given(seed=st.integers(0, 2**32))
def test_runs_are_cut_as_single_chunks_are(seed: int) -> None:
    chance = random.Random(seed)
    chosen = chance.choices(RECORDED, k=chance.randint(1, 3))
    check([steps_of(source, raws, chance) for source, raws in chosen], chance, CUT_ALL)


@settings(max_examples=examples(400))
@given(TEXT, CUTS, st.integers(0, 2**32))
def test_runs_with_markers_are_cut_as_single_chunks_are(
    text: str, sizes: list[int], seed: int
) -> None:
    check(
        [_openai(_pieces(text, sizes)), _direct(_pieces(text, sizes))], random.Random(seed), CUT_ALL
    )
