"""Read URLs that name several servers: the sentinels of a service, or nodes of a cluster."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from riverdelta.core.errors import SettingsError

_SEVERAL: Final = re.compile(r"(rediss?)\+(cluster|sentinel)://", re.IGNORECASE)
_FORMS: Final = {
    "cluster": "redis+cluster://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]",
    "sentinel": "redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]...]/SERVICE[/DATABASE]",
}
_DEFAULT_PORTS: Final = {"cluster": 6379, "sentinel": 26379}
_SENTINELS_OWN: Final = ("sentinel_username", "sentinel_password")


class Address(NamedTuple):
    """Host and port of a server."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class SeveralUrl:
    """
    A URL of several servers, decoded. Its text never contains a password.

    Attributes:
        kind: ``cluster`` or ``sentinel``.
        addresses: Nodes or sentinels to ask first; they name the others.
        service: The name under which the sentinels watch the primary; "" for a cluster.
    """

    kind: str
    addresses: tuple[Address, ...]
    service: str
    _scheme: str
    _user: str = field(repr=False)
    _database: str
    _query: tuple[tuple[str, str], ...] = field(repr=False)

    def __str__(self) -> str:
        """Name the servers for people."""
        listed = ",".join(map(str, self.addresses))
        return f"{self.service} at sentinels {listed}" if self.service else f"cluster {listed}"

    def server(self, address: Address) -> str:
        """Make the URL of the server at *address*: same user, TLS, database and options."""
        query = urlencode([pair for pair in self._query if pair[0] not in _SENTINELS_OWN])
        return self._url(self._user, address, self._database, query)

    def sentinel(self, address: Address) -> str:
        """Make the URL of the sentinel at *address*: same TLS and options, the sentinels' user."""
        own = dict(self._query)
        user, password = (quote(own.get(name, ""), safe="") for name in _SENTINELS_OWN)
        query = urlencode([pair for pair in self._query if pair[0] not in _SENTINELS_OWN])
        return self._url(f"{user}:{password}" if password else "", address, "", query)

    def _url(self, user: str, address: Address, database: str, query: str) -> str:
        at = f"{user}@" if user else ""
        path = f"/{database}" if database else ""
        return f"{self._scheme}://{at}{address}{path}{'?' if query else ''}{query}"


def is_cluster(url: str) -> bool:
    """Whether *url* names a cluster."""
    found = _SEVERAL.match(url)
    return found is not None and found[2].lower() == "cluster"


def several(url: str) -> SeveralUrl | None:
    """
    Read *url*; None: it names one server.

    Raises:
        SettingsError: It cannot be used; the text says what is expected and never quotes the URL.
    """
    found = _SEVERAL.match(url)
    if found is None:
        return None
    scheme, kind = found[1].lower(), found[2].lower()
    try:
        return _read(url, scheme, kind)
    except ValueError:
        # The reason may quote the URL, and so the password.
        message = f"Redis URL cannot be used: it must be {_FORMS[kind]}"
        raise SettingsError(message) from None


def _read(url: str, scheme: str, kind: str) -> SeveralUrl:
    # Not urlsplit: newer Pythons refuse a list of hosts with an IPv6 address in it.
    rest, _, query = url.partition("://")[2].partition("#")[0].partition("?")
    network, _, path = rest.partition("/")
    user, _, hosts = network.rpartition("@")
    service, _, database = path.lstrip("/").partition("/")
    if kind == "cluster":
        service, database = "", service
        if database not in ("", "0"):
            raise ValueError("a cluster has one database")
    elif not service or not (database or "0").isdecimal():
        raise ValueError("service or database")
    return SeveralUrl(
        kind,
        tuple(_address(host, _DEFAULT_PORTS[kind]) for host in hosts.split(",")),
        service,
        scheme,
        user,
        database,
        tuple(parse_qsl(query)),
    )


def _address(text: str, default_port: int) -> Address:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.username is not None:
        raise ValueError("host")
    return Address(parts.hostname, parts.port or default_port)
