"""The arq job that runs a turn, and the process that picks such jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import Any, Final

from arq.constants import in_progress_key_prefix
from arq.worker import Retry, Worker, func
from redis.exceptions import RedisError

from riverdelta.broker.dispatch.arq_loop import run_until
from riverdelta.broker.settings import Settings
from riverdelta.broker.store.keys import Keys
from riverdelta.core.errors import BrokerUnavailable
from riverdelta_gateway.turn import Turn
from riverdelta_gateway.turns.queue import SERIALIZERS, TURN_JOB, arq_pool
from riverdelta_gateway.turns.runner import TurnRunner, TurnTaken
from riverdelta_gateway.turns.settings import TurnSettings

_POLL_S: Final = 0.02
"""Jobs are picked after 12 ms at the median; costs 0.6 % of a core when idle."""
_RETRY_S: Final = 1.0
_MAX_TRIES: Final = 1_000
_MARGIN_S: Final = 60.0
"""A turn ends itself at ``turn_timeout_s``; arq's own limit must not come first."""
REPICK_S: Final = 15.0
"""A job whose process died before it opened the reply is picked again after this."""

_log = logging.getLogger("riverdelta.turns")


class _TurnWorker(Worker):
    """
    Marks a picked job for seconds, instead of for the longest time that a job may take.

    arq's mark keeps other processes from running the job; here the message's id does that, too. So a mark
    that expires too early costs one read of the chat, but a mark that outlives its process would delay
    the turn for minutes.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.in_progress_timeout_s = REPICK_S


async def run_turn(ctx: dict[str, Any], fields: dict[str, Any]) -> None:
    """Run a turn; its message id keeps it from running twice, whatever arq does."""
    runner: TurnRunner = ctx["runner"]
    marking = asyncio.create_task(_renew_mark(ctx), name="riverdelta-turn-mark")
    try:
        await runner.run(Turn.from_json(fields))
    except (BrokerUnavailable, TurnTaken) as error:
        # Taken: as long as this job is there, the turn finds a process if its own one lets it wait.
        raise Retry(defer=_RETRY_S) from error
    finally:
        marking.cancel()
        await asyncio.gather(marking, return_exceptions=True)


async def _renew_mark(ctx: dict[str, Any]) -> None:
    mark = in_progress_key_prefix + ctx["job_id"]
    while True:
        await asyncio.sleep(REPICK_S / 3)
        with contextlib.suppress(RedisError, OSError):
            await ctx["redis"].pexpire(mark, int(REPICK_S * 1000))


async def run_turns(settings: Settings, turns: TurnSettings) -> None:
    """
    Run one process of turns until SIGTERM or SIGINT.

    Raises:
        SettingsError: A backend, catalog or store that cannot be used.
        BrokerUnavailable: Redis was not there at the start.
        ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with TurnRunner(settings, turns) as runner:
        _log.info("turns are ready (backend %s)", turns.backend)
        await bring_turns(runner, stop)


async def bring_turns(runner: TurnRunner, stop: asyncio.Event) -> None:
    """
    Run arq's loop for *runner* until *stop* is set.

    arq's loop ends whenever its Redis does: it is started again, and turns that run go on.
    """
    settings, turns = runner.settings, runner.turns
    while not stop.is_set():
        async with arq_pool(settings) as pool:
            worker = _TurnWorker(
                functions=[func(run_turn, name=TURN_JOB)],
                queue_name=Keys(settings.key_prefix).turns,
                redis_pool=pool,
                handle_signals=False,
                ctx={"runner": runner},
                poll_delay=_POLL_S,
                keep_result=0,
                max_jobs=turns.max_turns,
                job_timeout=turns.turn_timeout_s + _MARGIN_S,
                max_tries=_MAX_TRIES,
                log_results=False,
                **SERIALIZERS,
            )
            await run_until(worker, stop, _log)
