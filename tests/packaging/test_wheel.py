"""The wheel holds all that it needs, and works where there is no checkout."""

import asyncio
from pathlib import Path

import pytest

from riverdelta import Settings
from tests.support.packaging.environment import CHECKOUT, Environment
from tests.support.servers import Server, binaries, worker_processes

pytestmark = pytest.mark.packaging

SCRIPTS = CHECKOUT / "tests" / "support" / "packaging"

PACKAGES = {
    "riverdelta": CHECKOUT / "shared",
    "riverdelta_workers": CHECKOUT / "workers",
    "riverdelta_gateway": CHECKOUT / "gateway",
    "riverdelta_cli": CHECKOUT / "ops",
}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_wheel_has_every_file_of_a_package(package: str, wheel_names: set[str]) -> None:
    parent = PACKAGES[package]
    files = {
        path.relative_to(parent).as_posix()
        for path in (parent / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert f"{package}/py.typed" in files
    assert {name for name in wheel_names if name.startswith(f"{package}/")} == files


def test_the_wheel_has_four_packages_and_its_metadata(wheel_names: set[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel_names)


@pytest.mark.parametrize(
    "pattern",
    [
        "riverdelta/broker/store/lua/*.lua",
        "riverdelta/**/*schema*.json",
        "riverdelta_cli/demo/reply.jsonl",
    ],
)
def test_the_wheel_has_the_files_that_are_not_python(pattern: str, wheel_names: set[str]) -> None:
    assert any(Path(name).match(pattern) for name in wheel_names)


def test_everything_imports_outside_the_checkout(everything: Environment) -> None:
    printed = everything.run("python", SCRIPTS / "import_everything.py")
    assert str(CHECKOUT) not in printed


def test_the_command_teaches(everything: Environment) -> None:
    printed = everything.run("riverdelta", "--help")
    for command in ("up", "worker", "push", "tail", "pipe", "inspect", "stop"):
        assert command in printed


def test_the_command_without_its_extra_says_which_one(backend: Environment) -> None:
    with pytest.raises(AssertionError) as refused:
        backend.run("riverdelta", "--help")
    assert "riverdelta[cli]" in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_a_backend_gets_redis_8_and_no_arq(backend: Environment) -> None:
    backend.run("python", SCRIPTS / "import_base.py")


async def test_a_backend_with_redis_8_produces_and_reads(
    backend: Environment, tmp_path: Path
) -> None:
    """The worker runs from this checkout's own environment, with arq and its redis-py 5."""
    script = SCRIPTS / "produce_and_read.py"
    with Server(str(binaries()["valkey"]), tmp_path) as server:
        async with worker_processes(Settings(redis_url=server.url)):
            await asyncio.to_thread(backend.run, "python", script, server.url)
