"""Inject faults: one method for each kind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Final

from faults.cast import Cast
from faults.measures import Injected
from faults.oracle import Loss, Oracle
from faults.processes import Child
from faults.schedule import Fault

_DELAY_S: Final = (0.02, 0.4)
_CLOCK_S: Final = 20 * 3600
"""Clocks jump by up to this, either way: attach jobs are due a day ago, so that they bear it."""
_TARGET_S: Final = 10.0
_LOST_S: Final = (0.1, 1.0)
"""What a machine that dies under ``everysec`` may lose: the last second of writes."""
_REAPER: Final = "reaper"
_EVERYSEC_S: Final = 1.2
"""How long the server has synced only once a second when it is killed under ``everysec``."""


class Injector:
    """
    Carries out faults, each in a task of its own.

    Attributes:
        counts: Injected faults, by kind.
        injected: Calm ones, to be measured.
        away: Producer → from when to when something was between it and the server.
        active: Faults that are in force.
    """

    def __init__(self, cast: Cast, oracle: Oracle, reconnect: Callable[[Fault], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.injected: list[Injected] = []
        self.away: list[tuple[int | None, float, float]] = []
        self.active = 0
        self._cast = cast
        self._oracle = oracle
        self._reconnect = reconnect
        self._server_busy = asyncio.Lock()

    async def inject(self, fault: Fault) -> None:
        """Carry *fault* out; returns when it is over, and what it took down is up again."""
        self.active += 1
        try:
            if await self._INJECT[fault.kind](self, fault):
                self.counts[fault.kind] += 1
        finally:
            self.active -= 1

    # -- workers ---------------------------------------------------------------------------------

    async def _kill_worker(self, fault: Fault) -> bool:
        victim = await self._target(fault, calm_with_chats=fault.calm)
        if victim is None:
            return False
        owned = await self._owned_by(victim) if fault.calm else {}
        killed_at = time.monotonic()
        await victim.kill()
        if fault.calm:
            seqs = {chat: (await self._head(chat))[1] for chat in owned}
            self.injected.append(Injected(fault.kind, killed_at, seqs))
        await self._cast.put(victim.role, victim.slot)
        return True

    async def _freeze_worker(self, fault: Fault) -> bool:
        victim = await self._target(fault)
        if victim is None:
            return False
        victim.send(signal.SIGSTOP)
        await asyncio.sleep(fault.lasts_s)
        victim.send(signal.SIGCONT)
        return True

    async def _roll_workers(self, fault: Fault) -> bool:
        """A rolling restart: each process ends after its successor is up."""
        for worker in self._cast.living("worker"):
            worker.wanted = True
            await self._cast.put(worker.role, worker.slot)
            owned = await self._owned_by(worker)
            terms = {chat: term for chat, term in owned.items() if term}
            self.injected.append(Injected(fault.kind, time.monotonic(), terms))
            await worker.end()
        return True

    # -- producers, readers, clocks --------------------------------------------------------------

    async def _kill_producer(self, fault: Fault) -> bool:
        victim = await self._target(fault)
        if victim is None:
            return False
        at = time.monotonic()
        await victim.kill()
        dead = [s for s in self._oracle.sent if s.producer == victim.name and not s.outcome]
        for sent in dead:
            sent.outcome, sent.outcome_at = "died", at
        if fault.calm:
            self.injected.append(Injected(fault.kind, at, messages=dead))
        await self._cast.put(victim.role, victim.slot)
        return True

    async def _jump_clock(self, fault: Fault) -> bool:
        victim = await self._target(fault)
        if victim is None:
            return False
        offset_s = (2 * fault.pick - 1) * _CLOCK_S
        self._cast.clocks[victim.role, victim.slot] = offset_s
        victim.tell(do="clock", offset_s=offset_s)
        return True

    async def _reconnect_reader(self, fault: Fault) -> bool:
        self._reconnect(fault)
        return True

    # -- the network -----------------------------------------------------------------------------

    async def _cut(self, fault: Fault) -> bool:
        victim = await self._target(fault)
        if victim is None:
            return False
        with self._between(victim):
            self._cast.proxies[victim.role, victim.slot].cut()
        return True

    async def _freeze(self, fault: Fault) -> bool:
        victim = await self._target(fault)
        if victim is None:
            return False
        with self._between(victim):
            proxy = self._cast.proxies[victim.role, victim.slot]
            # Everything, old connections only, or only what old ones have for the server.
            way = int(fault.pick * 100 % 1 * 3)
            await proxy.freeze(fault.lasts_s, new_ones_too=way == 0, replies_too=way < 2)
        return True

    async def _delay(self, fault: Fault) -> bool:
        victim = await self._target(fault)
        if victim is None:
            return False
        least, most = _DELAY_S
        with self._between(victim):
            proxy = self._cast.proxies[victim.role, victim.slot]
            await proxy.delay(fault.lasts_s, least + (most - least) * (fault.pick * 100 % 1))
        return True

    # -- the server ------------------------------------------------------------------------------

    async def _kill_server(self, fault: Fault) -> bool:
        """
        Kill it, and start it again; no client connects before its losses are noted.

        ``server.lose``: and the machine died with it. What was written in the last moments, and not
        yet synced, is gone.
        """
        async with self._server_busy:
            began = time.monotonic()
            policy = fault.kind.rpartition(".")[2]
            if policy == "everysec":
                await self._cast.set_policy(policy)
                await asyncio.sleep(_EVERYSEC_S)
            log, size = self._cast.command_log(), None
            if policy == "lose":
                await self._cast.set_policy("everysec")
                size = log.stat().st_size
                await asyncio.sleep(_LOST_S[0] + (_LOST_S[1] - _LOST_S[0]) * fault.pick)
            died_at = time.monotonic()
            await self._cast.server.kill()
            if size is not None:
                os.truncate(log, size)
            for proxy in self._cast.proxies.values():
                proxy.admits = False
            await asyncio.sleep(fault.lasts_s)
            await self._cast.server.start()
            await self._cast.set_policy("always")
            await self._look_for_losses(died_at, policy)
            for proxy in self._cast.proxies.values():
                proxy.admits = True
            self.away.append((None, began, time.monotonic()))
        return True

    async def _look_for_losses(self, died_at: float, durability: str) -> None:
        """Note what the restarted server has, before a client can change it."""
        since = max((end for slot, _, end in self.away if slot is None), default=0.0)
        for chat_id, chat in self._oracle.chats.items():
            keys = self._cast.client.keys.chat(chat_id)
            epoch, seq = await self._cast.ask("HMGET", keys.head, "epoch", "seq")
            head = await self._cast.ask("HGETALL", keys.head)
            stored = stored_numbers(await self._cast.ask("HGETALL", keys.producers), head)
            # A message's numbers go when it is forgotten: only what can be lost is asked for.
            gone = {m for m, sent in chat.messages.items() if sent.outcome and m not in stored}
            stored |= dict.fromkeys(gone, 1 << 30)
            chat.losses.append(
                Loss(since, died_at, durability, (epoch or b"").decode(), int(seq or 0), stored)
            )

    # -- helpers ---------------------------------------------------------------------------------

    async def _target(self, fault: Fault, *, calm_with_chats: bool = False) -> Child | None:
        """Choose the target, waiting until there is one; None: there was none in time."""
        role = fault.kind.partition(".")[0]
        deadline = time.monotonic() + _TARGET_S
        while time.monotonic() < deadline:
            living = self._cast.living(role)
            if calm_with_chats:
                living = [child for child in living if await self._owned_by(child)]
            if living:
                return living[int(fault.pick * len(living))]
            await asyncio.sleep(0.05)
        return None

    async def _owned_by(self, worker: Child) -> dict[str, int]:
        """Chats that a worker owns, with their term."""
        keys = self._cast.client.keys
        chats = await self._cast.ask("SMEMBERS", keys.worker_chats(worker.ids[-1]))
        owned = {}
        for chat in sorted(chats):
            owner, _, term = await self._head(chat.decode())
            if owner == worker.ids[-1]:
                owned[chat.decode()] = term
        return owned

    async def _head(self, chat_id: str) -> tuple[str, int, int]:
        """Owner, seq and term of a chat."""
        head = self._cast.client.keys.chat(chat_id).head
        owner, seq, term = await self._cast.ask("HMGET", head, "owner", "seq", "term")
        return (owner or b"").decode(), int(seq or 0), int(term or 0)

    @contextlib.contextmanager
    def _between(self, victim: Child) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            if victim.role == "producer":
                self.away.append((victim.slot, began, time.monotonic()))

    _INJECT: ClassVar[Mapping[str, Callable[[Injector, Fault], Awaitable[bool]]]] = {
        "worker.kill": _kill_worker,
        "worker.freeze": _freeze_worker,
        "worker.roll": _roll_workers,
        "worker.cut": _cut,
        "worker.partition": _freeze,
        "worker.delay": _delay,
        "worker.clock": _jump_clock,
        "producer.kill": _kill_producer,
        "producer.cut": _cut,
        "producer.freeze": _freeze,
        "producer.delay": _delay,
        "producer.clock": _jump_clock,
        "reader.cut": _cut,
        "reader.freeze": _freeze,
        "reader.delay": _delay,
        "reader.clock": _jump_clock,
        "reader.reconnect": _reconnect_reader,
        "server.kill.always": _kill_server,
        "server.kill.everysec": _kill_server,
        "server.lose": _kill_server,
    }
    """Kind of a fault -> what carries it out."""


def stored_numbers(producers: Sequence[bytes], head: Sequence[bytes] = ()) -> dict[str, int]:
    """
    Message id → number of its producer's last stored entry.

    Args:
        producers: A chat's ``producers`` hash, flat: messages that have ended.
        head: Its head, flat: fields ``last.`` of messages that are open.
    """
    stored = {}
    opened = [
        part
        for name, number in zip(head[::2], head[1::2], strict=True)
        if name.startswith(b"last.")
        for part in (name.removeprefix(b"last."), number)
    ]
    flat = [*producers, *opened]
    for name, number in zip(flat[::2], flat[1::2], strict=True):
        pusher, _, message = name.decode().rpartition(":")
        if pusher != _REAPER:  # it numbers what it pushes for the dead by itself
            stored[message] = int(number)
    return stored
