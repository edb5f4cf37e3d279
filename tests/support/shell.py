"""The riverdelta command as tests start it, and what the demo recording says."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from riverdelta_cli import session
from riverdelta_cli.app import app
from riverdelta_cli.processes.children import bind_to

DEADLINE_S = 120.0
_SIDE_BY_SIDE = 4
DEMO = Path(str(resources.files("riverdelta_cli"))) / "demo" / "reply.jsonl"


def eventually(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until *condition* holds."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {deadline_s} s: {what}"
        time.sleep(0.02)


def with_us() -> Callable[[], None] | None:
    """Make what a command runs first, so that none outlives a pytest that is killed."""
    return bind_to(os.getpid(), signal.SIGKILL)


class Running:
    """A command that runs; collects what it prints."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.out = bytearray()
        self.err = bytearray()
        self._threads = [
            threading.Thread(target=self._read, args=(process.stdout, self.out)),
            threading.Thread(target=self._read, args=(process.stderr, self.err)),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, stream: Any, into: bytearray) -> None:
        while data := os.read(stream.fileno(), 65536):
            into += data

    @property
    def events(self) -> list[dict[str, Any]]:
        """What --json printed so far, whole lines only."""
        return [orjson.loads(line) for line in bytes(self.out).split(b"\n")[:-1]]

    @property
    def errors(self) -> str:
        return self.err.decode()

    def says(self, text: str) -> None:
        """Wait until stdout has *text*."""
        eventually(
            lambda: text.encode() in self.out, f"{text!r} in {bytes(self.out)!r}, {self.err!r}"
        )

    def warns(self, text: str) -> None:
        """Wait until stderr has *text*."""
        eventually(lambda: text.encode() in self.err, f"{text!r} in {self.err!r}")

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """Wait for the end."""
        code = self.process.wait(DEADLINE_S)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        return code


class Shell:
    """Runs commands in a folder of its own; knows every process that came of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._mark = f"CLI_TEST={uuid.uuid4()}"
        name, _, value = self._mark.partition("=")
        self.environment = {
            key: text for key, text in os.environ.items() if not key.startswith("RIVERDELTA_")
        } | {name: value, "TMPDIR": str(self.temporary), "COLUMNS": "80"}

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "riverdelta_cli", *map(str, arguments)]

    def run(
        self, *arguments: str | Path, stdin: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=self.environment | environment,
            timeout=DEADLINE_S,
            check=False,
            preexec_fn=with_us(),  # see children.start
        )

    def call(
        self, *arguments: str | Path, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a short command to its end in this process: most of its time would be its imports."""
        unset = {key: None for key in os.environ if key.startswith("RIVERDELTA_")}
        words = [str(word) for word in arguments]
        with chdir(self.folder), pytest.MonkeyPatch.context() as patch:
            patch.setattr(session, "log_to_stderr", lambda *_: None)  # pytest's logging is ours
            done = CliRunner().invoke(app, words, env={**unset, **environment})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(
            words, done.exit_code, done.stdout_bytes, done.stderr_bytes
        )

    def file(self, text: bytes) -> Path:
        """Make a file to push."""
        path = self.folder / "input.txt"
        path.write_bytes(text)
        return path

    def run_all(
        self, *commands: list[str], stdin: Sequence[bytes] = (), **environment: str
    ) -> list[subprocess.CompletedProcess[bytes]]:
        """Run commands side by side to their ends; most of a short one's time is its imports."""
        inputs = stdin or [b""] * len(commands)
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            running = [
                pool.submit(self.run, *command, stdin=data, **environment)
                for command, data in zip(commands, inputs, strict=True)
            ]
            return [done.result() for done in running]

    @contextmanager
    def start(self, *arguments: str | Path, **environment: str) -> Iterator[Running]:
        """Run a command beside the test; it is gone after the block."""
        with subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=self.folder,
            env=self.environment | environment,
            start_new_session=True,
            preexec_fn=with_us(),  # noqa: PLW1509  # see children.start
        ) as process:
            running = Running(process)
            try:
                yield running
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(DEADLINE_S)
                    finally:
                        process.kill()

    def processes(self) -> dict[int, str]:
        """All that runs because of our commands: process id and command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self._is_ours(entry):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue  # it ended meanwhile, or is not ours
        return found

    def _is_ours(self, entry: Path) -> bool:
        if self._mark.encode() in (entry / "environ").read_bytes():
            return True
        # A server writes its title where its environment was; but it works in a folder of ours.
        return str((entry / "cwd").readlink()).startswith(f"{self.folder}/")

    def nothing_left(self) -> None:
        eventually(lambda: not self.processes(), f"no process left of {self.processes()}")


def one_line(errors: bytes) -> str:
    """The one line that a command which cannot go on prints."""
    text = errors.decode()
    assert text.startswith("riverdelta: "), text
    assert text.count("\n") == 1, text
    return text


def demo_text() -> dict[str, str]:
    """What the demo recording says, by kind; read here without our own codec."""
    said = {"reasoning": "", "text": "", "tool_call": ""}
    for line in DEMO.read_bytes().splitlines():
        for choice in orjson.loads(line)["choices"]:
            delta = choice["delta"]
            said["reasoning"] += delta.get("reasoning_content") or ""
            said["text"] += delta.get("content") or ""
            for call in delta.get("tool_calls", ()):
                said["tool_call"] += call["function"]["arguments"]
    return said


def texts_of(events: list[dict[str, Any]]) -> dict[str, str]:
    """What events say, by kind."""
    kinds: dict[str, str] = {}
    said: dict[str, str] = {}
    for event in events:
        if event["type"] == "chunk.started":
            kinds[event["chunk"]] = event["data"]["kind"]
        elif event["type"] == "chunk.delta":
            kind = kinds[event["chunk"]]
            said[kind] = said.get(kind, "") + event["data"]["text"]
    return said
