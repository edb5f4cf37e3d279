"""Tokens of users, as a backend would make them."""

import time
from typing import Any

import jwt

from riverdelta_gateway.settings import GatewaySettings

SECRET = "a secret of more than thirty-two bytes, for tests"
WITH_TOKENS = GatewaySettings.model_validate({"port": 0, "token_secret": SECRET})


LIFE_S = 3600
"""Long: parameters of tests are made when they are collected, which is before all that run first."""


def token(user: str, *, key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token that is good for an hour; *claims* change that, those that are None are left out."""
    said = {"sub": user, "aud": "riverdelta", "exp": time.time() + LIFE_S} | claims
    said = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(said, key, algorithm=algorithm)
