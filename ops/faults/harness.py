"""One run: load goes on, faults are injected as scheduled, and in the end the oracle judges."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from faults.cast import SIZES, Cast
from faults.collector import Collector, new_run
from faults.injector import Injector
from faults.load import Plan, plans
from faults.measures import Measure, measure
from faults.oracle import Oracle, Sent, Violation
from faults.processes import Child
from faults.schedule import Fault, Schedule
from riverdelta import Settings, Subscriber

_OPEN_CHATS: Final = 8
_OPEN_MESSAGES: Final = 24
_FEED_S: Final = 0.05
_CALM_WAIT_S: Final = 15.0
_LEASE_S: Final = 5.0
_AWAY_GAP_S: Final = 2.5
"""Two faults so near are one to a producer: its heartbeat comes once a second and may be late."""
BEGINNING: Final = ("00000000", 0)


@dataclass(slots=True)
class Result:
    """The result of a run."""

    seed: str
    seconds: float
    counts: Counter[str]
    messages: int
    events: int
    ends: Counter[str]
    measures: list[Measure]
    violations: list[Violation]
    notes: list[str] = field(default_factory=list)


class Harness:
    """
    Runs one schedule.

    Args:
        folder: Where server data and logs go.
        drain_s: How long what is open may take to end when the faults are over.
        sabotage: What to break on purpose.
        slack: Times may be so many times what is promised.
    """

    def __init__(
        self,
        seed: str,
        schedule: Schedule,
        folder: Path,
        *,
        drain_s: float = 25.0,
        sabotage: str | None = None,
        open_messages: int = _OPEN_MESSAGES,
        slack: float = 1.0,
    ) -> None:
        self._seed = seed
        self._schedule = schedule
        self._drain_s = drain_s
        self._slack = slack
        self._open_messages = open_messages
        self._rng = random.Random(f"{seed}/harness")
        self._plans: Iterator[Plan] = plans(seed, open_chats=_OPEN_CHATS)
        self._oracle = Oracle()
        self._collector = Collector(self._oracle, self._progress)
        self._violations: list[Violation] = []
        self._following: set[str] = set()
        self._whole: set[str] = set()
        self._cast = Cast(folder, self._collector.take, self._surprised, sabotage=sabotage)
        self._injector = Injector(self._cast, self._oracle, self._reconnect)

    async def run(self) -> Result:
        """Run to the end; nothing is left running."""
        async with self._cast:
            feeding = asyncio.create_task(self._feed())
            began = time.monotonic()
            await self._inject_all()
            feeding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeding
            took_s = time.monotonic() - began
            await self._drain()
            await self._cast.end("worker")  # so that logs do not change while they are read
            await self._read_logs()
        self._excuse()
        violations = self._violations + self._not_injected() + self._oracle.judge()
        measures = measure(self._oracle, self._injector.injected, self._slack)
        violations += [violation for times in measures for violation in times.violations()]
        return Result(
            self._seed,
            took_s,
            self._injector.counts,
            sum(self._oracle.ends.values()),
            sum(len(run.events) for chat in self._oracle.chats.values() for run in chat.runs),
            self._oracle.ends,
            measures,
            violations,
        )

    # -- faults ----------------------------------------------------------------------------------

    async def _inject_all(self) -> None:
        """Inject each fault at its time; a fault that has to wait delays all later ones."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for fault in self._schedule.faults:
                await asyncio.sleep(began + fault.at_s - time.monotonic())
                if not fault.calm:
                    tasks.create_task(self._injector.inject(fault))
                    continue
                waited_since = time.monotonic()
                await self._calm()
                began += time.monotonic() - waited_since
                if fault.kind != "worker.roll":
                    tasks.create_task(self._injector.inject(fault))
                    continue
                rolling_since = time.monotonic()
                await self._injector.inject(fault)
                began += max(0.0, time.monotonic() - rolling_since - 5.0)
            await asyncio.sleep(began + self._schedule.seconds - time.monotonic())

    async def _calm(self) -> None:
        """Wait until no fault is in force, all children are ready, and no chat waits for an owner."""
        deadline = time.monotonic() + _CALM_WAIT_S
        keys = self._cast.client.keys
        while time.monotonic() < deadline:
            everybody = all(len(self._cast.living(role)) == size for role, size in SIZES.items())
            calm = everybody and not self._injector.active
            if calm and not await self._cast.ask("ZCARD", keys.waiting):
                return
            await asyncio.sleep(0.02)

    def _not_injected(self) -> list[Violation]:
        """Report faults that were not injected: such a run shows nothing."""
        scheduled = Counter(fault.kind for fault in self._schedule.faults)
        return [
            Violation("not injected", kind, f"{self._injector.counts[kind]} of {count}")
            for kind, count in scheduled.items()
            if self._injector.counts[kind] < count
        ]

    def _surprised(self, child: Child) -> None:
        self._violations.append(
            Violation("crashed", child.name, "it ended on its own; see its log")
        )

    def _excuse(self) -> None:
        """A producer that was kept from the server for its lease may find its messages failed."""
        for sent in self._oracle.sent:
            slot = int(sent.producer.partition("-")[2].partition(".")[0])
            spans = sorted(
                (begin, end) for away, begin, end in self._injector.away if away in {None, slot}
            )
            if any(
                end - begin >= _LEASE_S - _AWAY_GAP_S
                and begin < sent.outcome_at < end + 2 * _LEASE_S
                for begin, end in _merged(spans)
            ):
                self._oracle.excuses[sent.plan.message] = {"producer_lost"}

    # -- load ------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Keep as many messages open as there should be."""
        while True:
            producers = self._cast.living("producer")
            still_open = sum(not sent.outcome for sent in self._oracle.sent)
            for _ in range(self._open_messages - still_open if producers else 0):
                self._give(next(self._plans), self._rng.choice(producers))
            for chat_id in sorted(filter(self._is_read, self._whole)):
                self._leave(chat_id)
            await asyncio.sleep(_FEED_S)

    def _give(self, plan: Plan, producer: Child) -> None:
        self._collector.expect(self._oracle.planned(plan, producer.name))
        if plan.chat not in self._following:  # its first message
            self._following.add(plan.chat)
            for number, reader in enumerate(self._cast.living("reader")):
                self._follow(reader, plan.chat, BEGINNING if number % 2 else None)
        if plan.last:
            self._whole.add(plan.chat)
        producer.tell(do="push", plan=plan.as_json())

    def _follow(self, reader: Child, chat_id: str, after: tuple[str, int] | None) -> None:
        number = new_run(self._oracle.chat(chat_id), reader.name, after)
        position = None if after is None else f"{after[0]}:{after[1]}"
        reader.tell(do="follow", chat=chat_id, run=number, after=position)

    def _leave(self, chat_id: str) -> None:
        """Have readers leave a chat that nothing more comes for."""
        self._whole.remove(chat_id)
        self._following.remove(chat_id)
        for run in self._oracle.chats[chat_id].runs:
            run.over = (
                True  # it has read all there was; a server may forget the end, and be reminded
            )
        for reader in self._cast.living("reader"):
            reader.tell(do="leave", chat=chat_id)

    def _progress(self, sent: Sent) -> None:
        """Stop what is to be stopped."""
        stop = sent.plan.stop_after
        if stop is not None and not sent.stop_asked and not sent.outcome and len(sent.acked) > stop:
            sent.stop_asked = True
            readers = self._cast.living("reader")
            self._rng.choice(readers).tell(
                do="stop", chat=sent.plan.chat, message=sent.plan.message
            )

    def _reconnect(self, fault: Fault) -> None:
        """Have a reader begin again, anywhere in what it has seen."""
        readers = self._cast.living("reader")
        reader = readers[int(fault.pick * len(readers))]
        chats = sorted(self._following)
        if not chats:
            return
        chat_id = self._rng.choice(chats)
        seen = [
            raw
            for run in self._oracle.chats[chat_id].runs
            if run.reader == reader.name
            for _, raw in run.events
        ]
        event = json.loads(self._rng.choice(seen)) if seen else None
        self._follow(reader, chat_id, (event["epoch"], event["seq"]) if event else None)

    # -- the end ---------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Wait until every message has ended for every reader, or the time is up."""
        deadline = time.monotonic() + self._drain_s
        while time.monotonic() < deadline:
            if all(map(self._is_read, self._following)):
                return
            await asyncio.sleep(0.05)

    def _is_read(self, chat_id: str) -> bool:
        chat = self._oracle.chats[chat_id]
        expected = {m for m, sent in chat.messages.items() if sent.opened_at is not None}
        ended = set().union(*(run.ended for run in chat.runs))
        furthest = max(run.last[1] if run.last else 0 for run in chat.runs)
        return (
            all(sent.outcome for sent in chat.messages.values())
            and expected <= ended
            and all(run.last and run.last[1] >= furthest for run in chat.runs if not run.over)
        )

    async def _read_logs(self) -> None:
        """Read every log as Redis has it, and every chat as riverdelta shows it."""
        keys = self._cast.client.keys
        async with Subscriber(Settings(redis_url=self._cast.server.url)) as subscriber:
            for chat_id, chat in self._oracle.chats.items():
                deltas = keys.chat(chat_id).deltas
                entries = await self._cast.ask("XRANGE", deltas, "-", "+")
                chat.log = [(entry_id.decode(), raw.decode()) for entry_id, (_, raw) in entries]
                chat.final = (await subscriber.snapshot(chat_id)).raw.decode()


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    merged: list[tuple[float, float]] = []
    for begin, end in spans:
        if merged and begin - merged[-1][1] < _AWAY_GAP_S:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged
