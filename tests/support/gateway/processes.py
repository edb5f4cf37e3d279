"""Gateway processes, as the command starts them."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from riverdelta import Settings

DEADLINE_S = 120.0
_LISTENING = re.compile(r"listening at (\S+)")


class GatewayProcess:
    """``riverdelta gateway`` on a free port; its log is in a file."""

    def __init__(
        self, settings: Settings, folder: Path, *arguments: str, **environment: str
    ) -> None:
        self._log = folder / f"gateway-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "riverdelta_cli", "gateway", "--port", "0", *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stderr=log,
                env=os.environ
                | {
                    "RIVERDELTA_REDIS_URL": settings.redis_url,
                    "RIVERDELTA_KEY_PREFIX": settings.key_prefix,
                }
                | environment,
            )
        self.url = self._wait_for_url()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.kill()

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """Send SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + DEADLINE_S
        while (found := _LISTENING.search(self.log)) is None:
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)
        return found[1]
