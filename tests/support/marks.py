"""What the project's own markers say."""

import secrets
from typing import Any

import pytest

from riverdelta import Settings

PRODUCER_LEASE_S = 60.0
"""Unless a test says otherwise: a busy machine keeps a producer from its heartbeat for seconds."""

COMMAND_TIMEOUT_S = 20.0
"""Likewise: a server on a busy machine may need more than the default of 5 s for an answer."""


def own_settings(request: pytest.FixtureRequest, redis_url: str) -> Settings:
    """Settings with a key prefix of the test, and what its markers ``settings`` give; the nearest wins."""
    fields: dict[str, Any] = {
        "producer_lease_s": PRODUCER_LEASE_S,
        "command_timeout_s": COMMAND_TIMEOUT_S,
    }
    for marker in reversed([*request.node.iter_markers("settings")]):
        fields |= marker.kwargs
    return Settings(redis_url=redis_url, key_prefix=f"t{secrets.token_hex(4)}", **fields)
