"""Who is there: bearer tokens, and pages that may open sockets."""

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
from riverdelta_gateway.settings import GatewaySettings

DEV_USER: Final = "dev"
_ALGORITHMS: Final[dict[type, str]] = {
    rsa.RSAPublicKey: "RS256",
    ec.EllipticCurvePublicKey: "ES256",
    ed25519.Ed25519PublicKey: "EdDSA",
}
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Identity:
    """
    Who asks.

    Attributes:
        user: Id of the user.
        expires_in_s: Seconds until the token expires; None: it was not asked for.
    """

    user: str
    expires_in_s: float | None = None


class Authenticator:
    """
    Reads tokens: HS256 with a secret, or RS256, ES256 and EdDSA with a public key.

    Raises:
        SettingsError: Neither a key nor ``dev`` is set, or both, or ``dev`` on an address that others
            can reach.
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
                "a gateway needs RIVERDELTA_GATEWAY_TOKEN_SECRET or "
                "RIVERDELTA_GATEWAY_TOKEN_PUBLIC_KEY_FILE, one of them, to know its users; "
                "--dev runs it without, on loopback"
            )
        elif secret is not None:
            self._key, self._algorithms = secret.get_secret_value(), ["HS256"]
        elif path is not None:
            self._key, algorithm = _read_public_key(path)
            self._algorithms = [algorithm]

    def identify(self, connection: HTTPConnection) -> Identity:
        """
        Say who a request or handshake is from.

        Raises:
            RequestError: UNAUTHORIZED: no token, or one that is not valid.
        """
        if self.dev:
            return Identity(DEV_USER)
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            # Browsers cannot set a header on a WebSocket or an EventSource.
            token = connection.query_params.get("token", "")
        if not token:
            raise RequestError("UNAUTHORIZED", "A token is needed.")
        try:
            claims = jwt.decode(
                token.strip(),
                self._key,
                algorithms=self._algorithms,
                audience=self._settings.token_audience,
                options={"require": ["aud", "exp", "sub"]},
            )
            user = check_id("sub", claims["sub"])
        except (jwt.PyJWTError, InvalidIdError):
            raise RequestError("UNAUTHORIZED", "The token is not valid, or has expired.") from None
        return Identity(user, claims["exp"] - time.time())

    def is_origin_allowed(self, connection: HTTPConnection) -> bool:
        """Whether a request or handshake comes from a page that may make it, or from no page."""
        origin = connection.headers.get("origin")
        if origin is None:
            return True  # no browser: those cannot leave it out
        if self._settings.allowed_origins:
            return origin in self._settings.allowed_origins
        page = urlsplit(origin)
        if self.dev:  # not the Host header: a foreign name may be made to point at loopback
            return page.hostname in _LOOPBACK
        return page.netloc == connection.headers.get("host")


def _check_dev(settings: GatewaySettings) -> None:
    if settings.host not in _LOOPBACK:
        raise SettingsError(
            f"--dev knows no users, so it listens on loopback only, not on {settings.host}: "
            "use --host 127.0.0.1, or set a token key"
        )
    if settings.token_secret is not None or settings.token_public_key_file is not None:
        raise SettingsError("--dev does not look at tokens: take it away, or the token key")


def _read_public_key(path: Path) -> tuple[Any, str]:
    """
    Read a public key, and the one algorithm that it is used with.

    One, because a token must not choose how it is checked.

    Raises:
        SettingsError: The file cannot be read, or holds no key that is used.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingsError(f"{path} holds no public key in PEM form: {error}") from error
    for kind, algorithm in _ALGORITHMS.items():
        if isinstance(key, kind):
            return key, algorithm
    raise SettingsError(f"{path}: use an RSA, P-256 or Ed25519 key")
