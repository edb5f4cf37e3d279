"""What docker-compose.yml would run, run on this machine: same commands, environments and users."""

import contextlib
import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.packaging import compose
from tests.support.packaging.environment import CHECKOUT, Environment
from tests.support.servers import Server, free_port

OPERATIONS = (CHECKOUT / "docs" / "operations.md").read_text("utf-8")


def variables_of_operations(folder: Path) -> dict[str, str]:
    """Run the commands of docs/operations.md that make passwords; return the variables of ``.env``."""
    section = OPERATIONS.partition("## In production")[2]
    script = section.partition("```sh\n")[2].partition("docker compose up")[0]
    subprocess.run(["sh", "-eu"], input=script, text=True, cwd=folder, check=True)
    lines = (folder / ".env").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines)


def redis_server(engine: str, folder: Path, variables: Mapping[str, str]) -> Server:
    """Make the server of the ``redis`` service; *engine* stands for its image's entry point."""
    service = compose.services(variables)["redis"]
    mounts = dict(volume.split(":")[1::-1] for volume in service["volumes"])
    words = [
        str(CHECKOUT / mounts[word]) if word in mounts else word for word in service["command"]
    ]
    words[words.index("docker-entrypoint.sh")] = engine
    given = compose.environment_of(service, variables)
    script = "".join(
        f"export {name}={shlex.quote(given[name])}\n" for name in service["environment"]
    )
    start = folder / "start-redis"
    start.write_text(f'#!/bin/sh\n{script}exec {shlex.join(words)} "$@"\n', "utf-8")
    start.chmod(0o700)
    return Server(str(start), folder)


class Deployment:
    """
    The services beside a server.

    Args:
        image: Where their commands are.
        server: Of `redis_server`, with the same *variables*.
        folder: For their logs.
    """

    def __init__(
        self, image: Environment, server: Server, variables: Mapping[str, str], folder: Path
    ) -> None:
        self._image = image
        self._server = server
        self._variables = variables
        self._folder = folder
        self._services = compose.services(variables)
        self._gateway_port = free_port()

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self._gateway_port}"

    def redis_url(self, user: str) -> str:
        name = "RIVERDELTA_REDIS_PASSWORD"
        if user != "default":
            name = f"RIVERDELTA_REDIS_{user.upper()}_PASSWORD"
        return f"redis://{user}:{self._variables[name]}@127.0.0.1:{self._server.port}/0"

    def grace_s(self, name: str) -> float:
        return compose.seconds(self._services[name]["stop_grace_period"])

    @contextlib.contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """One process of a service."""
        service = self._services[name]
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                self._command(service["command"]), env=self._environment(service), stderr=log
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def is_healthy(self, name: str) -> bool:
        """Whether the health check of a service says so."""
        kind, *command = self._services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        here = [
            word.replace("127.0.0.1:8000", f"127.0.0.1:{self._gateway_port}") for word in command
        ]
        checked = subprocess.run(self._command(here), capture_output=True, check=False)
        return checked.returncode == 0

    def _command(self, words: list[str]) -> list[str | Path]:
        return [self._image.folder / "venv" / "bin" / words[0], *words[1:]]

    def _environment(self, service: dict[str, Any]) -> dict[str, str]:
        """Where compose has a host or a port of its network, ours."""
        environment = compose.environment_of(service, self._variables)
        url = environment["RIVERDELTA_REDIS_URL"]
        at_home = re.sub(r"@redis:6379/", f"@127.0.0.1:{self._server.port}/", url)
        assert at_home != url
        environment["RIVERDELTA_REDIS_URL"] = at_home
        if "RIVERDELTA_GATEWAY_PORT" in environment:
            environment["RIVERDELTA_GATEWAY_HOST"] = "127.0.0.1"
            environment["RIVERDELTA_GATEWAY_PORT"] = str(self._gateway_port)
        return environment
