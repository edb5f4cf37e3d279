"""What a post becomes in its chat."""

from typing import Any

import pytest

from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.posting.plan import Plan, plan_turn
from riverdelta_gateway.posting.request import AssetRef, Post
from riverdelta_gateway.turn import Turn

METRIC = AssetRef("metric", "a")


def reply(message_id: str, prompt: str = "Hi", status: str = "completed", **turn: Any) -> Any:
    asked = Turn("c", message_id, "dev", prompt, **turn)
    notes = [{"name": "title", "data": {"title": "T"}}] if message_id == "m1" else []
    return {
        "message": message_id,
        "status": status,
        "metadata": asked.metadata(asked.replaces, asked.title),
        "annotations": notes,
    }


def other(message_id: str) -> Any:
    """A message of another producer."""
    return {"message": message_id, "status": "open", "metadata": {}, "annotations": []}


CHAT: list[SnapshotMessage] = [
    reply("m1", prompt_id="p1"),
    reply("m2", prompt_id="p2"),
    other("x"),
    reply("m3", status="open", prompt_id="p3", reply_number=4, replaces=("m0",), title="T"),
]

PLANS: list[tuple[Post, str | None, bool, Plan]] = [
    (Post("Hi", "c"), None, False, Plan(0, [], "T")),
    (Post("Hi", "c"), "p9", False, Plan(0, [], "T")),
    (Post("Hi", "c", "m2"), None, False, Plan(0, ["m2", "x", "m3"], "T")),
    (Post("Hi", "c"), "p2", False, Plan(1, ["m2", "x", "m3"], "T")),
    (Post("Hi", "c"), "p1", False, Plan(1, ["m1", "m2", "x", "m3"], None)),
    # While its reply is open, the same prompt is the same turn; another text, asset or wish is not.
    (Post("Hi", "c"), "p3", False, Plan(4, ["m0"], "T")),
    (Post("Ho", "c"), "p3", False, Plan(5, ["m3"], "T")),
    (Post("Hi", "c", None, METRIC), "p3", False, Plan(5, ["m3"], "T")),
    (Post("Hi", "c"), "p3", True, Plan(5, ["m3"], "T")),
    # An edit that is posted again: what it edits is replaced already.
    (Post("Hi", "c", "m0"), "p3", False, Plan(4, ["m0"], "T")),
]


@pytest.mark.parametrize(("post", "prompt_id", "again", "plan"), PLANS)
def test_what_a_post_becomes(post: Post, prompt_id: str | None, again: bool, plan: Plan) -> None:
    assert plan_turn(CHAT, post, prompt_id, again=again) == plan


def test_an_edit_of_a_message_that_is_not_there_is_refused() -> None:
    with pytest.raises(RequestError) as refused:
        plan_turn(CHAT, Post("Hi", "c", "gone"), None, again=False)
    assert refused.value.code == "NOT_FOUND"


def test_in_an_empty_chat_everything_is_new() -> None:
    assert plan_turn([], Post("Hi", "c"), "p", again=True) == Plan(0, [], None)
