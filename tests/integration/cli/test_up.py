"""``riverdelta up``, and the commands that talk to it from other processes."""

import os
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from riverdelta import Settings
from riverdelta.broker.client import Client
from riverdelta_cli.processes.embedded import EmbeddedServer
from tests.support.servers import DEADLINE_S, Server, binaries, free_port
from tests.support.shell import (
    DEMO,
    Running,
    Shell,
    demo_text,
    eventually,
    one_line,
    texts_of,
)

READY = "Ctrl-C ends everything"
NOBODY = "redis://127.0.0.1:1"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shell, Running]]:
    """An ``up`` for the tests that leave it as it is; each has a chat of its own."""
    shell = Shell(tmp_path_factory.mktemp("shared"))
    # A chat that was idle for the default of 30 s, as a busy machine needs for a test, has no owner.
    with running_up(shell, RIVERDELTA_IDLE_RELEASE_S="600") as up:
        yield shell, up
        up.send(signal.SIGINT)
        assert up.exit_code() == 0
    assert not shell.processes()


@contextmanager
def running_up(shell: Shell, *arguments: str, **environment: str) -> Iterator[Running]:
    # The gateway's default port is another test's as well: whoever binds it second ends.
    with shell.start("up", "--port", str(free_port()), *arguments, **environment) as up:
        up.says(READY)
        up.warns("ready\n")
        yield up


def url_of(up: Running) -> str:
    found = re.search(rb"URL +(\S+)", up.out)
    assert found is not None
    return found[1].decode()


def pids(shell: Shell, what: str) -> set[int]:
    return {pid for pid, line in shell.processes().items() if what in line.replace("\0", " ")}


def test_a_reply_goes_from_one_terminal_to_another(shared: tuple[Shell, Running]) -> None:
    shell, _ = shared
    with shell.start("tail", "c1", "--json") as tail:
        tail.says('"snapshot"')
        pushed = shell.run("push", "c1", "--source", "openai-chat", DEMO, "--json")
        assert pushed.returncode == 0, pushed.stderr
        assert not pushed.stderr
        stored = orjson.loads(pushed.stdout)
        assert stored["chat"] == "c1"
        assert stored["chunks"] == len(DEMO.read_bytes().splitlines())
        tail.says("message.completed")
        live = [event for event in tail.events if event["seq"]]
        assert [event["seq"] for event in live] == list(range(1, len(live) + 1))
        assert texts_of(live) == demo_text()
        tail.send(signal.SIGINT)
        assert tail.exit_code() == 130
        position = f"{live[-1]['epoch']}:{live[-1]['seq']}"
        assert tail.errors.endswith(f"riverdelta tail c1 --after {position}\n")
    _inspect_shows(shell, stored["message"])
    _tail_resumes(shell, live)


def _inspect_shows(shell: Shell, message_id: str) -> None:
    one, all_ = shell.call("inspect", "c1", "--json"), shell.call("inspect", "--json")
    for_people, absent = shell.call("inspect", "c1"), shell.call("inspect", "c2")
    chat, everything = orjson.loads(one.stdout), orjson.loads(all_.stdout)
    (message,) = chat["messages"]
    assert (message["message"], message["status"]) == (message_id, "completed")
    assert [chunk["kind"] for chunk in message["chunks"]] == ["reasoning", "text", "tool_call"]
    assert [chunk["length"] for chunk in message["chunks"]] == [
        len(text) for text in demo_text().values()
    ]
    assert chat["owner"] in {worker["worker"] for worker in everything["workers"]}
    assert chat["backlog"] == 0
    assert "rd:{c1}:deltas" in {key["key"] for key in chat["keys"]}
    assert [worker["alive"] for worker in everything["workers"]] == [True, True]
    assert f"message {message_id}: completed" in for_people.stdout.decode()
    assert absent.returncode == 1
    assert "c2 is unknown" in one_line(absent.stderr)


def _tail_resumes(shell: Shell, live: list[dict[str, object]]) -> None:
    middle = live[len(live) // 2]
    position = f"{middle['epoch']}:{middle['seq']}"
    rest = shell.call("tail", "c1", "--after", position, "--until-end", "--json")
    all_of_it = shell.call("tail", "c1", "--until-end")
    void = shell.call("tail", "c1", "--after", "00000001:5", "--until-end")
    assert one_line(void.stderr) == "riverdelta: that position is void; here is a snapshot\n"
    assert void.stdout == all_of_it.stdout
    assert rest.returncode == 0
    events = [orjson.loads(line) for line in rest.stdout.splitlines()]
    assert events == live[len(live) // 2 + 1 :]
    said = demo_text()
    assert f"thinking {said['reasoning']}\n\n{said['text']}" in all_of_it.stdout.decode()


def test_a_reader_stops_a_reply(shared: tuple[Shell, Running]) -> None:
    shell, _ = shared
    with (
        shell.start("tail", "stopped", "--until-end") as tail,
        shell.start("push", "stopped", "--source", "text", "--message-id", "m1", "-") as push,
    ):
        push.write(b"so far\n")
        tail.says("so far")
        again = shell.call("push", "stopped", "--source", "text", "--message-id", "m1", "/dev/null")
        assert again.returncode == 1
        assert "message m1 exists" in one_line(again.stderr)
        stopped = shell.call("stop", "stopped", "--reason", "enough")
        assert stopped.returncode == 0
        assert stopped.stdout == b"m1\n"
        tail.says("stopped · enough")
        assert tail.exit_code() == 1
        assert push.exit_code() == 1  # its input is silent, and open
        assert "stopped: enough" in one_line(bytes(push.err))
    nothing = shell.call("stop", "stopped")
    assert nothing.returncode == 1
    assert "nothing is open" in one_line(nothing.stderr)


def test_an_empty_input_is_a_reply_without_text(shared: tuple[Shell, Running]) -> None:
    shell, _ = shared
    pushed = shell.call("push", "empty", "--source", "text", "/dev/null")
    assert pushed.returncode == 0
    stored, warning = pushed.stderr.decode().splitlines()
    assert stored.endswith("stored and ended, 0 raw chunks, 0 bytes")
    assert warning == "riverdelta: warning: the input was empty"
    shown = shell.call("tail", "empty", "--until-end")
    assert shown.returncode == 0
    assert len(shown.stdout.splitlines()) == 2


def test_an_interrupted_push_fails_its_message(shared: tuple[Shell, Running]) -> None:
    shell, _ = shared
    with (
        shell.start("tail", "interrupted", "--until-end") as tail,
        shell.start("push", "interrupted", "--source", "text", "-") as push,
    ):
        push.write(b"so far\n")
        tail.says("so far")
        assert push.process.stdin is not None
        push.process.stdin.close()  # what writes it gets the same Ctrl-C, and may be faster
        push.send(signal.SIGINT)
        assert push.exit_code() == 130
        tail.says("failed · producer_interrupted")
        assert tail.exit_code() == 1


def test_an_interrupted_tail_of_nothing_gives_no_position(shared: tuple[Shell, Running]) -> None:
    shell, _ = shared
    with shell.start("tail", "nobody", "--json") as tail:
        tail.says('"snapshot"')
        tail.send(signal.SIGINT)
        assert tail.exit_code() == 130
    assert tail.errors == "riverdelta: interrupted before the first event\n"


def test_a_second_up_on_the_folder_says_so(shared: tuple[Shell, Running]) -> None:
    shell, up = shared
    second = shell.call("up")
    assert second.returncode == 2
    line = one_line(second.stderr)
    assert f"pid {up.process.pid}" in line
    assert url_of(up) in line
    assert (shell.folder / ".riverdelta").stat().st_mode & 0o777 == 0o700


def test_what_dies_is_replaced_and_data_outlive_all_of_it(shell: Shell) -> None:
    hello = shell.file(b"hello")
    with running_up(shell, "--workers", "1") as up:
        (worker,) = pids(shell, "riverdelta_cli worker")
        (server,) = pids(shell, "valkey-server")
        os.kill(worker, signal.SIGKILL)
        up.warns(f"pid {worker}) was killed by signal 9")
        os.kill(server, signal.SIGKILL)
        up.warns("the server died; starting it again")
        up.warns("the server is back")
        eventually(lambda: pids(shell, "riverdelta_cli worker") - {worker}, "another worker")
        done = shell.call("push", "c1", "--source", "text", hello)
        assert done.returncode == 0, done.stderr
        assert shell.call("tail", "c1", "--until-end").stdout.splitlines()[1] == b"hello"
        up.send(signal.SIGKILL)
        up.exit_code()
        shell.nothing_left()
    first = url_of(up)
    with running_up(shell, "--workers", "1") as up:
        assert url_of(up) == first  # whoever followed a chat there goes on
        assert b"hello" in shell.call("tail", "c1", "--until-end").stdout
        up.send(signal.SIGTERM)
        assert up.exit_code() == 0
    assert not shell.processes()


async def test_the_embedded_server_is_for_its_user_only(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir(mode=0o755)
    async with EmbeddedServer(folder) as server:
        assert server.socket == str(folder / "redis.sock")
        assert (folder / "redis.sock").stat().st_mode & 0o777 == 0o700
        async with Client(Settings(redis_url=server.url)) as client:
            assert await client.chats.execute("CONFIG", "GET", "port") == [b"port", b"0"]


async def test_a_folder_with_a_long_name_has_its_socket_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    async with EmbeddedServer(folder) as server:
        elsewhere = Path(server.socket).parent
        assert elsewhere.stat().st_mode & 0o777 == 0o700
        async with Client(Settings(redis_url=server.url)) as client:
            await client.ping()
    assert not elsewhere.exists()
    assert folder.exists()


def test_no_password_of_a_url_is_shown(shell: Shell, tmp_path: Path) -> None:
    password = "pass-word-of-redis"
    folder = tmp_path / "server"
    folder.mkdir()
    with Server(str(binaries()["valkey"]), folder, "--requirepass", password) as server:
        url = server.url.replace("redis://", f"redis://default:{password}@")
        with running_up(shell, "--workers", "1", RIVERDELTA_REDIS_URL=url) as up:
            second = shell.call("up")
            wrong = shell.call(
                "tail", "c1", RIVERDELTA_REDIS_URL=url.replace(password, "wrong-pass")
            )
            broken = shell.call(
                "tail", "c1", RIVERDELTA_REDIS_URL=url.replace(f":{server.port}", ":port")
            )
            helped = shell.call("up", "--help", RIVERDELTA_REDIS_URL=url)
            arguments = "".join(shell.processes().values())
            up.send(signal.SIGINT)
            assert up.exit_code() == 0
    assert f"***@127.0.0.1:{server.port}" in one_line(second.stderr)
    assert (second.returncode, wrong.returncode, broken.returncode) == (2, 2, 2)
    shown = [up.out.decode(), up.errors, arguments]
    shown += [(done.stdout + done.stderr).decode() for done in (second, wrong, broken, helped)]
    for text in shown:
        assert password not in text
        assert "wrong-pass" not in text
    assert password not in repr(Settings(redis_url=url, queue_url=url))


async def test_tail_and_workers_survive_a_server_that_was_away(
    shell: Shell, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    async with EmbeddedServer(folder, persist=True, tcp=True) as server:
        url = ("--redis-url", server.url)
        with (
            running_up(shell, "--workers", "1", *url) as up,
            shell.start("tail", "c1", "--json", *url) as tail,
        ):
            assert "the server at 127.0.0.1" in up.out.decode()
            tail.says('"snapshot"')
            _push(shell, "m1", url)
            tail.says("message.completed")
            await server.kill()
            tail.warns("waiting for it")
            await server.start()
            tail.warns("Redis is back")
            _push(shell, "m2", url)
            eventually(lambda: tail.events[-1].get("message") == "m2", "m2 ended")
            eventually(lambda: tail.events[-1]["type"] == "message.completed", "m2 ended")
            assert tail.errors.count("\n") == 2
            assert tail.process.poll() is None
    texts = [
        event["data"]["text"]
        for event in tail.events
        if event["type"] == "chunk.delta" and event["message"] == "m2"
    ]
    snapshots = [event for event in tail.events if event["type"] == "snapshot" and event["seq"]]
    assert "".join(texts) == "hello from m2" or snapshots


def _push(shell: Shell, message_id: str, url: tuple[str, str]) -> None:
    done = shell.run(
        "push",
        "c1",
        "--source",
        "text",
        "--message-id",
        message_id,
        "-",
        *url,
        stdin=f"hello from {message_id}".encode(),
    )
    assert done.returncode == 0, done.stderr


def test_a_server_that_is_down_is_one_line(shell: Shell) -> None:
    for done in (
        shell.run("worker", RIVERDELTA_REDIS_URL=NOBODY),
        shell.call("up", RIVERDELTA_REDIS_URL=NOBODY),
        shell.call("push", "c1", "--source", "text", "/dev/null", RIVERDELTA_REDIS_URL=NOBODY),
        shell.call("tail", "c1", RIVERDELTA_REDIS_URL=NOBODY),
    ):
        assert done.returncode == 2, done.args
        line = one_line(done.stderr)
        assert line.startswith(
            "riverdelta: Redis at 127.0.0.1:1 cannot be used: Connection refused"
        )


def test_up_ends_where_it_could_never_be_whole(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = shell.run("up", "--port", port)
    assert refused.returncode == 2
    assert f"port {port} of 127.0.0.1 is taken" in one_line(refused.stderr)
    assert not refused.stdout
    unable = shell.run("up", RIVERDELTA_TURNS_BACKEND="nobody")
    assert unable.returncode == 2
    lines = unable.stderr.decode().splitlines()
    assert any("RIVERDELTA_TURNS_BACKEND=nobody: use scripted" in line for line in lines), lines
    assert lines[-1] == "riverdelta: the turns ended with exit code 2: it said why above"
    assert not shell.processes()


def test_a_pipeline_that_is_not_there_is_one_line(shell: Shell) -> None:
    done = shell.run(
        "worker", RIVERDELTA_REDIS_URL=NOBODY, RIVERDELTA_PIPELINE="shop.pipeline:build"
    )
    assert done.returncode == 2
    assert "RIVERDELTA_PIPELINE=shop.pipeline:build: No module named 'shop'" in one_line(
        done.stderr
    )


def test_what_cannot_be_is_one_line(shell: Shell) -> None:
    wrong_url = shell.call("tail", "c1", "--redis-url", "nonsense")
    position = shell.call("tail", "c1", "--after", "yesterday")
    name = shell.call("push", "no {braces}", "--source", "text", "/dev/null")
    assert [done.returncode for done in (wrong_url, position, name)] == [2, 2, 2]
    assert "cannot use --redis-url 'nonsense': use redis://" in one_line(wrong_url.stderr)
    assert "is not a position" in one_line(position.stderr)
    assert "not a valid id" in one_line(name.stderr)


def test_an_old_server_is_named_at_the_start(shell: Shell) -> None:
    with old_server() as url:
        done = shell.call("inspect", "--redis-url", url)
    assert done.returncode == 2
    assert "version 6.2.14: use Redis >= 7.0" in one_line(done.stderr)


@contextmanager
def old_server() -> Iterator[str]:
    """Something that says it is Redis 6.2."""
    info = b"redis_version:6.2.14\r\nrun_id:abc\r\n"

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(4096):
                for name in re.findall(rb"\$\d+\r\n(INFO|CLIENT|SELECT|PING)\r\n", data):
                    answer = b"$%d\r\n%b\r\n" % (len(info), info)
                    connection.sendall(answer if name == b"INFO" else b"+OK\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(10)


def test_up_has_a_gateway_on_loopback_that_follows_chats(shared: tuple[Shell, Running]) -> None:
    shell, up = shared
    found = re.search(rb"page +(http://127\.0\.0\.1:\d+)", up.out)
    assert found is not None
    url = found[1].decode()
    up.warns(f"listening at {url}")
    pushed = shell.call("push", "by-gateway", "--source", "text", shell.file(b"Hello\n"))
    assert pushed.returncode == 0, pushed.stderr
    with urllib.request.urlopen(f"{url}/chats/by-gateway/events", timeout=DEADLINE_S) as stream:  # noqa: S310  # http
        events = (orjson.loads(line[6:]) for line in stream if line.startswith(b"data: "))
        assert next(events)["type"] == "snapshot"


def test_up_replies_without_a_key_or_a_network(shared: tuple[Shell, Running]) -> None:
    _, up = shared
    found = re.search(rb"page +(http://127\.0\.0\.1:\d+)", up.out)
    assert found is not None
    up.warns("turns are ready (backend scripted)")
    said = {"role": "user", "id": "u", "parts": [{"type": "text", "text": "How are sales?"}]}
    asking = urllib.request.Request(  # noqa: S310  # http
        f"{found[1].decode()}/api/chat",
        orjson.dumps({"id": "chat-up-long-enough", "messages": [said]}),
    )
    with urllib.request.urlopen(asking, timeout=DEADLINE_S) as stream:  # noqa: S310  # http
        for line in stream:
            if b"reasoning-delta" in line:
                break  # it plays for some seconds; the rest is in tests/gateway
        else:
            pytest.fail("no reply")


@pytest.mark.parametrize(
    ("arguments", "environment", "why"),
    [
        (("--backend", "gpt"), {}, "use scripted, openai, anthropic, gemini"),
        ((), {"RIVERDELTA_TURNS_ASSET_CATALOG": "x"}, "write it as package.module:name"),
        ((), {"RIVERDELTA_TURNS_MAX_TURNS": "many"}, "RIVERDELTA_TURNS_MAX_TURNS"),
    ],
)
def test_turns_that_cannot_be_say_why_in_a_line(
    shell: Shell, arguments: tuple[str, ...], environment: dict[str, str], why: str
) -> None:
    refused = shell.run("turns", *arguments, stdin=b"", **environment)
    assert refused.returncode == 2
    assert why in one_line(refused.stderr)


@pytest.mark.parametrize(
    ("arguments", "environment", "why"),
    [
        ((), {}, "RIVERDELTA_GATEWAY_TOKEN_SECRET"),
        (("--dev", "--host", "0.0.0.0"), {}, "loopback only"),
        (("--dev",), {"RIVERDELTA_GATEWAY_MAX_QUEUED_BYTES": "many"}, "GATEWAY_MAX_QUEUED_BYTES"),
        (("--dev", "--port", "1", "--host", "203.0.113.1"), {}, "loopback only"),
    ],
)
def test_a_gateway_that_cannot_be_says_why_in_a_line(
    shell: Shell, arguments: tuple[str, ...], environment: dict[str, str], why: str
) -> None:
    refused = shell.run("gateway", *arguments, stdin=b"", **environment)
    assert refused.returncode == 2
    assert why in one_line(refused.stderr)
