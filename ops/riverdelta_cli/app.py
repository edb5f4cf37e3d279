"""The command line: names, options and help of all commands. Each command has a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from riverdelta import Settings
from riverdelta_cli import options as o
from riverdelta_cli.commands.anonymize import anonymize as run_anonymize
from riverdelta_cli.commands.dead import dead as run_dead
from riverdelta_cli.commands.gateway import gateway as run_gateway
from riverdelta_cli.commands.inspect import inspect_all, inspect_chat
from riverdelta_cli.commands.pipe import pipe as run_pipe
from riverdelta_cli.commands.push import push as run_push
from riverdelta_cli.commands.stop import stop as run_stop
from riverdelta_cli.commands.tail import tail as run_tail
from riverdelta_cli.commands.turns import turns as run_turns
from riverdelta_cli.commands.up import up as run_up
from riverdelta_cli.commands.worker import worker as run_worker
from riverdelta_cli.input.pushing import Input
from riverdelta_cli.output.grammar import Command, Group
from riverdelta_cli.processes.servers import hint_at_up, settings_for
from riverdelta_cli.session import Interrupt, end_with, run

app = typer.Typer(
    cls=Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  # typer calls it
    if wanted:
        print(f"riverdelta {version('riverdelta')}")
        raise typer.Exit


@app.callback()
def about(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_print_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    """
    Redis streams in, deltas out: every reader sees an LLM reply once and in order, whatever dies.

    [bold]Try it[/bold] with one command, without a Redis of your own:

        riverdelta pipe --source openai-chat recording.jsonl

    [bold]Use it[/bold] in three terminals in one folder:

        riverdelta up
        riverdelta tail chat-1
        echo 'Hello' | riverdelta push chat-1 --source text -

    Settings are RIVERDELTA_* variables, e.g. RIVERDELTA_REDIS_URL.

    [bold]Exit codes[/bold]

        0    done
        1    it worked, but the result is negative: the reply failed, nothing was open
        2    bad usage, or a server or input that cannot be used
        130  Ctrl-C
    """


@app.command(cls=Command)
def up(
    data_dir: Annotated[
        Path,
        typer.Option("--data-dir", metavar="DIR", help="Where the server keeps its data and log."),
    ] = o.FOLDER,
    workers: Annotated[int, typer.Option(min=1, max=64, metavar="N", help="Worker processes.")] = 2,
    redis_url: Annotated[
        str | None,
        typer.Option(
            envvar="RIVERDELTA_REDIS_URL",
            metavar="URL",
            help="Use this server. Unset: an embedded one. Other users of the machine see arguments: "
            "put a URL with a password into the variable.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=1,
            max=65535,
            metavar="PORT",
            help="Where the gateway listens. Unset: 8000, or a free one.",
        ),
    ] = None,
) -> None:
    """
    Run a server, workers, a gateway and a reply writer, until Ctrl-C.

    The server is a real Valkey with an append-only file in --data-dir. It
    listens on a socket file there that only you can open. The gateway needs
    no tokens, and listens on 127.0.0.1 only. A process that dies is
    replaced. Ctrl-C ends all of them.

    [bold]Example[/bold]

        riverdelta up --workers 3

    [bold]Prints[/bold] the URLs, and what to type in other terminals. Commands in the same
    folder find the server automatically.

    [bold]Exit codes[/bold]

        0    ended by Ctrl-C or SIGTERM
        2    the folder, --port, a setting or the server cannot be used
    """
    run(lambda interrupt: run_up(data_dir, workers, redis_url, port, interrupt))


@app.command(cls=Command)
def worker(redis_url: o.RedisUrl = None, data_dir: o.DataDir = o.FOLDER) -> None:
    """
    Run one worker process until Ctrl-C or SIGTERM.

    Start as many as you like, on as many machines as you like. At SIGTERM a
    worker hands its chats over within a second, and nothing is repeated.

    [bold]Example[/bold]

        riverdelta worker --redis-url redis://redis.internal:6379

    [bold]Prints[/bold] its log on stderr.

    [bold]Exit codes[/bold]

        0    ended by a signal
        2    the server is down, wrong, or older than Redis 7.0
    """

    def work() -> int:
        with hint_at_up(redis_url):
            return run_worker(settings_for(redis_url, data_dir))

    end_with(work)


@app.command(cls=Command)
def gateway(
    host: Annotated[
        str | None,
        typer.Option("--host", metavar="HOST", help="Address to listen on. Unset: 127.0.0.1."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", min=0, max=65535, metavar="PORT", help="Unset: 8000. 0: a free one."
        ),
    ] = None,
    *,
    dev: Annotated[
        bool,
        typer.Option("--dev", metavar="", help="Need no tokens; on a loopback address only."),
    ] = False,
    redis_url: o.RedisUrl = None,
    data_dir: o.DataDir = o.FOLDER,
) -> None:
    """
    Run one gateway process until Ctrl-C or SIGTERM: chats over WebSocket and SSE.

    Start as many as you like behind a load balancer. At SIGTERM sockets are
    closed with code 4000: clients reconnect to another one, and continue at their
    position. Users send tokens: set RIVERDELTA_GATEWAY_TOKEN_SECRET (HS256)
    or RIVERDELTA_GATEWAY_TOKEN_PUBLIC_KEY_FILE.

    [bold]Example[/bold]

        riverdelta gateway --dev

    [bold]Prints[/bold] its log on stderr; its first line has the URL.

    [bold]Exit codes[/bold]

        0    ended by a signal
        2    a setting, the address or the server cannot be used
    """

    def work() -> int:
        with hint_at_up(redis_url):
            return run_gateway(
                settings_for(redis_url, data_dir), host=host, port=port, dev=dev or None
            )

    end_with(work)


@app.command(cls=Command)
def turns(
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="NAME",
            help="Backend: scripted, openai, anthropic, gemini, or package.module:factory.",
        ),
    ] = None,
    *,
    redis_url: o.RedisUrl = None,
    data_dir: o.DataDir = o.FOLDER,
) -> None:
    """
    Write the replies that gateways ask for, until Ctrl-C or SIGTERM.

    Start as many as you like. A reply outlives the socket and the gateway that
    asked for it. Models and keys are settings: RIVERDELTA_TURNS_OPENAI_MODEL,
    RIVERDELTA_TURNS_OPENAI_API_KEY and so on.

    [bold]Example[/bold]

        riverdelta turns --backend openai

    [bold]Prints[/bold] its log on stderr.

    [bold]Exit codes[/bold]

        0    ended by a signal
        2    a setting, the backend or the server cannot be used
    """

    def work() -> int:
        with hint_at_up(redis_url):
            return run_turns(settings_for(redis_url, data_dir), backend)

    end_with(work)


@app.command(cls=Command)
def pipe(
    file: o.FileArgument,
    *,
    source: o.OptionalSource = None,
    anonymize: Annotated[
        bool,
        typer.Option(
            "--anonymize",
            metavar="",
            help="Print FILE with every text replaced by as many letters, and run nothing.",
        ),
    ] = False,
    as_json: o.Json = False,
    pace_ms: o.PaceMs = 0,
    mode: o.ModeOption = None,
    on_mismatch: o.OnMismatchOption = o.OnMismatchName.EMIT,
) -> None:
    """
    Send a recording through the whole pipeline and print the reply as it streams.

    Starts a temporary server and a worker, and leaves nothing behind.

    [bold]Examples[/bold]

        riverdelta pipe --source openai-chat recording.jsonl
        curl -sN ... | riverdelta pipe --source anthropic+sse --json -
        riverdelta pipe --anonymize recording.jsonl > report.jsonl

    [bold]Prints[/bold] the text; reasoning dimmed, tool calls as they build up, then how it
    ended. With --json: one event per line. Rejected chunks are listed on stderr.
    With --anonymize: the recording, to be reported where it comes out wrong.

    [bold]Exit codes[/bold]

        0    the message completed, or was anonymized
        1    it failed or was stopped, no line is valid, or the worker died
        2    bad usage, or input that cannot be read
        130  Ctrl-C
    """
    if anonymize:
        name = None if source is None else source.value
        end_with(lambda: run_anonymize(file, name))
    if source is None:
        raise typer.BadParameter("is required", param_hint="--source")
    what = _input(file, source, pace_ms, mode, on_mismatch)
    run(lambda interrupt: run_pipe(what, as_json=as_json, interrupt=interrupt))


@app.command(cls=Command)
def push(
    chat: o.ChatArgument,
    file: o.FileArgument = "-",
    *,
    source: o.SourceOption,
    message_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Idempotency key of the message. Unset: random."),
    ] = None,
    pace_ms: o.PaceMs = 0,
    mode: o.ModeOption = None,
    on_mismatch: o.OnMismatchOption = o.OnMismatchName.EMIT,
    as_json: o.Json = False,
    redis_url: o.RedisUrl = None,
    data_dir: o.DataDir = o.FOLDER,
) -> None:
    """
    Push a file or stdin onto a chat, as one message.

    [bold]Examples[/bold]

        riverdelta push chat-1 --source openai-chat recording.jsonl
        my-llm | riverdelta push chat-1 --source text -

    [bold]Prints[/bold] the message's id and what was stored, on stderr; with --json on
    stdout.

    [bold]Exit codes[/bold]

        0    stored and ended; input invalid for --source gives a warning
        1    a reader stopped it, the id exists, or no worker made room
        2    bad usage, or no server there
        130  Ctrl-C (the message fails)
    """
    what = _input(file, source, pace_ms, mode, on_mismatch)
    _run_on(
        redis_url,
        data_dir,
        lambda settings, interrupt: run_push(
            chat,
            what,
            settings=settings,
            message_id=message_id,
            as_json=as_json,
            interrupt=interrupt,
        ),
    )


@app.command(cls=Command)
def tail(
    chat: o.ChatArgument,
    *,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="POSITION",
            help="Only what follows this position. Unset: everything, then live.",
        ),
    ] = None,
    as_json: o.Json = False,
    until_end: Annotated[
        bool, typer.Option("--until-end", metavar="", help="End when the chat's reply has ended.")
    ] = False,
    redis_url: o.RedisUrl = None,
    data_dir: o.DataDir = o.FOLDER,
) -> None:
    """
    Follow a chat, even before it exists. Continues after an outage of Redis.

    [bold]Examples[/bold]

        riverdelta tail chat-1
        riverdelta tail chat-1 --after 9f2c41aa:120 --json

    [bold]Prints[/bold] the replies as they stream; with --json one event per line. Ctrl-C
    prints the position to continue from.

    [bold]Exit codes[/bold]

        0    with --until-end: the reply completed
        1    with --until-end: it failed or was stopped
        2    bad usage, or no server there
        130  Ctrl-C
    """
    _run_on(
        redis_url,
        data_dir,
        lambda settings, interrupt: run_tail(
            chat,
            after,
            settings=settings,
            as_json=as_json,
            until_end=until_end,
            interrupt=interrupt,
        ),
    )


@app.command(cls=Command)
def inspect(
    chat: Annotated[
        str | None, typer.Argument(metavar="CHAT", help="Unset: workers, producers, waiting chats.")
    ] = None,
    *,
    as_json: o.Json = False,
    redis_url: o.RedisUrl = None,
    data_dir: o.DataDir = o.FOLDER,
) -> None:
    """
    Show the state of a chat, or of all workers and producers. Read-only.

    [bold]Examples[/bold]

        riverdelta inspect chat-1
        riverdelta inspect --json

    [bold]Prints[/bold] of a chat: owner, position, backlog, messages, chunks, keys with
    their sizes. Without CHAT: workers and producers with their heartbeats, and
    waiting chats.

    [bold]Exit codes[/bold]

        0    found
        1    no such chat
        2    bad usage, or no server there
    """

    async def show(settings: Settings, interrupt: Interrupt) -> int:
        if chat is None:
            return await inspect_all(settings=settings, as_json=as_json, interrupt=interrupt)
        return await inspect_chat(chat, settings=settings, as_json=as_json, interrupt=interrupt)

    _run_on(redis_url, data_dir, show)


@app.command(cls=Command)
def stop(
    chat: o.ChatArgument,
    message: Annotated[
        str | None, typer.Argument(metavar="MESSAGE", help="Unset: every open message of the chat.")
    ] = None,
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Readers and the producer see it.")
    ] = "stopped by a reader",
    redis_url: o.RedisUrl = None,
    data_dir: o.DataDir = o.FOLDER,
) -> None:
    """
    Stop a reply. Its producer learns it at the next push, or within a second.

    [bold]Example[/bold]

        riverdelta stop chat-1 --reason 'no longer needed'

    [bold]Prints[/bold] the ids of the messages that were marked.

    [bold]Exit codes[/bold]

        0    marked
        1    nothing was open
        2    bad usage, or no server there
    """
    _run_on(
        redis_url,
        data_dir,
        lambda settings, interrupt: run_stop(
            chat,
            message,
            settings=settings,
            reason=reason,
            interrupt=interrupt,
        ),
    )


@app.command(cls=Command)
def dead(
    chat: o.ChatArgument,
    *,
    requeue: Annotated[
        bool,
        typer.Option("--requeue", metavar="", help="Push each again, at the end of the chat."),
    ] = False,
    as_json: o.Json = False,
    redis_url: o.RedisUrl = None,
    data_dir: o.DataDir = o.FOLDER,
) -> None:
    """
    Show dead letters of a chat: raw chunks that failed, or that killed workers.

    With --requeue each is pushed again as a new chunk, only once, even if the
    command is repeated or interrupted. Fix the cause first, or it fails again.
    Only messages that are still open accept chunks.

    [bold]Examples[/bold]

        riverdelta dead chat-1
        riverdelta dead chat-1 --requeue

    [bold]Prints[/bold] of each: id, message and its status, reason, and content as it was
    pushed (not filtered). With --json one per line, complete.

    [bold]Exit codes[/bold]

        0    shown, or all pushed again
        1    no such chat, or some could not be pushed again
        2    bad usage, or no server there
    """
    _run_on(
        redis_url,
        data_dir,
        lambda settings, interrupt: run_dead(
            chat, requeued=requeue, settings=settings, as_json=as_json, interrupt=interrupt
        ),
    )


def _run_on(
    url: str | None,
    folder: Path,
    command: Callable[[Settings, Interrupt], Coroutine[Any, Any, int]],
) -> NoReturn:
    """Run a command against the server that is meant; see `settings_for`."""

    async def work(interrupt: Interrupt) -> int:
        with hint_at_up(url):
            return await command(settings_for(url, folder), interrupt)

    run(work)


def _input(
    file: str,
    source: o.Source,
    pace_ms: int,
    mode: o.ModeName | None,
    on_mismatch: o.OnMismatchName,
) -> Input:
    return Input(
        file=file,
        source=source.value,
        pace_ms=pace_ms,
        mode=None if mode is None else mode.value,
        on_mismatch=on_mismatch.value,
    )
