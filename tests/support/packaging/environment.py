"""Empty environments outside the checkout, to use the wheel in."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
LOCK = CHECKOUT / "requirements" / "dev.txt"
INSTALL_TIMEOUT_S = 600


@dataclass(frozen=True)
class Environment:
    """An environment with nothing but what was installed into it, and a folder to run in."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    def run(self, *command: str | Path) -> str:
        """Run a program of this environment away from the checkout; return what it printed."""
        return run([self.folder / "venv" / "bin" / command[0], *command[1:]], cwd=self.folder)


def run(command: Sequence[str | Path], cwd: Path) -> str:
    """Run to the end with no path into the checkout; a failure shows all that was printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"PYTHONPATH", "VIRTUAL_ENV"} and not name.startswith("RIVERDELTA_")
    }
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_TIMEOUT_S,
        check=False,
    )
    assert ran.returncode == 0, f"{command} gave {ran.returncode}:\n{ran.stdout}"
    return ran.stdout


def find_uv() -> str | None:
    """The uv that make uses: on PATH, or fetched into .tools; pip does its work where none runs."""
    for candidate in ("uv", CHECKOUT / ".tools" / "uv-venv" / "bin" / "uv"):
        found = shutil.which(candidate)
        if (
            found
            and subprocess.run([found, "--version"], capture_output=True, check=False).returncode
            == 0
        ):
            return found
    return None


def make_environment(folder: Path) -> tuple[Environment, list[str | Path]]:
    """Make an empty environment in *folder*; and the command that installs into it."""
    environment = Environment(folder)
    uv = find_uv()
    if uv:
        run([uv, "venv", "--quiet", "--python", sys.executable, folder / "venv"], cwd=folder)
        return environment, [uv, "pip", "install", "--quiet", "--python", environment.python]
    run([sys.executable, "-m", "venv", folder / "venv"], cwd=folder)
    return environment, [environment.python, "-m", "pip", "install", "--quiet"]


def install(folder: Path, requirements: Sequence[str]) -> Environment:
    """
    Make an environment in *folder* and install *requirements* at the locked versions.

    A requirement that names its own version (``redis>=8``) is free of the lock.
    """
    free = {
        re.split(r"[^\w-]", requirement)[0] for requirement in requirements if ">=" in requirement
    }
    constraints = folder / "constraints.txt"
    # The lock without its hashes: a wheel that was built a second ago has none in it.
    pins = re.findall(
        r"^(([\w.-]+)==\S+(?: ; [^\\\n]+?)?) \\$", LOCK.read_text("utf-8"), re.MULTILINE
    )
    constraints.write_text("".join(f"{pin}\n" for pin, name in pins if name not in free), "utf-8")
    environment, command = make_environment(folder)
    run([*command, "--constraint", constraints, *requirements], cwd=folder)
    return environment
