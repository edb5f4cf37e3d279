"""``riverdelta pipe`` and ``make demo``: a recording goes in, the reply comes out."""

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.servers import DEADLINE_S
from tests.support.shell import (
    DEMO,
    Running,
    Shell,
    demo_text,
    eventually,
    one_line,
    texts_of,
    with_us,
)

RECORDINGS = Path(__file__).parents[2] / "recordings"
OPENAI = ("pipe", "--source", "openai-chat")
TEXT = ("pipe", "--source", "text")


def types(stdout: bytes) -> list[str]:
    return [orjson.loads(line)["type"] for line in stdout.splitlines()]


LINES = DEMO.read_bytes().splitlines()
Done = subprocess.CompletedProcess[bytes]

RUNS = {
    "text": ((*OPENAI, str(DEMO)), b""),
    "sse": (
        ("pipe", "--source", "openai-chat+sse", "--json", "-"),
        b"".join(b"data: " + line + b"\r\n\r\n" for line in LINES) + b"data: [DONE]\n\n",
    ),
    "error": ((*OPENAI, str(RECORDINGS / "openai-chat" / "error.jsonl")), b""),
    "rejected": (
        (*OPENAI, "--json", "-"),
        b"\n".join([*LINES[:5], b"", *[b"this is not JSON"] * 9, *LINES[5:]]),
    ),
    "wrong source": (
        ("pipe", "--source", "anthropic", str(RECORDINGS / "openai-chat" / "text.jsonl")),
        b"",
    ),
    "large": ((*TEXT, "--json", "-"), b"good\n" + b"x" * 2_000_000),
    "absent": ((*TEXT, "absent.jsonl"), b""),
    "directory": ((*TEXT, "."), b""),
}


class Runs(dict[str, Done]):
    """What each of RUNS came to; run when a test first asks, with other servers in the environment."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._shell = Shell(folder)

    def __missing__(self, name: str) -> Done:
        arguments, stdin = RUNS[name]
        elsewhere = "redis://127.0.0.1:1"
        environment = {"RIVERDELTA_REDIS_URL": elsewhere, "RIVERDELTA_QUEUE_URL": elsewhere}
        done = self._shell.run(*arguments, stdin=stdin, **environment)
        self._shell.nothing_left()
        assert not list(self._shell.temporary.iterdir())
        return self.setdefault(name, done)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


def events_of(done: Done) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in done.stdout.splitlines()]


def test_the_demo_reads_well(runs: Runs) -> None:
    done = runs["text"]
    printed, said = done.stdout.decode(), demo_text()
    assert done.returncode == 0
    assert not done.stderr
    assert "\x1b" not in printed
    assert "\b" not in printed
    assert f"thinking {said['reasoning']}\n\n{said['text']}" in printed
    assert f"calls draw_diagram {said['tool_call']}\n" in printed
    assert re.fullmatch(
        r"completed · finish reason tool_calls · 38 tokens in, \d+ out \(\d+ reasoning\) · "
        r"first token \d+ ms · \d+\.\d s",
        printed.splitlines()[-1],
    )


def test_json_is_one_event_a_line_and_sse_bytes_go_in_as_they_are(runs: Runs) -> None:
    done = runs["sse"]
    events = events_of(done)
    assert done.returncode == 0
    assert not done.stderr
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["type"] == "message.started"
    assert events[-1]["type"] == "message.completed"
    assert texts_of(events) == demo_text()


def test_a_wrong_source_is_no_success(runs: Runs) -> None:
    done = runs["wrong source"]
    assert done.returncode == 1
    skipped, hint = done.stderr.decode().splitlines()
    assert skipped.startswith(
        "riverdelta: warning: nothing was understood; 14 payloads were skipped"
    )
    line = "warning: none of 14 chunks was understood as anthropic; is --source right?"
    assert hint == f"riverdelta: {line}"


def test_a_provider_error_exits_1(runs: Runs) -> None:
    assert runs["error"].returncode == 1
    assert "failed · source_error: " in runs["error"].stdout.decode().splitlines()[-1]


def test_rejected_chunks_are_a_few_warnings_and_the_reply_goes_on(runs: Runs) -> None:
    done = runs["rejected"]
    assert done.returncode == 0
    *named, more = done.stderr.decode().splitlines()
    assert [line.partition(" was rejected (invalid_json): ")[0] for line in named] == [
        f"riverdelta: warning: line {number}" for number in range(7, 12)
    ]
    assert more == "riverdelta: warning: 4 more rejected (invalid_json)"
    assert texts_of(events_of(done)) == demo_text()


def test_a_chunk_that_is_too_large_exits_2_and_keeps_what_was_accepted(
    runs: Runs,
) -> None:
    done = runs["large"]
    assert done.returncode == 2
    assert "line 2 is longer than max_chunk_bytes (1048576)" in one_line(done.stderr)
    end = events_of(done)[-1]
    assert (end["type"], end["data"]["code"]) == ("message.failed", "chunk_too_large")
    assert texts_of(events_of(done)) == {"text": "good\n"}


@pytest.mark.parametrize(
    ("run", "line"),
    [
        ("absent", "cannot read absent.jsonl: No such file or directory"),
        ("directory", "cannot read .: it is a directory"),
    ],
)
def test_input_that_cannot_be_read_exits_2(run: str, line: str, runs: Runs) -> None:
    assert runs[run].returncode == 2
    assert one_line(runs[run].stderr) == f"riverdelta: {line}\n"
    assert not runs[run].stdout


def test_a_setting_that_cannot_be_used_is_one_line(shell: Shell) -> None:
    done = shell.call(*TEXT, "-", RIVERDELTA_MAX_CHATS="many")
    assert done.returncode == 2
    assert "RIVERDELTA_MAX_CHATS" in one_line(done.stderr)


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[tuple[Shell, Running]]:
    """A pipe that waits for more input; the test ends it."""
    shell = Shell(tmp_path)
    with shell.start(*TEXT, "--json", "-") as running:
        for word in ("first", "second", "so far"):  # shown as it comes
            running.write(f"{word}\n".encode())
            running.says(word)
        yield shell, running


def test_ctrl_c_stops_the_reply_and_leaves_nothing(
    waiting: tuple[Shell, Running],
) -> None:
    shell, running = waiting
    assert len(shell.processes()) == 3
    running.send(signal.SIGINT)
    assert running.exit_code() == 130
    assert running.events[-1]["type"] == "message.stopped"
    assert not running.err
    assert not shell.processes()
    assert not list(shell.temporary.iterdir())


def test_a_stuck_worker_does_not_keep_us_and_is_killed(
    waiting: tuple[Shell, Running],
) -> None:
    shell, running = waiting
    (worker,) = (pid for pid, line in shell.processes().items() if line.endswith("worker\0"))
    os.kill(worker, signal.SIGSTOP)
    running.send(signal.SIGTERM)
    assert running.exit_code() == 128 + signal.SIGTERM
    shell.nothing_left()


def test_kill_9_leaves_no_process(waiting: tuple[Shell, Running]) -> None:
    shell, running = waiting
    running.send(signal.SIGKILL)
    running.exit_code()
    shell.nothing_left()


def test_a_server_that_dies_is_said_at_once(waiting: tuple[Shell, Running]) -> None:
    shell, running = waiting
    (server,) = (pid for pid, line in shell.processes().items() if "valkey-server" in line)
    os.kill(server, signal.SIGKILL)
    assert running.exit_code() == 1
    assert "the embedded server died" in running.errors.splitlines()[-1]
    assert "run it again" in running.errors.splitlines()[-1]
    assert "Traceback" not in running.errors
    shell.nothing_left()


def test_a_worker_that_dies_again_and_again_is_said_with_what_to_do(
    waiting: tuple[Shell, Running],
) -> None:
    shell, running = waiting
    killed = set[int]()

    def workers() -> set[int]:
        found = {pid for pid, line in shell.processes().items() if line.endswith("worker\0")}
        return found - killed

    for _ in range(3):
        eventually(workers, "another worker")
        (worker,) = workers()
        os.kill(worker, signal.SIGKILL)
        killed.add(worker)
    assert running.exit_code() == 1
    last = running.errors.splitlines()[-1]
    assert "the worker was killed by signal 9" in last
    assert "run it again" in last
    shell.nothing_left()


def test_ctrl_c_twice_ends_at_once(waiting: tuple[Shell, Running]) -> None:
    shell, running = waiting
    running.send(signal.SIGINT)
    running.send(signal.SIGINT)
    assert running.exit_code() == 130
    assert b"Traceback" not in running.err
    assert not shell.processes()


def test_a_reader_that_goes_away_ends_it_quietly(shell: Shell) -> None:
    half = len(LINES) // 2  # while the input is open, the reply cannot end
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    shell.command(*OPENAI, *as_json, "-"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env=shell.environment,
                    preexec_fn=with_us(),  # noqa: PLW1509  # see children.start
                )
            )
            for as_json in ([], ["--json"])
        ]
        for process, start in zip(processes, (b"thinking", b'{"v":1,"'), strict=True):
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            os.write(process.stdin.fileno(), b"".join(line + b"\n" for line in LINES[:half]))
            assert process.stdout.read(8) == start
            process.stdout.close()
            with suppress(BrokenPipeError):  # it may have ended by what it had still to print
                os.write(process.stdin.fileno(), b"".join(line + b"\n" for line in LINES[half:]))
            process.stdin.close()
            assert process.wait(DEADLINE_S) == 128 + signal.SIGPIPE
            assert not process.stderr.read()


def test_ctrl_c_is_quiet_also_while_modules_are_imported(shell: Shell, tmp_path: Path) -> None:
    slow = "import signal; print('importing', flush=True); signal.pause()"
    (tmp_path / "typer.py").write_text(slow)
    with shell.start("inspect", PYTHONPATH=str(tmp_path)) as running:
        running.says("importing")
        running.send(signal.SIGINT)
        assert running.exit_code() == -signal.SIGINT  # a shell says 130
        assert not running.err


def test_what_a_terminal_cannot_show_is_a_question_mark(shell: Shell) -> None:
    done = shell.run(*OPENAI, DEMO, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "as a river ? with a memory" in done.stdout.decode("ascii")


@pytest.mark.parametrize("arguments", [(*OPENAI, DEMO), ("--help",), ("--version",)])
def test_output_that_cannot_be_written_is_one_line(
    arguments: tuple[str, ...], shell: Shell
) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            shell.command(*arguments),
            stdout=full,
            stderr=subprocess.PIPE,
            env=shell.environment,
            preexec_fn=with_us(),  # see children.start
            timeout=DEADLINE_S,
            check=False,
        )
    assert done.returncode == 2
    assert one_line(done.stderr).endswith("cannot write the output: No space left on device\n")


def screen(written: str) -> Iterator[str]:
    """What a terminal shows of *written*: colours gone, what was taken back taken back."""
    for line in re.sub(r"\x1b\[[0-9;]*m", "", written).replace("\r\n", "\n").split("\n"):
        cells: list[str] = []
        at = 0
        for character in line.replace("\x1b[K", "\0"):
            if character == "\b":
                at -= 1
            elif character == "\0":
                del cells[at:]
            else:
                cells[at : at + 1] = [character]
                at += 1
        yield "".join(cells)


def test_on_a_terminal_lines_break_between_words(shell: Shell) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        shell.command(*OPENAI, DEMO),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=shell.environment | {"TERM": "xterm-256color", "COLUMNS": "50"},
    ) as process:
        os.close(theirs)
        written = bytearray()
        while True:
            try:
                written += os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
        os.close(ours)
        assert process.wait() == 0
    lines = list(screen(written.decode()))
    said = demo_text()
    assert all(len(line) < 50 for line in lines)
    words = " ".join(lines).split()
    expected = f"thinking {said['reasoning']} {said['text']} calls draw_diagram {said['tool_call']}"
    assert words[: len(expected.split())] == expected.split()
    assert "\x1b[2;3m" in written.decode()
