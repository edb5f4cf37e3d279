"""The wheel, built once, and empty environments outside the checkout to use it in."""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.packaging.environment import (
    CHECKOUT,
    Environment,
    install,
    make_environment,
    run,
)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=CHECKOUT,
    )
    (built,) = folder.glob("riverdelta-*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def everything(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with every extra, as locked."""
    return install(tmp_path_factory.mktemp("everything"), [f"riverdelta[all] @ {wheel.as_uri()}"])


@pytest.fixture(scope="session")
def image(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """What ops/Dockerfile puts into the image: its lock, and the wheel with nothing beyond that."""
    folder = tmp_path_factory.mktemp("image")
    environment, install_command = make_environment(folder)
    run(
        [*install_command, "--require-hashes", "-r", CHECKOUT / "requirements" / "runtime.txt"],
        cwd=folder,
    )
    run([*install_command, "--no-deps", wheel], cwd=folder)
    return environment


@pytest.fixture(scope="session")
def backend(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel as a chat backend installs it: no extra, and its own redis-py, which is 8."""
    return install(
        tmp_path_factory.mktemp("backend"),
        [f"riverdelta @ {wheel.as_uri()}", "redis>=8,<9"],
    )
