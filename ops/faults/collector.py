"""Takes in what the children report, and puts it where the oracle looks for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from faults.folding import ENDS
from faults.oracle import Chat, Claim, Commit, Oracle, Run, Sent
from faults.processes import Child, Report


class Collector:
    """
    Sorts reports.

    Args:
        oracle: Gets everything.
        on_progress: Called with each message that got an item stored or is over.
    """

    def __init__(self, oracle: Oracle, on_progress: Callable[[Sent], None]) -> None:
        self._oracle = oracle
        self._on_progress = on_progress
        self._sent: dict[str, Sent] = {}

    def expect(self, sent: Sent) -> None:
        """Be ready for reports about a message."""
        self._sent[sent.plan.message] = sent

    def take(self, child: Child, report: Report) -> None:
        """Take in one report."""
        if "worker" in report and "claim" not in report:
            child.ids.append(report["worker"])
        elif "ready" in report:
            child.ready.set()
        elif "event" in report:
            self._take_event(report)
        elif "commit" in report:
            commit = Commit(
                child.name,
                report["term"],
                report["built_on"],
                report["version"],
                report["sent_at"],
            )
            self._chat(report["commit"]).commits.append(commit)
        elif "claim" in report:
            claim = Claim(report["term"], report["t"], child.name)
            self._chat(report["claim"]).claims.append(claim)
        elif child.role == "producer":
            self._take_from_producer(report)

    def _chat(self, head_key: str) -> Chat:
        return self._oracle.chat(head_key.partition("{")[2].rstrip("}"))

    def _take_event(self, report: Report) -> None:
        runs = self._oracle.chat(report["chat"]).runs
        run = runs[report["run"]]
        run.events.append((report["t"], report["event"]))
        event = json.loads(report["event"])
        run.ended |= ended_in(event)
        run.last = (event["epoch"], event["seq"])

    def _take_from_producer(self, report: Report) -> None:
        step = next(iter(report))
        sent = self._sent.get(report[step])
        if sent is None:
            return
        match step:
            case "opened":
                sent.opened_at = report["t"]
            case "trying":
                sent.tried = report["index"] + 1
            case "acked":
                # A push that was in doubt is settled by the first one after it.
                sent.acked += [report["t"]] * (report["index"] + 1 - len(sent.acked))
                self._on_progress(sent)
            case "ending":
                sent.end_tried = True
            case "over":
                self._over(sent, report)
                self._on_progress(sent)
            case _:
                pass

    @staticmethod
    def _over(sent: Sent, report: Report) -> None:
        sent.outcome, sent.detail = report["outcome"], report["detail"]
        sent.outcome_at = report["t"]


def new_run(chat: Chat, reader: str, after: tuple[str, int] | None) -> int:
    """Note that *reader* begins a run over *chat*; its number."""
    for run in chat.runs:
        run.over = run.over or run.reader == reader
    chat.runs.append(Run(reader, after, last=after))
    return len(chat.runs) - 1


def ended_in(event: dict[str, Any]) -> set[str]:
    """Messages that an event, perhaps a snapshot, shows to have ended."""
    if event["type"] == "snapshot":
        messages = event["data"]["messages"]
        return {message["message"] for message in messages if message["status"] != "open"}
    return {event["message"]} if event["type"] in ENDS else set()
