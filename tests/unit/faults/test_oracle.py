"""The oracle: a run that is right passes, and each way of being wrong is called by its name."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from faults.folding import View, fold_pushed
from faults.load import Item, Plan, plans
from faults.oracle import Chat, Claim, Commit, Loss, Oracle, Run, Sent

EPOCH = "e1"
TEXTS = ["⟦0⟧ 🙂 ", "⟦1⟧ e\u0301 ", "⟦2⟧ c "]


class Story:
    """A chat with one message, all of it right; tests spoil it and see what the oracle says."""

    def __init__(self) -> None:
        self.oracle = Oracle()
        items = tuple(Item("chunk", text, 0.0) for text in TEXTS)
        self.sent = self.oracle.planned(Plan("c", "m", "text", items), "producer-0.0")
        self.sent.opened_at = 1.0
        self.sent.tried = len(items)
        self.sent.acked = [2.0, 3.0, 4.0]
        self.sent.outcome = "completed"
        self.log = self.events(TEXTS)
        self.read: list[dict[str, Any]] | None = None
        self.last: tuple[str, int] | None = None
        self.epoch = EPOCH

    @property
    def chat(self) -> Chat:
        return self.oracle.chat("c")

    def events(self, texts: list[str], end: str = "message.completed") -> list[dict[str, Any]]:
        data: dict[str, Any] = {"kind": "text", "tool_name": None, "tool_call_id": None}
        log = [event("message.started", {}), event("chunk.started", data, "m.0")]
        offset = 0
        for text in texts:
            log.append(event("chunk.delta", {"offset": offset, "text": text}, "m.0"))
            offset += len(text)
        log.append(event(end, {"code": "producer_lost"} if end == "message.failed" else {}))
        return [each | {"seq": seq} for seq, each in enumerate(log, 1)]

    def snapshot(self, status: str = "completed") -> dict[str, Any]:
        chunk = {"chunk": "m.0", "kind": "text", "tool_name": None, "tool_call_id": None}
        text = "".join(e["data"]["text"] for e in self.log if e["type"] == "chunk.delta")
        message: dict[str, Any] = {
            "message": "m",
            "status": status,
            "error": None,
            "annotations": [],
        }
        message["chunks"] = [chunk | {"text": text}]
        seq = self.log[-1]["seq"] if self.log else 0
        return event("snapshot", {"messages": [message]}) | {"seq": seq, "epoch": self.epoch}

    def kinds(self, *, final: dict[str, Any] | None = None) -> set[str]:
        read = self.log if self.read is None else self.read
        run = Run("reader-0.0", ("00000000", 0))
        run.events = [(10.0, json.dumps(each)) for each in read]
        run.last = self.last or (EPOCH, read[-1]["seq"])
        self.chat.runs.append(run)
        self.chat.log = [(f"{each['seq']}-0", json.dumps(each)) for each in self.log]
        self.chat.final = json.dumps(final or self.snapshot())
        return {violation.kind for violation in self.oracle.judge()}


def event(type_: str, data: dict[str, Any], chunk: str | None = None) -> dict[str, Any]:
    fields = {"seq": 0, "epoch": EPOCH, "message": "m", "type": type_, "data": data}
    return fields if chunk is None else fields | {"chunk": chunk}


def test_a_story_that_is_right() -> None:
    story = Story()
    assert story.kinds() == set()
    assert story.oracle.ends == {"completed": 1}


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (TEXTS[:2], "lost"),
        ([TEXTS[0], TEXTS[1], TEXTS[1], TEXTS[2]], "repeated"),
        ([TEXTS[0], TEXTS[2], TEXTS[1]], "reordered"),
        ([TEXTS[0], TEXTS[1], TEXTS[2] + "!"], "diverged"),
    ],
)
def test_a_reply_that_is_not_what_was_acknowledged(texts: list[str], kind: str) -> None:
    story = Story()
    story.log = story.events(texts)
    assert story.kinds() == {kind}


def spoil_gap(story: Story) -> None:
    story.read = story.log[:3] + story.log[4:]


def spoil_repeat(story: Story) -> None:
    story.read = [*story.log[:3], *story.log[2:]]


def spoil_order(story: Story) -> None:
    story.read = [*story.log[:2], story.log[3], story.log[2], *story.log[4:]]


def spoil_content(story: Story) -> None:
    story.read = [*story.log]
    story.read[3] = story.read[3] | {"ts": 7}


def spoil_unlogged(story: Story) -> None:
    story.read = [*story.log, event("message.annotated", {"name": "n", "data": 1}) | {"seq": 7}]


def spoil_reach(story: Story) -> None:
    story.read = story.log[:4]


def spoil_end(story: Story) -> None:
    story.log.pop()


def spoil_two_ends(story: Story) -> None:
    story.log.append(story.log[-1] | {"seq": 7})


def spoil_after_end(story: Story) -> None:
    story.log.append(event("chunk.completed", {"length": 1}, "m.0") | {"seq": 7})


def spoil_wrong_end(story: Story) -> None:
    story.log = story.events(TEXTS, "message.failed")


def spoil_offset(story: Story) -> None:
    story.log[3]["data"]["offset"] += 1  # UTF-16 code units, say


def spoil_log(story: Story) -> None:
    del story.log[3]


def spoil_term(story: Story) -> None:
    story.chat.claims += [Claim(1, 1.0, "worker-0.0"), Claim(2, 5.0, "worker-1.0")]
    story.chat.commits.append(Commit("worker-0.0", 1, 3, 4, 6.0))


def spoil_name(story: Story) -> None:
    story.chat.claims += [Claim(2, 5.0, "worker-1.0")]
    story.chat.commits.append(Commit("worker-0.0", 2, 3, 4, 6.0))


def spoil_version(story: Story) -> None:
    story.chat.commits.append(Commit("worker-0.0", 1, 3, 5, 6.0))


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (spoil_gap, "gap"),
        (spoil_repeat, "repeated"),
        (spoil_order, "reordered"),
        (spoil_content, "diverged"),
        (spoil_unlogged, "diverged"),
        (spoil_reach, "lost"),
        (spoil_end, "no end"),
        (spoil_two_ends, "two ends"),
        (spoil_after_end, "event after end"),
        (spoil_wrong_end, "wrong end"),
        (spoil_offset, "lost"),
        (spoil_log, "gap"),
        (spoil_term, "two owners"),
        (spoil_name, "two owners"),
        (spoil_version, "two owners"),
    ],
)
def test_each_way_of_being_wrong_is_called_by_its_name(
    spoil: Callable[[Story], None], kind: str
) -> None:
    story = Story()
    spoil(story)
    assert kind in story.kinds()


def test_a_snapshot_that_the_log_does_not_bear_out() -> None:
    story = Story()
    wrong = story.snapshot()
    wrong["data"]["messages"][0]["chunks"][0]["text"] += "more"
    assert story.kinds(final=wrong) == {"diverged"}


def test_what_was_in_doubt_when_its_producer_died_may_be_there_or_not() -> None:
    for there in (1, 2, 3):
        story = Story()
        story.sent.acked, story.sent.outcome = [2.0], "died"
        story.log = story.events(TEXTS[:there], "message.failed")
        final = story.snapshot("failed")
        final["data"]["messages"][0]["error"] = {"code": "producer_lost"}
        assert story.kinds(final=final) == set()
    story = Story()
    story.sent.tried, story.sent.acked, story.sent.outcome = 2, [2.0], "died"
    story.log = story.events(TEXTS, "message.failed")
    assert "diverged" in story.kinds()


def test_a_server_may_lose_only_what_it_was_found_to_have_lost() -> None:
    def forgetful(stored: int, durability: str = "everysec") -> set[str]:
        story = Story()
        story.sent.outcome = "lost"
        story.chat.losses.append(Loss(0.0, 3.5, durability, EPOCH, 3, {"m": stored}))
        story.log = story.events(TEXTS[:1], "message.failed")
        story.log[-1]["data"]["code"] = "data_lost"
        final = story.snapshot("failed")
        final["data"]["messages"][0]["error"] = {"code": "data_lost"}
        return story.kinds(final=final)

    assert forgetful(stored=2) == set()  # it had acknowledged number 3 before it died
    assert forgetful(stored=3) == {"wrong end"}
    assert forgetful(stored=2, durability="always") == {"lost"}


def test_what_one_restart_lost_is_not_lost_again_at_the_next() -> None:
    # Received before the server was killed, just after it, and when another was there: it was held back.
    for last_word in (19.0, 20.01, 23.0):
        story = Story()
        story.sent.acked = [2.0, 3.0, last_word]
        story.chat.losses += [
            Loss(0.0, 20.0, "lose", EPOCH, 3, {"m": 2}),
            Loss(21.0, 30.0, "always", EPOCH, 3, {"m": 2}),
        ]
        assert story.kinds() == set()
    story = Story()
    story.chat.losses += [
        Loss(0.0, 20.0, "lose", EPOCH, 3, {"m": 2}),
        Loss(21.0, 40.0, "always", EPOCH, 3, {"m": 2}),
    ]
    story.sent.acked = [2.0, 3.0, 35.0]  # that was the second one's own word
    assert "lost" in story.kinds()


def test_last_words_of_a_server_before_are_not_the_next_ones() -> None:
    for epoch, kinds in (("another", set()), (EPOCH, {"lost"})):
        story = Story()
        story.chat.losses.append(Loss(0.5, 50.0, "always", epoch, 1, {"m": 1 << 30}))
        assert story.kinds() == kinds


def test_one_position_is_one_event_even_where_a_server_forgot() -> None:
    story = Story()
    story.chat.losses.append(Loss(0.0, 20.0, "lose", EPOCH, 3, {"m": 2}))
    spoil_content(story)
    assert "diverged" in story.kinds()


def test_a_message_that_no_reader_ever_saw() -> None:
    story = Story()
    story.log = []
    story.read = []
    story.last = ("00000000", 0)
    story.epoch = "00000000"
    empty = event("snapshot", {"messages": []}) | {"epoch": "00000000"}
    assert story.kinds(final=empty) == {"lost"}


def test_every_source_folds_to_the_text_that_was_meant() -> None:
    """The oracle's own fold against what the load says: all marks, each once, in order."""
    drawn = plans("fold", open_chats=3)
    for plan in (next(drawn) for _ in range(200)):
        reply = fold_pushed(plan.source, plan.items)
        marks = [mark for chunk in reply.chunks for mark in chunk.text.split() if "⟦" in mark]
        assert len(marks) == len(set(marks)) >= 8
        assert len(reply.notes) == sum(item.kind == "annotate" for item in plan.items)


def test_an_unacknowledged_message_need_not_exist() -> None:
    oracle = Oracle()
    sent: Sent = oracle.planned(Plan("c", "m", "text", ()), "producer-0.0")
    sent.outcome = "died"
    oracle.chat("c").log = []
    oracle.chat("c").final = json.dumps(
        {"type": "snapshot", "epoch": "00000000", "seq": 0, "data": {"messages": []}}
    )
    assert oracle.judge() == []


def test_patches_must_come_to_what_the_text_says() -> None:
    def kinds(patched: str) -> list[str]:
        data = {"kind": "tool_call", "tool_name": "t", "tool_call_id": "i"}
        patches = [[[], "set", {}], [["a"], "set", "x"], [["a"], "append", patched]]
        view = View()
        for each in (
            event("message.started", {}),
            event("chunk.started", data, "m.0"),
            event("chunk.delta", {"offset": 0, "text": '{"a":"xy"}'}, "m.0"),
            event("chunk.patch", {"patches": patches}, "m.0"),
            event("chunk.completed", {"length": 10}, "m.0"),
        ):
            view.apply(each)
        return [kind for kind, _ in view.faults]

    assert kinds("y") == []
    assert kinds("z") == ["diverged"]
