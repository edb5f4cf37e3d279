"""``riverdelta up``: runs a server, workers, a gateway and turns until Ctrl-C."""

from __future__ import annotations

import asyncio
import shlex
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from riverdelta import Settings
from riverdelta.broker.client import Client, name_of
from riverdelta.broker.store import members
from riverdelta_cli.errors import DONE, CliError, require_extras
from riverdelta_cli.output.say import say
from riverdelta_cli.output.words import count as counted
from riverdelta_cli.output.words import redacted
from riverdelta_cli.processes.embedded import EmbeddedServer
from riverdelta_cli.processes.folder import DEFAULT_FOLDER, DataFolder
from riverdelta_cli.processes.ports import LOOPBACK, free_port
from riverdelta_cli.processes.servers import embedded_settings, settings_for
from riverdelta_cli.processes.supervise import WorkerPool
from riverdelta_cli.session import Interrupt, cancel

_LOOK_S: Final = 0.1
_READY_S: Final = 30.0
_SERVER_DEATHS: Final = 5
"""Starts of a server that dies again at once; more would only hide why."""
_STEADY_S: Final = 10.0
_GATEWAY_PORT: Final = 8000
_NOT_FOR_DEV: Final = (
    "RIVERDELTA_GATEWAY_TOKEN_SECRET",
    "RIVERDELTA_GATEWAY_TOKEN_PUBLIC_KEY_FILE",
)
"""Settings of a gateway with users, which the one that `up` starts would refuse."""


async def up(
    path: Path, count: int, url: str | None, port: int | None, interrupt: Interrupt
) -> int:
    """
    Run a server (unless *url* names one), *count* workers, a gateway and turns until a signal.

    Returns the exit code.

    Args:
        path: The server's folder.
        count: Worker processes.
        url: Server to use. None: one of our own.
        port: Of the gateway. None: `_GATEWAY_PORT`, or a free one.
        interrupt: Ends it.
    """
    if url is None:
        require_extras("riverdelta up without --redis-url", "embedded", "gateway", "workers")
    else:
        require_extras("riverdelta up", "gateway", "workers")
    Settings()  # a variable that cannot be used is found before anything starts
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(DataFolder(path))
        chosen = _port_for(port)
        server = None
        if url is None:
            server = EmbeddedServer(path, persist=True, keep_open=(folder.lock_fd,))
            await stack.enter_async_context(server)
            settings = embedded_settings(server.url)
        else:
            settings = settings_for(url, None)
        client = await stack.enter_async_context(Client(settings))  # says what is wrong with a URL
        folder.announce(settings.redis_url)
        note = "" if chosen in {port, _GATEWAY_PORT} else f" (port {_GATEWAY_PORT} is taken)"
        print(_what_next(path, settings.redis_url, server, count, chosen, note=note), flush=True)
        ready = asyncio.create_task(_new_workers(client, count))
        await asyncio.sleep(0)  # it looks who is there before ours are
        gateway = ("gateway", "--dev", "--host", LOOPBACK, "--port", str(chosen))
        pools = (
            WorkerPool(settings, count, notify=say),
            WorkerPool(settings, 1, notify=say, command=gateway, without=_NOT_FOR_DEV),
            WorkerPool(settings, 1, notify=say, command=("turns",)),
        )
        for pool in pools:
            await stack.enter_async_context(pool)
        watching = asyncio.create_task(_keep_server(server))
        asked = asyncio.create_task(interrupt.asked.wait())
        stack.push_async_callback(cancel, watching, asked, ready)
        failed = [pool.failed for pool in pools]
        ends: tuple[asyncio.Future[Any], ...] = (asked, watching, *failed)
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()
        if not asked.done():
            raise next(each.result() for each in failed if each.done())
        say("stopping everything")
    return DONE


def _port_for(wanted: int | None) -> int:
    """
    Choose the gateway's port before anything is started.

    Raises:
        CliError: The *wanted* port is in use.
    """
    port = free_port(_GATEWAY_PORT if wanted is None else wanted)
    if wanted not in {None, port}:
        raise CliError(f"port {wanted} of {LOOPBACK} is taken: give another --port, or none")
    return port


async def _keep_server(server: EmbeddedServer | None) -> None:
    """Start an embedded server again that died; on the same port, with what it had written."""
    loop = asyncio.get_running_loop()
    deaths, started_at = 0, loop.time()
    while True:
        await asyncio.sleep(_LOOK_S)
        if server is None or server.alive:
            continue
        deaths = 1 if loop.time() - started_at > _STEADY_S else deaths + 1
        if deaths > _SERVER_DEATHS:
            raise CliError(f"the server died again and again: see {server.folder / 'server.log'}")
        say("the server died; starting it again")
        started_at = loop.time()
        await server.start()
        say("the server is back")


async def _workers(client: Client) -> set[str]:
    return set(await members.read_workers(client.queue, client.keys))


async def _new_workers(client: Client, count: int) -> None:
    """Wait until *count* workers that are not listed yet have listed themselves."""
    before = await _workers(client)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY_S
    while len(await _workers(client) - before) < count:
        if loop.time() > deadline:
            say(f"the workers were not ready within {_READY_S:g} s; going on")
            return
        await asyncio.sleep(_LOOK_S / 2)
    say(f"{counted(count, 'worker')} ready")


def _what_next(
    path: Path, url: str, server: EmbeddedServer | None, workers: int, port: int, *, note: str
) -> str:
    """Print what is running, and the commands for other terminals; no password that is in *url*."""
    other = "" if path == DEFAULT_FOLDER else f" --data-dir {shlex.quote(str(path))}"
    shown = redacted(url)
    what = f"the server at {name_of(url)}"
    redis = 'redis-cli -u "$RIVERDELTA_REDIS_URL"'
    elsewhere = "set RIVERDELTA_REDIS_URL as here"
    if server is not None:
        what = f"Valkey (pid {server.pid}, data in {path})"
        redis = f"redis-cli -s {shlex.quote(server.socket)}"
        elsewhere = f"export RIVERDELTA_REDIS_URL={url}"
    return f"""riverdelta is up: {what}, {counted(workers, "worker")}, a gateway.
  URL       {shown}
  page      http://{LOOPBACK}:{port}{note}
  gateway   the same, WebSocket at /ws; without tokens, on this machine only

In other terminals, in this folder:
  follow    riverdelta tail chat-1{other}
  push      echo 'Hello from a stream' | riverdelta push chat-1 --source text -{other}
  listen    curl -sN http://{LOOPBACK}:{port}/chats/chat-1/events
  look      riverdelta inspect chat-1{other}
  redis     {redis} HGETALL 'rd:{{chat-1}}'

Elsewhere: {elsewhere}
Ctrl-C ends everything that was started here."""
