"""
The judge: knows what producers had acknowledged, and every event that each reader got.

It imports nothing of riverdelta and folds in plain Python. The harness tells it what happened, in any
order; `judge` says afterwards which promise was broken, by kind:

lost            acknowledged, and not in the reply; or a reader that never got to the end of the log
repeated        in the reply, or in a reader's run, twice
reordered       there, but not where it belongs
gap             a run, or a log, whose numbers skip
diverged        another text than was pushed; two contents under one position; a snapshot or an
                event that the log does not bear out
rejected        a good chunk that became a dead letter
no end          a message without an end
two ends, event after end, wrong end
two owners      a commit that was stored although its worker was fenced, or built on another state

What a server may lose is allowed exactly where it lost it (`Loss`): the harness reads every
server that it restarted before any client can connect.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from faults.folding import Reply, View, fold_pushed, read_snapshot
from faults.load import Plan

NO_EPOCH: Final = "00000000"
"""What a snapshot of a chat without a log says; the first event that follows has seq 1."""
_MARK: Final = re.compile("⟦[0-9]+⟧")
_SHOWN: Final = 60


class Violation(NamedTuple):
    """A broken promise: which, of which message or reader, and what was seen."""

    kind: str
    where: str
    detail: str


@dataclass(slots=True)
class Sent:
    """
    What became of a plan in its producer's hands. Times are on the one monotonic clock.

    Attributes:
        tried: Items handed to push, at most.
        acked: When each item was acknowledged; an item counts with the first one after it.
        outcome: What the producer saw: ``completed``, ``stopped``, ``ended`` (a worker ended
            it), ``lost``, ``exists``, ``died`` (the producer was killed), ``error``; "" none yet.
    """

    plan: Plan
    producer: str
    opened_at: float | None = None
    tried: int = 0
    acked: list[float] = field(default_factory=list)
    end_tried: bool = False
    outcome: str = ""
    outcome_at: float = 0.0
    detail: str = ""
    stop_asked: bool = False


@dataclass(slots=True)
class Run:
    """
    One reader's run over a chat.

    Attributes:
        after: Position that it asked for: epoch and seq. None: a snapshot.
        events: When each came, and its JSON.
        ended: Messages that it saw end.
        last: Where it has got to.
        over: It was closed, so it need not have reached the end.
    """

    reader: str
    after: tuple[str, int] | None
    events: list[tuple[float, str]] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    last: tuple[str, int] | None = None
    over: bool = False


HELD_BACK_S: Final = 8.0
"""How long a network may hold words of a dead server back: longer than any freeze or delay lasts."""


class Loss(NamedTuple):
    """
    What a restarted server had of a chat, as the harness found it before a client could connect.

    Attributes:
        since: When clients could connect after the restart before; 0 if there was none. Not when it
            was killed: its last replies are received, and counted, some ms after that.
        died_at: When it was killed.
        durability: What was in force: ``always`` (nothing acknowledged may be gone), ``everysec`` (what
            was acknowledged while a sync held writes up, at most 2 s of it, goes with the process),
            ``lose`` (the machine died too: what was not synced, at most a second or two, is gone).
        epoch, seq: Of the last event on its log.
        stored: Message id → number of its last stored entry (its start is 1).
    """

    since: float
    died_at: float
    durability: str
    epoch: str
    seq: int
    stored: Mapping[str, int]


class Commit(NamedTuple):
    """A stored commit: its term, the version it built on, when it was sent, its new version."""

    worker: str
    term: int
    built_on: int
    version: int
    sent_at: float


class Claim(NamedTuple):
    """A claim that a worker knows of: its term, time and worker."""

    term: int
    at: float
    worker: str


@dataclass(slots=True)
class Chat:
    """Everything known of one chat."""

    messages: dict[str, Sent] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    log: list[tuple[str, str]] | None = None
    final: str | None = None
    commits: list[Commit] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)


class Oracle:
    """
    Collects what happened, and judges it.

    Attributes:
        chats: By id.
        excuses: Message id → ends that its producer's fate allows beside what it saw itself, such as
            ``producer_lost`` of one that was cut off for its lease.
        ends: How many messages ended how.
    """

    def __init__(self) -> None:
        self.chats: dict[str, Chat] = {}
        self.excuses: dict[str, set[str]] = {}
        self.ends: Counter[str] = Counter()
        self._violations: list[Violation] = []

    # -- what happened ---------------------------------------------------------------------------

    def planned(self, plan: Plan, producer: str) -> Sent:
        """Take note of a message that *producer* is to push."""
        sent = Sent(plan, producer)
        self.chat(plan.chat).messages[plan.message] = sent
        return sent

    def chat(self, chat_id: str) -> Chat:
        """Everything known of a chat."""
        return self.chats.setdefault(chat_id, Chat())

    @property
    def sent(self) -> Iterable[Sent]:
        """Every message that was planned."""
        return (sent for chat in self.chats.values() for sent in chat.messages.values())

    # -- judgement -------------------------------------------------------------------------------

    def judge(self) -> list[Violation]:
        """Compare everything with everything; call it once, when all is over."""
        for chat_id, chat in self.chats.items():
            self._judge_commits(chat_id, chat)
            self._judge_chat(chat_id, chat)
        return self._violations

    def _say(self, kind: str, where: str, detail: str) -> None:
        self._violations.append(Violation(kind, where, detail))

    def _judge_chat(self, chat_id: str, chat: Chat) -> None:
        if chat.log is None or chat.final is None:
            self._say("lost", chat_id, "its log could not be read at the end")
            return
        log = [json.loads(raw) for _, raw in chat.log]
        losses = [loss for loss in chat.losses if _lost_something(chat, loss)]
        for loss in losses:
            if loss.durability == "always" and _broke_its_word(chat, loss):
                self._say("lost", chat_id, "a server that syncs always came back with less")
        self._judge_log(chat_id, chat.log, log, lossy=bool(losses))
        at = {
            (event["epoch"], event["seq"]): raw
            for event, (_, raw) in zip(log, chat.log, strict=True)
        }
        last = (log[-1]["epoch"], log[-1]["seq"]) if log else (NO_EPOCH, 0)
        snapshots = [("the end", json.loads(chat.final))]
        seen: dict[tuple[str, int], str] = {}
        for number, run in enumerate(chat.runs):
            where = f"{chat_id}, reader {run.reader}, run {number}"
            snapshots += self._judge_run(where, run, at, seen, lossy=bool(losses))
            if not run.over:
                self._judge_reach(where, run, last, json.loads(chat.final))
        view = self._judge_snapshots(chat_id, log, snapshots, lossy=bool(losses))
        self._violations += [Violation(kind, chat_id, detail) for kind, detail in view.faults]
        for message_id, sent in chat.messages.items():
            found = [_items_in(sent, loss) for loss in losses if _lost_of(sent, loss, loss.since)]
            kept = min(found, default=None)
            reply = view.replies.get(message_id)
            self._judge_message(f"{chat_id}/{message_id}", sent, reply, kept)

    def _judge_log(
        self,
        chat_id: str,
        entries: Sequence[tuple[str, str]],
        log: Sequence[dict[str, Any]],
        *,
        lossy: bool,
    ) -> None:
        expected, epoch = 1, None
        for (entry_id, _), event in zip(entries, log, strict=True):
            if entry_id != f"{event['seq']}-0":
                self._say("diverged", chat_id, f"entry {entry_id} holds event {event['seq']}")
            # A log that lost its end goes on in another epoch, after the last seq that any reader has seen.
            resumed = lossy and event["epoch"] != epoch and event["seq"] > expected
            if event["seq"] != expected and not resumed:
                self._say("gap", chat_id, f"the log has {event['seq']} where {expected} belongs")
            expected, epoch = event["seq"] + 1, event["epoch"]

    def _judge_run(
        self,
        where: str,
        run: Run,
        at: Mapping[tuple[str, int], str],
        seen: dict[tuple[str, int], str],
        *,
        lossy: bool,
    ) -> list[tuple[str, dict[str, Any]]]:
        """Hold one run to the guarantee; its snapshots, to be held to the log."""
        snapshots = []
        before = run.after
        # What it shows its user is known only from a beginning on.
        view = View() if run.after == (NO_EPOCH, 0) else None
        for _, raw in run.events:
            event = json.loads(raw)
            here = (event["epoch"], event["seq"])
            if event["type"] == "snapshot":
                snapshots.append((where, event))
                before = here
                view = view or View()
                view.restart(event)
                continue
            if view is not None:
                view.apply(event)
            if before is None:
                self._say("gap", where, f"began with {here} and no snapshot")
            elif (fault := _not_next(before, here)) is not None:
                self._say(fault, where, f"{here} after {before}")
            before = here
            known = at.get(here, seen.get(here)) if lossy else at.get(here)
            if seen.setdefault(here, raw) != raw or (known is not None and known != raw):
                self._say(
                    "diverged", where, f"two events at {here}: {raw[:200]} | {known or seen[here]}"
                )
            elif known is None and not lossy:
                self._say(
                    "diverged", where, f"the log does not have what came as {here}: {raw[:200]}"
                )
        if view is not None:
            self._violations += [Violation("diverged", where, what) for _, what in view.faults]
        return snapshots

    def _judge_reach(
        self, where: str, run: Run, last: tuple[str, int], final: dict[str, Any]
    ) -> None:
        # After the last event a server may have come back: only the head tells that epoch.
        if run.last not in {last, (final["epoch"], final["seq"])}:
            self._say("lost", where, f"stopped at {run.last}; the log goes to {last}")

    def _judge_snapshots(
        self,
        chat_id: str,
        log: Sequence[dict[str, Any]],
        snapshots: list[tuple[str, dict[str, Any]]],
        *,
        lossy: bool,
    ) -> View:
        """Fold the log, and compare each snapshot with the fold as of its seq."""
        view = View()
        epochs = {event["epoch"]: index for index, event in enumerate(log)}  # its last event
        due = sorted(snapshots, key=lambda snapshot: snapshot[1]["seq"])
        for event in [*log, None]:
            while due and (event is None or due[0][1]["seq"] < event["seq"]):
                where, snapshot = due.pop(0)
                if lossy and snapshot["epoch"] not in epochs and where != "the end":
                    continue  # of a log that the server forgot
                if lossy and _was_cut(log, epochs, snapshot):
                    continue
                self._compare(where, chat_id, snapshot, view.replies)
            if event is not None:
                view.apply(event)
        return view

    def _compare(
        self, where: str, chat_id: str, snapshot: dict[str, Any], replies: Mapping[str, Reply]
    ) -> None:
        shown = read_snapshot(snapshot)
        for message_id in {*shown, *replies}:
            if shown.get(message_id) != replies.get(message_id):
                difference = _difference(replies.get(message_id), shown.get(message_id))
                detail = f"snapshot at {snapshot['seq']} for {where}: {difference}"
                self._say("diverged", f"{chat_id}/{message_id}", detail)

    def _judge_message(self, where: str, sent: Sent, reply: Reply | None, kept: int | None) -> None:
        """*kept*: items that a server had left of it which had acknowledged more; None: none did."""
        if reply is None:
            if sent.opened_at is not None and kept is None:
                self._say("lost", where, "it was opened, and readers know nothing of it")
            return
        if reply.status == "open":
            self._say("no end", where, f"outcome {sent.outcome!r} at its producer {sent.producer}")
            return
        end = reply.code if reply.status == "failed" else reply.status
        self.ends[end or "?"] += 1
        allowed = _allowed_ends(sent) | self.excuses.get(sent.plan.message, set())
        if kept is not None:
            allowed |= {"data_lost"}
        if end not in allowed:
            detail = f"ended {end}; its producer saw {sent.outcome!r} {sent.detail}, so {sorted(allowed)}"
            self._say("wrong end", where, detail)
        if end != "data_lost":
            self._judge_text(where, sent, reply, kept)

    def _judge_text(self, where: str, sent: Sent, reply: Reply, kept: int | None) -> None:
        items = sent.plan.items
        least, most = len(sent.acked), sent.tried
        if kept is not None and sent.outcome == "died":
            least = min(least, kept)  # no producer is left that could send it again
        if reply.status == "completed":
            least = most = len(items)
        wanted = Reply()
        for count in range(least, most + 1):
            wanted = fold_pushed(sent.plan.source, items[:count])
            if wanted.chunks == reply.chunks and wanted.notes == reply.notes:
                return
        most_likely = fold_pushed(sent.plan.source, items[:least])
        kind = classify(fold_pushed(sent.plan.source, items[:most]), most_likely, reply)
        detail = f"{least} to {most} items of {sent.plan.source}: {_difference(most_likely, reply)}"
        self._say(kind, where, detail)

    def _judge_commits(self, chat_id: str, chat: Chat) -> None:
        """One owner at a time: a fenced worker's commits, and those on an old state, are refused."""
        claims = sorted(chat.claims, key=lambda claim: claim.at)
        times = [claim.at for claim in claims]
        claimers: dict[int, set[str]] = {}
        for claim in claims:
            claimers.setdefault(claim.term, set()).add(claim.worker)
        for commit in chat.commits:
            if commit.version != commit.built_on + 1:
                detail = f"{commit.worker} built on version {commit.built_on}, stored as {commit.version}"
                self._say("two owners", chat_id, detail)
            if commit.worker not in claimers.get(commit.term, {commit.worker}):
                detail = (
                    f"{commit.worker} committed in term {commit.term} of {claimers[commit.term]}"
                )
                self._say("two owners", chat_id, detail)
            before = claims[: bisect_left(times, commit.sent_at)]
            newest = max((claim.term for claim in before), default=0)
            # A server that forgot a claim hands its term out again.
            if newest > commit.term and not chat.losses:
                detail = f"{commit.worker} committed in term {commit.term} after term {newest} was claimed"
                self._say("two owners", chat_id, detail)


def classify(most: Reply, least: Reply, seen: Reply) -> str:
    """Say what is wrong with a reply: *seen* is neither *least* nor *most* nor in between."""
    wanted, marks = _marks(most), _marks(seen)
    if any(count > 1 for count in Counter(marks).values()) or len(seen.notes) > len(most.notes):
        return "repeated"
    if not set(_marks(least)) <= set(marks) or len(seen.notes) < len(least.notes):
        return "lost"
    if marks != [mark for mark in wanted if mark in set(marks)]:
        return "reordered"
    return "diverged"


def _marks(reply: Reply) -> list[tuple[str, str]]:
    """Marks in order, with the kind of their chunk: interleaved chunks have an order each."""
    return sorted(
        ((chunk.kind, mark) for chunk in reply.chunks for mark in _MARK.findall(chunk.text)),
        key=lambda pair: pair[0],
    )


def _not_next(before: tuple[str, int], here: tuple[str, int]) -> str | None:
    (epoch_before, seq_before), (epoch, seq) = before, here
    if epoch != epoch_before and (epoch_before, seq) != (NO_EPOCH, 1):
        return "diverged"
    if seq == seq_before + 1:
        return None
    if seq > seq_before + 1:
        return "gap"
    return "repeated" if seq == seq_before else "reordered"


def _allowed_ends(sent: Sent) -> set[str]:
    """How a message may end, by what its producer saw."""
    match sent.outcome:
        case "completed":
            # A stop may be obeyed between the last push and the end: leaving the block says nothing.
            return {"completed", "stopped"} if sent.stop_asked else {"completed"}
        case "stopped":
            return {"stopped"}
        case "died":
            allowed = {"producer_lost"}
            if sent.end_tried:
                allowed.add("completed")
            if sent.stop_asked:
                allowed.add("stopped")
            return allowed
        case _:
            return set()


def _lost_something(chat: Chat, loss: Loss) -> bool:
    """Whether a restarted server lacked what it had said since the restart before."""
    seen = any(
        loss.since < at < loss.died_at and json.loads(raw)["seq"] > loss.seq
        for run in chat.runs
        for at, raw in run.events
    )
    return seen or any(_lost_of(sent, loss, loss.since) for sent in chat.messages.values())


def _broke_its_word(chat: Chat, loss: Loss) -> bool:
    """Whether what it lacked was surely its own word, not one of a server before that was held back."""
    own_since = loss.since + HELD_BACK_S if loss.since else 0.0
    for run in chat.runs:
        events = (json.loads(raw) for at, raw in run.events if own_since < at < loss.died_at)
        if any(event["epoch"] == loss.epoch and event["seq"] > loss.seq for event in events):
            return True
    return any(_lost_of(sent, loss, own_since) for sent in chat.messages.values())


def _lost_of(sent: Sent, loss: Loss, since: float) -> bool:
    """Whether a restarted server lost what it had acknowledged of a message after *since*."""
    if sent.opened_at is None or sent.opened_at >= loss.died_at:
        return False
    acked = bisect_left(sent.acked, loss.died_at)
    last_ack = sent.acked[acked - 1] if acked else sent.opened_at
    # Acknowledged before the restart before: what is missing of it was lost then.
    return last_ack > since and loss.stored.get(sent.plan.message, 0) < 1 + acked


def _items_in(sent: Sent, loss: Loss) -> int:
    """How many items of a message a restarted server had."""
    return max(0, loss.stored.get(sent.plan.message, 0) - 1)


def _was_cut(
    log: Sequence[dict[str, Any]], epochs: Mapping[str, int], snapshot: dict[str, Any]
) -> bool:
    """Whether *snapshot* shows a part of its epoch's log that the server forgot."""
    last = epochs.get(snapshot["epoch"])
    return last is not None and last + 1 < len(log) and snapshot["seq"] > log[last]["seq"]


def _difference(wanted: Reply | None, seen: Reply | None) -> str:
    """Show where two replies part."""
    if wanted is None or seen is None:
        return f"wanted {_short(wanted)}, saw {_short(seen)}"
    if (wanted.status, wanted.code) != (seen.status, seen.code) and wanted.status != "open":
        return f"status {wanted.status} {wanted.code}, saw {seen.status} {seen.code}"
    for index in range(max(len(wanted.chunks), len(seen.chunks))):
        left = wanted.chunks[index] if index < len(wanted.chunks) else None
        right = seen.chunks[index] if index < len(seen.chunks) else None
        if left == right:
            continue
        if left is None or right is None:
            return f"chunk {index}: wanted {left}, saw {right}"[: 4 * _SHOWN]
        at = next(
            (i for i, (a, b) in enumerate(zip(left.text, right.text, strict=False)) if a != b),
            min(len(left.text), len(right.text)),
        )
        return (
            f"chunk {index} from code point {at}: wanted {left.text[at : at + _SHOWN]!r} "
            f"({len(left.text)}), saw {right.text[at : at + _SHOWN]!r} ({len(right.text)})"
        )
    return f"annotations: wanted {len(wanted.notes)}, saw {len(seen.notes)}"


def _short(reply: Reply | None) -> str:
    return "nothing" if reply is None else f"{reply.status} with {len(reply.chunks)} chunks"
