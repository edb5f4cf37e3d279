"""What every test gets: hypothesis without wall-clock deadlines, and no task left behind."""

import asyncio
import inspect
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import is_hypothesis_test, settings

from tests.support.drawing import examples
from tests.support.shell import Shell

# No test asserts a time: a machine with other work takes as long as it takes.
settings.register_profile("riverdelta", deadline=None, max_examples=examples(100))
settings.load_profile("riverdelta")

PROCESSES_PER_CORE = 3
"""Of `-n auto`: tests wait for servers and processes for much of their time."""

TURNS_TO_FINISH = 10
"""Loop turns that a cancelled task gets to run its finally blocks."""


class NoParameters:
    """Stands for the parameters of a test that has none."""

    params: ClassVar[dict[str, object]] = {}


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail the test that leaves a task running on its loop; every async test gets this."""
    before = asyncio.all_tasks()
    yield
    ours = asyncio.current_task()
    for _ in range(TURNS_TO_FINISH):
        leaked = {task for task in asyncio.all_tasks() - before if task is not ours}
        if not leaked:
            return
        await asyncio.sleep(0)
    pytest.fail("left running: " + ", ".join(sorted(repr(task) for task in leaked)), pytrace=False)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """The riverdelta command in a folder of its own; a process that it leaves running fails the test."""
    made = Shell(tmp_path)
    yield made
    made.nothing_left()


def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` starts."""
    return PROCESSES_PER_CORE * len(os.sched_getaffinity(0))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what hypothesis draws and second engines; put the leak check first: it is torn down last."""
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        if is_hypothesis_test(item.function):
            item.add_marker(pytest.mark.property)
        if "redis" in getattr(item, "callspec", NoParameters).params.values():
            item.add_marker(pytest.mark.redis_server)
        if inspect.iscoroutinefunction(item.function):
            item.fixturenames.insert(0, "no_leaked_tasks")
