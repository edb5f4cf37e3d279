"""Authentication: bearer tokens, and the pages that may use the gateway."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from starlette.requests import HTTPConnection

from riverdelta.core.errors import InvalidIdError, SettingsError
from riverdelta.core.ids import check_id
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.loopback import LOOPBACK
from riverdelta_gateway.settings import GatewaySettings

DEV_USER: Final = "dev"
_ALGORITHMS: Final[dict[type, str]] = {
    rsa.RSAPublicKey: "RS256",
    ec.EllipticCurvePublicKey: "ES256",
    ed25519.Ed25519PublicKey: "EdDSA",
}
LEEWAY_S: Final = 30.0
"""Clocks of those who make tokens may differ from ours by this, for ``iat``, ``nbf`` and ``exp``."""
_LEAST_RSA_BITS: Final = 2048
_LATEST_S: Final = 253_402_300_799
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Identity:
    """
    The user who asks.

    Attributes:
        user: Id of the user.
        expires_in_s: Seconds until the token expires; None: no token is needed.
    """

    user: str
    expires_in_s: float | None = None


class Authenticator:
    """
    Checks tokens: HS256 with a secret, or RS256, ES256 and EdDSA with a public key.

    Raises:
        SettingsError: Neither a key nor ``dev`` is set, or both are, or ``dev`` on an address that other
            machines can reach.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self.dev = settings.dev
        self._key: Any = None
        self._algorithms: list[str] = []
        secret, path = settings.token_secret, settings.token_public_key_file
        if settings.dev:
            _check_dev(settings)
        elif (secret is None) == (path is None):
            raise SettingsError(
                "a gateway checks tokens: set either RIVERDELTA_GATEWAY_TOKEN_SECRET or "
                "RIVERDELTA_GATEWAY_TOKEN_PUBLIC_KEY_FILE; --dev runs it without tokens, on loopback"
            )
        elif secret is not None:
            self._key, self._algorithms = secret.get_secret_value(), ["HS256"]
        elif path is not None:
            self._key, algorithm = _read_public_key(path)
            self._algorithms = [algorithm]

    def identify(self, connection: HTTPConnection) -> Identity:
        """
        Authenticate a request or handshake.

        Raises:
            RequestError: UNAUTHORIZED: no token, or an invalid one.
        """
        if self.dev:
            return Identity(DEV_USER)
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            # Browsers cannot set a header on a WebSocket or an EventSource.
            token = connection.query_params.get("token", "")
        if not token:
            raise RequestError("UNAUTHORIZED", "A token is needed.")
        return self.check(token)

    def check(self, token: str) -> Identity:
        """
        Check a token.

        Raises:
            RequestError: UNAUTHORIZED: it is not valid, or has expired.
        """
        if self.dev:
            return Identity(DEV_USER)
        try:
            claims = jwt.decode(
                token.strip(),
                self._key,
                algorithms=self._algorithms,
                audience=self._settings.token_audience,
                options={"require": ["aud", "exp", "sub"]},
                leeway=LEEWAY_S,
            )
            user = check_id("sub", claims["sub"])
            expires_in_s = _seconds_left(claims["exp"], time.time())
        except (jwt.PyJWTError, InvalidIdError, ValueError, OverflowError):
            raise RequestError("UNAUTHORIZED", "The token is not valid, or has expired.") from None
        return Identity(user, expires_in_s)

    def is_origin_allowed(self, connection: HTTPConnection) -> bool:
        """Whether a request or handshake comes from an allowed page, or from no page at all."""
        origin = connection.headers.get("origin")
        if origin is None:
            return True  # not a browser: browsers always send it
        if origin in self._settings.allowed_origins:
            return True
        page = urlsplit(origin)
        if self.dev:  # not the Host header: anyone can point a name of theirs at loopback
            return page.hostname in LOOPBACK
        return page.netloc == connection.headers.get("host", "").lower()


def _seconds_left(exp: object, now_s: float) -> float:
    """
    Return how long a token lasts; one that has run out by this clock lasts for the rest of the leeway.

    Raises:
        ValueError: *exp* is no time in seconds, or one that no clock reaches.
    """
    if not isinstance(exp, int | float) or isinstance(exp, bool) or not 0 <= exp <= _LATEST_S:
        raise ValueError(exp)
    left_s = exp - now_s
    return left_s if left_s > 0 else left_s + LEEWAY_S


def _check_dev(settings: GatewaySettings) -> None:
    if settings.host not in LOOPBACK:
        raise SettingsError(
            f"--dev checks no tokens, so it listens on loopback only, not on {settings.host}: "
            "use --host 127.0.0.1, or set a token key"
        )
    if settings.token_secret is not None or settings.token_public_key_file is not None:
        raise SettingsError("--dev checks no tokens: remove it, or the token key")


def _read_public_key(path: Path) -> tuple[Any, str]:
    """
    Read a public key, and choose its one algorithm: a token must not choose how it is checked.

    Raises:
        SettingsError: The file cannot be read, or has no key of a supported kind, curve and size.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{path} is no public key in PEM form: {error}") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
        raise SettingsError(
            f"{path}: an RSA key of {key.key_size} bits is too short: use {_LEAST_RSA_BITS} or more"
        )
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, ec.SECP256R1):
        raise SettingsError(
            f"{path}: a key of curve {key.curve.name} does not fit ES256: use P-256"
        )
    for kind, algorithm in _ALGORITHMS.items():
        if isinstance(key, kind):
            return key, algorithm
    raise SettingsError(f"{path}: use an RSA, P-256 or Ed25519 key")
