"""The live bench measures what it says: stamps survive, and a process' CPU time is its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import orjson
import pytest

from bench.cpu import cpu_ns
from bench.tokens import around_the_token, due_times


def test_a_token_carries_the_time_at_which_it_was_due() -> None:
    before, after = around_the_token(3)
    raw = b"%b %d%b" % (before, 123_456_789_012_345, after)
    assert due_times(raw) == [123_456_789_012_345]
    text = orjson.loads(raw)["choices"][0]["delta"]["content"]
    assert text == " 123456789012345"
    assert due_times((text + " 123456789999999").encode()) == [123456789012345, 123456789999999]


@pytest.mark.skipif(sys.platform != "linux", reason="no CPU clock of another process elsewhere")
def test_the_cpu_time_of_another_process_is_what_it_says_itself() -> None:
    code = "import time; sum(range(1_000_000)); print(time.process_time_ns(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        said = int(process.stdout.readline())
        assert cpu_ns(process.pid) >= said
        process.communicate(b"\n")
    assert cpu_ns(os.getpid()) <= time.process_time_ns()
