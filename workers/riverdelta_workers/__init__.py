"""arq workers that own chats: ``riverdelta worker``, or ``arq riverdelta_workers.WorkerSettings``."""

from __future__ import annotations

from riverdelta.broker.settings import Settings
from riverdelta_workers.jobs import run_worker, worker_settings
from riverdelta_workers.pipeline import build_pipeline

__all__ = ["build_pipeline", "run_worker", "worker_settings"]


def __getattr__(name: str) -> type:
    """Make ``WorkerSettings`` when arq asks for it: it reads the environment, importing must not."""
    if name == "WorkerSettings":
        return worker_settings(Settings())
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
