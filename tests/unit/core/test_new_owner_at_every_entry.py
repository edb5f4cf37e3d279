"""Stories that once ended badly, folded by a new owner at every entry; `test_everything` has found them."""

import asyncio
from collections.abc import Sequence
from typing import Any

from riverdelta.cards import builtin_processors
from riverdelta.core.view import ChatView
from riverdelta.pipeline import Pipeline
from riverdelta_workers.filters import Redact, Sections
from tests.support.core.fold_tools import chunk, control, entries, start
from tests.support.core.restart_tools import restart
from tests.support.core.stories import PLANTED, Boom, Steps, Story
from tests.support.core.story_owner import Owner, has_no_secret

KEY = PLANTED["aws_key"]


def boom(*tools: str) -> Pipeline:
    processors = builtin_processors()
    processors.register("boom", Boom, tools)
    return Pipeline(processors=processors)


def view_after(steps: Steps, *pipelines: Pipeline) -> ChatView:
    """Tell *steps*; owner number n has the nth pipeline, all later ones the last."""
    whole = entries(steps)

    async def tell() -> ChatView:
        owner = Owner(pipelines[0])
        for number, entry in enumerate(whole):
            owner.hot, owner.pipeline = None, pipelines[min(number, len(pipelines) - 1)]
            await owner.take([entry], Story(whole, owner.pipeline))
            await owner.check()
        assert not owner.store.dead
        if owner.pipeline.stream_filter is not None:
            has_no_secret(b"".join(owner.store.log))
        return owner.reader.view

    return asyncio.run(tell())


def call(text: str, tool: str = "create_plan", **fields: Any) -> tuple[str, bytes]:
    first = {"chunk": "a", "kind": "tool_call", "tool_name": tool, "tool_call_id": "t"}
    return chunk({**first, "text": text, **fields})


def result(content: Any) -> tuple[str, bytes]:
    return control("tool_result", tool_call_id="t", content=content)


def outputs(view: ChatView) -> Sequence[Any]:
    return [part["outputs"] for part in view.message("m")["chunks"]]


def test_a_chunk_may_be_called_like_a_tools_result() -> None:
    steps = [
        start("chunks"),
        chunk({"chunk": "tool_result", "text": "It is "}),
        result("6:00"),
        chunk({"chunk": "tool_result", "text": "six", "done": True}),
        control("end"),
    ]
    chunks = view_after(steps, Pipeline()).message("m")["chunks"]
    assert [part["text"] for part in chunks] == ["It is six", "6:00"]


def test_a_result_may_come_before_its_call_has_ended() -> None:
    steps = [start("chunks"), call("{"), result("ok"), call("}", done=True), control("end")]
    card = outputs(view_after(steps, boom("create_plan")))[0]["boom"]
    assert (card["text"], card["card"]) == ("{}", None)


def test_a_result_may_be_all_there_is_of_a_card_when_the_call_is_made_again() -> None:
    steps = [
        start("chunks"),
        call("boom", "boom_tool", done=True),
        result("ok"),
        restart(),
        call("boom", "boom_tool", done=True),
        control("end"),
    ]
    assert outputs(view_after(steps, boom("boom_tool")))[0] == {"boom": {"id": "t", "card": None}}


def test_a_result_gets_no_card_of_its_own_unasked() -> None:
    """It has the name of the tool, but a tool's processor reads what the tool is asked."""
    steps = [start("chunks"), call("{}", done=True), result("ok"), control("end")]
    (card, of_result) = outputs(view_after(steps, boom("create_plan")))
    assert card["boom"]["card"] == {"id": "t", "text": "{}"}
    assert of_result == {}


def test_a_card_stays_with_the_processor_that_began_it() -> None:
    steps = [
        start("chunks"),
        call('{"plan":"x'),
        call("y"),
        call('z"}', done=True),
        result("ok"),
        control("end"),
    ]
    now = boom()
    for cut in range(3, 6):
        (of_call, _) = outputs(view_after(steps, *[now] * cut, boom("create_plan")))
        assert list(of_call) == ["plan"]


def test_a_tools_result_shows_no_secret_in_its_card() -> None:
    pipeline = Pipeline(stream_filter=Redact)
    asked = call('{"search_requirements":"x"}', "search_data_catalog", done=True)
    for content in ({"results": [f"see {KEY} now"]}, f'["see {KEY} now"]'):
        steps = [start("chunks"), asked, result(content), control("end")]
        card = outputs(view_after(steps, pipeline))[0]["search_data_catalog"]
        (pill,) = card["pill_containers"][0]["pills"]
        assert pill["text"] == "see [aws_key] now"


def test_the_info_of_a_part_shows_no_secret() -> None:
    pipeline = Pipeline(stream_filter=Redact, splitter=Sections, cut_all=True)
    said = [chunk(piece) for piece in (f"``` py {KEY[:9]}", f"{KEY[9:]}\nx\n", "```\n")]
    steps = [start("text"), *said, restart(), *said, control("end")]
    part, _ = view_after(steps, pipeline).message("m")["chunks"]
    assert part["section"] == {"name": "code", "info": "py [aws_key]"}
