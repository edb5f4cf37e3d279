"""
Cards and the rules of their parts, for any arguments and any split.

What is shown must not depend on how the text was cut, on append or snapshot, or on a worker that was
replaced in the middle and fed the stored text to a fresh processor, silently.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from riverdelta.core.outputs import grow_output, merge_outputs, reduce_output
from riverdelta.core.tracker import Mode
from riverdelta.streaming_parser import StreamingParser
from tests.support.core.feeding import chunk_parser, outputs_of, reduced, wire
from tests.support.drawing import examples

TOOLS: list[tuple[str | None, str | None]] = [
    ("create_plan", None),
    ("create_metrics", None),
    ("update_metrics", None),
    ("update_dashboards", None),
    ("search_data_catalog", None),
    ("done", None),
    (None, "metric"),
    (None, "field_text"),
    (None, "json"),
    (None, "yml"),
]

Pairs = list[tuple[str, str]]


def encode_pairs(pairs: Pairs) -> str:
    """An object of members that are encoded already; keys may repeat."""
    return "{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"


texts = st.text(alphabet='ab1:\n"\\é🙂', max_size=8)
words = st.text(alphabet='ab\n"\\é🙂', min_size=1, max_size=8)
names = st.sampled_from(["a", "b", "é\n", "", "ab"])
scalars = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), texts)


def encoded(values: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return st.builds(json.dumps, values, ensure_ascii=st.booleans())


def either(usual: st.SearchStrategy[str], odd: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """*usual*, and one time in six *odd*."""
    return st.integers(0, 5).flatmap(lambda drawn: odd if drawn == 5 else usual)


noise = encoded(st.recursive(scalars, lambda inner: st.lists(inner, max_size=2), max_leaves=3))


def some_of(members: dict[str, st.SearchStrategy[str]], *, repeats: bool, least: int = 1) -> Any:
    """Objects with some of *members*, in any order."""
    member = st.sampled_from(sorted(members)).flatmap(
        lambda key: st.tuples(st.just(key), either(members[key], noise))
    )
    unique: Callable[[Any], Any] | None = None if repeats else (lambda pair: pair[0])
    return st.lists(member, min_size=least, max_size=4, unique_by=unique).map(encode_pairs)


def files(*, repeats: bool) -> st.SearchStrategy[str]:
    good = st.tuples(names, words, st.permutations(["name", "id", "yml_content"])).map(
        lambda drawn: encode_pairs(
            [(key, json.dumps(drawn[1] if key == "yml_content" else drawn[0])) for key in drawn[2]]
        )
    )
    members = {
        "name": encoded(names),
        "id": encoded(names),
        "yml_content": encoded(texts),
        "other": noise,
    }
    odd = st.one_of(some_of(members, repeats=repeats, least=2), noise)
    listed = st.lists(st.one_of(good, good, odd), min_size=1, max_size=3)
    return listed.map(lambda items: f"[{', '.join(items)}]")


def arguments(tool: str | None, *, repeats: bool) -> st.SearchStrategy[str]:
    """Arguments for a tool (or type), most of them right or nearly so."""
    if tool in {"create_plan", "done", "field_text"}:
        fields = ["plan", "plan_markdown"] if tool == "create_plan" else ["final_response", "text"]
        members = dict.fromkeys(fields, encoded(words)) | {"other": noise}
        usual = some_of(members, repeats=repeats)
    elif tool == "search_data_catalog":
        lists = encoded(st.lists(scalars, max_size=3))
        members = {"specific_queries": lists, "exploratory_topics": lists}
        usual = some_of(members | {"search_requirements": encoded(texts)}, repeats=repeats)
    else:
        once = files(repeats=repeats).map(lambda items: [("files", items)])
        twice = st.lists(files(repeats=True), min_size=2, max_size=2).map(
            lambda items: [("files", item) for item in items]
        )
        members = {"files": files(repeats=repeats), "yml_content": encoded(words), "other": noise}
        usual = st.one_of(
            once.map(encode_pairs),
            once.map(encode_pairs),
            (twice if repeats else once).map(encode_pairs),
            some_of(members, repeats=repeats),
        )
    return either(usual, noise)


tools = st.sampled_from(TOOLS)
Case = tuple[list[str], tuple[str | None, str | None]]


@st.composite
def cases(draw: st.DrawFn, *, repeats: bool = True) -> Case:
    """A tool, and its arguments in pieces; perhaps cut off."""
    tool = draw(tools)
    text = draw(arguments(tool[0] or tool[1], repeats=repeats))
    end = len(text)
    if draw(st.integers(0, 3)) == 3:
        end = draw(st.integers(0, end))
    cuts = sorted(draw(st.sets(st.integers(1, max(1, end)), max_size=12)))
    bounds = [0, *(cut for cut in cuts if cut < end), end]
    return [text[a:b] for a, b in itertools.pairwise(bounds)], tool


def is_finished(output: dict[str, Any]) -> bool:
    """Whether a card has all of its text; only pills and finished cards do."""
    parts = [output, *output.get("texts", {}).values()]
    parts += [file["file"] for file in output.get("files", {}).values()]
    return not any(
        part.get(key) for part in parts for key in ("message_chunk", "text_chunk", "patches")
    )


@settings(max_examples=examples(400))
@given(case=cases())
def test_all_outputs_reduced_are_the_finished_one_however_the_text_is_cut(case: Case) -> None:
    pieces, tool = case
    whole = outputs_of(tool[0], ["".join(pieces)], tool[1])
    outputs = outputs_of(tool[0], pieces, tool[1])
    by_character = outputs_of(tool[0], list("".join(pieces)), tool[1])
    assert bool(whole) == bool(outputs) == bool(by_character)
    if outputs:
        assert reduced(outputs) == outputs[-1] == whole[-1] == by_character[-1]
        assert is_finished(outputs[-1])
        assert reduce_output(None, outputs[-1]) == outputs[-1]


@settings(max_examples=examples(300))
@given(case=cases(repeats=False))
def test_the_deltas_alone_give_the_finished_text(case: Case) -> None:
    """Without repeated keys nothing that was sent is ever taken back."""
    pieces, tool = case
    *deltas, finished = outputs_of(tool[0], list("".join(pieces)), tool[1]) or [{}]
    if not deltas:
        return
    card = reduced(deltas)
    assert card.get("message") == finished.get("message")
    assert card.get("texts") == finished.get("texts")
    assert card.get("file_ids", []) == finished.get("file_ids", [])[: len(card.get("file_ids", []))]
    for file_id, file in card.get("files", {}).items():
        assert file["file"] == finished["files"][file_id]["file"]


@settings(max_examples=examples(300))
@given(case=cases(), at=st.integers(0, 12))
def test_a_worker_that_is_replaced_in_the_middle_goes_on_where_it_was(case: Case, at: int) -> None:
    pieces, tool = case
    text: list[str] = []
    parser = chunk_parser(text, *tool)
    given = []
    for number, piece in enumerate(pieces):
        if number == at:
            parser = chunk_parser(text, *tool)
            parser.add("".join(text))
        text.append(piece)
        given.append(parser.add(piece))
    if at == len(pieces):
        parser = chunk_parser(text, *tool)
        parser.add("".join(text))
    given.append(parser.add("", done=True))
    outputs = [wire(parsed.output) for parsed in given if parsed.output is not None]
    assert outputs == outputs_of(tool[0], pieces, tool[1])


@settings(max_examples=examples(150))
@given(
    many=st.lists(cases(), min_size=2, max_size=3),
    mode=st.sampled_from(["append", "snapshot"]),
)
def test_interleaved_ids_never_mix_in_either_mode(many: list[Case], mode: Mode) -> None:
    parser = StreamingParser(mode=mode, on_mismatch="hold")
    given: list[list[dict[str, Any]]] = [[] for _ in many]
    for turn in range(max(len(pieces) for pieces, _ in many) + 1):
        for number, (pieces, (tool_name, processor_type)) in enumerate(many):
            snapshot = "".join(pieces[: turn + 1])
            chunk = snapshot if mode == "snapshot" else "".join(pieces[turn : turn + 1])
            output, delta = parser.process_chunk_with_tracking(
                str(number),
                chunk,
                processor_type,
                tool_name=tool_name,
                tool_call_id="call-1",
                done=turn == len(pieces),
            )
            assert delta == "".join(pieces[turn : turn + 1])
            if output is not None:
                given[number].append(wire(output))
    for number, (pieces, (tool_name, processor_type)) in enumerate(many):
        assert parser.get_complete_text(str(number)) == "".join(pieces)
        assert given[number] == outputs_of(tool_name, pieces, processor_type)


@given(case=cases(), more=st.lists(st.integers(0, 30), max_size=4))
def test_a_snapshot_that_repeats_or_shrinks_gives_nothing(case: Case, more: list[int]) -> None:
    pieces, tool = case
    parser = StreamingParser(mode="snapshot", on_mismatch="hold")
    text = "".join(pieces)
    parser.process_chunk("c", text, tool[1], tool_name=tool[0])
    for end in more:
        assert (
            parser.process_chunk_with_tracking("c", text[:end], tool[1]) == (None, "") or not text
        )


# -- the rules of parts, beyond what built-in processors make -------------------------------------

chunks = st.one_of(st.none(), st.text(alphabet="xy", max_size=3))


def parts(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Parts of one kind of card: text fields in pairs; what is an object once is one always."""
    members: dict[str, st.SearchStrategy[Any]] = {"s": scalars, "l": st.lists(scalars, max_size=2)}
    if depth:
        members["d"] = parts(depth - 1)
        members["e"] = st.dictionaries(st.sampled_from("12"), parts(depth - 1), max_size=2)
    pairs = st.fixed_dictionaries({}, optional={"t": st.tuples(chunks, chunks)})
    others = st.fixed_dictionaries({}, optional=members)
    return st.tuples(pairs, others, st.booleans()).map(_with_pair)


def _with_pair(drawn: tuple[dict[str, Any], dict[str, Any], bool]) -> dict[str, Any]:
    pairs, others, chunk_first = drawn
    if "t" in pairs:
        text, chunk = pairs["t"]
        pair = {"t": text, "t_chunk": chunk}
        return {**dict(reversed(pair.items())), **others} if chunk_first else {**others, **pair}
    return others


@settings(max_examples=examples(300))
@given(before=st.one_of(st.none(), parts()), a=parts(), b=parts(), c=parts())
def test_merging_does_what_both_did_and_is_associative(
    before: dict[str, Any] | None, a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    start = None if before is None else reduce_output(None, before)
    kept = json.dumps([start, a, b, c])
    one_by_one = reduce_output(reduce_output(start, a), b)
    assert reduce_output(start, merge_outputs(a, b)) == one_by_one
    assert merge_outputs(merge_outputs(a, b), c) == merge_outputs(a, merge_outputs(b, c))
    assert json.dumps([start, a, b, c]) == kept


def grown(outputs: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Grow a card in place; no output may change, then or later."""
    kept = json.dumps(outputs)
    card: dict[str, Any] | None = None
    for count, output in enumerate(outputs, start=1):
        card = grow_output(card, output)
        assert card == reduced(outputs[:count])
    assert json.dumps(outputs) == kept
    return card


@settings(max_examples=examples(200))
@given(case=cases())
def test_a_card_grown_in_place_is_the_reduced_card(case: Case) -> None:
    pieces, tool = case
    outputs = outputs_of(tool[0], pieces, tool[1])
    assert grown(outputs) == (reduced(outputs) if outputs else None)


def test_patches_after_a_whole_value_change_nothing_of_its_output() -> None:
    whole = {"type": "json", "value": {"a": ["x"]}, "patches": None}
    patch = {"type": "json", "value": None, "patches": [[["a", 0], "append", "y"]]}
    assert grown([whole, patch, patch]) == {
        "type": "json",
        "value": {"a": ["xyy"]},
        "patches": None,
    }


@settings(max_examples=examples(200))
@given(case=cases(), cut=st.integers(0, 13), end=st.integers(0, 13))
def test_outputs_of_processors_may_be_merged_anywhere(case: Case, cut: int, end: int) -> None:
    pieces, tool = case
    outputs = outputs_of(tool[0], pieces, tool[1])
    run = outputs[cut : max(cut + 1, end)]
    if not run:
        return
    merged = run[0]
    for output in run[1:]:
        merged = merge_outputs(merged, output)
    rest = outputs[max(cut + 1, end) :]
    assert reduced([*outputs[:cut], merged, *rest]) == reduced(outputs)
    assert reduced([*outputs[:cut], merged]) == reduced([*outputs[:cut], *run])
