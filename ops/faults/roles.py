"""The parts that child processes play: worker, producer, reader. riverdelta as its users have it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, Final

from bench.loop import run
from faults import sabotage
from faults.child import Clock, listen, report
from faults.load import Item, Plan
from riverdelta import (
    Message,
    MessageEnded,
    MessageExists,
    MessageLost,
    Producer,
    RiverdeltaError,
    Settings,
    Stopped,
    Subscriber,
)
from riverdelta.broker.store import scripts
from riverdelta_cli.commands.worker import worker as run_worker_command
from riverdelta_workers import pump

_HURRY_S: Final = 0.0015
"""How long a hurried push may take: about as long as one takes."""

Orders = asyncio.Queue[dict[str, Any] | None]


def worker(spec: dict[str, Any], clock: Clock) -> None:
    """`riverdelta worker`, which also tells its ids, its claims and its commits."""
    listen(clock, lambda _: None)
    _watch_ids()
    _watch_claims_and_commits()
    run_worker_command(Settings(**spec["settings"]))


def _watch_ids() -> None:
    new_worker_id = pump._new_worker_id  # noqa: SLF001  # nothing public tells which process has which id

    def tell() -> str:
        worker_id = new_worker_id()
        report(worker=worker_id)
        return worker_id

    pump._new_worker_id = tell  # noqa: SLF001  # as above


def _watch_claims_and_commits() -> None:
    claim, commit = scripts.claim, scripts.commit

    async def watched_claim(executor: Any, keys: Any, **args: Any) -> Any:
        claimed = await claim(executor, keys, **args)
        if claimed is not None:
            report(claim=keys.head, worker=args["worker_id"], term=claimed.term)
        return claimed

    async def watched_commit(executor: Any, keys: Any, args: Any) -> Any:
        sent_at = time.monotonic()
        answer = await commit(executor, keys, args)
        if isinstance(answer, int):
            term, version = args[:2]
            report(commit=keys[0], term=term, built_on=version, version=answer, sent_at=sent_at)
        return answer

    scripts.claim = watched_claim
    scripts.commit = watched_commit


def producer(spec: dict[str, Any], clock: Clock) -> None:
    """Push what is ordered, many messages at once."""
    run(_produce(spec, clock))


async def _produce(spec: dict[str, Any], clock: Clock) -> None:
    orders = _orders(clock)
    async with Producer(Settings(**spec["settings"])) as pushing, asyncio.TaskGroup() as tasks:
        report(ready=True)
        while (order := await orders.get()) is not None:
            tasks.create_task(_push_all(pushing, Plan.of(order["plan"])))


async def _push_all(pushing: Producer, plan: Plan) -> None:
    outcome, detail = "completed", ""
    try:
        report(opening=plan.message)
        message = pushing.message(plan.chat, source=plan.source, message_id=plan.message)
        async with message:
            report(opened=plan.message)
            for index, item in enumerate(plan.items):
                await asyncio.sleep(item.pause_s)
                report(trying=plan.message, index=index)
                if await _push(message, item):
                    report(acked=plan.message, index=index)
            report(ending=plan.message)
    except Stopped:
        outcome = "stopped"
    except MessageEnded as error:
        outcome, detail = "ended", str(error)
    except MessageLost as error:
        outcome, detail = "lost", str(error)
    except MessageExists as error:
        outcome, detail = "exists", str(error)
    except RiverdeltaError as error:
        outcome, detail = "error", f"{type(error).__name__}: {error}"
    report(over=plan.message, outcome=outcome, detail=detail)


async def _push(message: Message, item: Item) -> bool:
    """Push one item; False: cut off, so it is in doubt until the next answer."""
    try:
        async with asyncio.timeout(_HURRY_S if item.hurried else None):
            match item.kind:
                case "annotate":
                    await message.annotate(item.data["name"], item.data["data"])
                case "tool_result":
                    await message.push_tool_result(**item.data)
                case "bytes":
                    await message.push(base64.b64decode(item.data))
                case _:
                    await message.push(item.data)
    except TimeoutError:
        return False
    return True


def reader(spec: dict[str, Any], clock: Clock) -> None:
    """Follow the chats that are ordered, and stop messages."""
    run(_read(spec, clock))


async def _read(spec: dict[str, Any], clock: Clock) -> None:
    orders = _orders(clock)
    following: dict[str, asyncio.Task[None]] = {}
    async with Subscriber(Settings(**spec["settings"])) as subscriber, asyncio.TaskGroup() as tasks:
        report(ready=True)
        while (order := await orders.get()) is not None:
            chat = order["chat"]
            if order["do"] == "stop":
                tasks.create_task(_stop(subscriber, chat, order["message"]))
                continue
            if (task := following.pop(chat, None)) is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            if order["do"] == "follow":
                follow = _follow(subscriber, chat, order["run"], order["after"])
                following[chat] = tasks.create_task(follow)
        for task in following.values():
            task.cancel()


async def _follow(subscriber: Subscriber, chat: str, number: int, after: str | None) -> None:
    while True:
        try:
            async with contextlib.aclosing(subscriber.events(chat, after)) as events:
                async for event in events:
                    report(event=event.raw.decode(), chat=chat, run=number)
                    after = event.position
        except RiverdeltaError as error:
            logging.getLogger("faults").warning("reader of %s: %s", chat, error)
            await asyncio.sleep(0.1)


async def _stop(subscriber: Subscriber, chat: str, message: str) -> None:
    with contextlib.suppress(RiverdeltaError):
        marked = await subscriber.stop(chat, message, reason="enough")
        report(stopped=message, marked=bool(marked))


def _orders(clock: Clock) -> Orders:
    orders: Orders = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def take(order: dict[str, Any] | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and so have we
            loop.call_soon_threadsafe(orders.put_nowait, order)

    listen(clock, take)
    return orders


def play(spec: dict[str, Any], clock: Clock) -> None:
    """Break what is to be broken, then play the role that *spec* names."""
    sabotage.commit(spec["sabotage"])
    _ROLES[spec["role"]](spec, clock)


_ROLES: Final[dict[str, Callable[[dict[str, Any], Clock], None]]] = {
    "worker": worker,
    "producer": producer,
    "reader": reader,
}
