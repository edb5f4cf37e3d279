"""Settings of filter agents."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl

from riverdelta.core.codecs import SOURCES

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OURS: Final = frozenset(
    {"accept-encoding", "connection", "content-length", "content-type", "transfer-encoding"}
)


def _check_url(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise ValueError("credentials belong in headers (authorization), not in the url")
    return url


def _check_headers(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"{name!r} is no header: names are tokens, values printable ASCII")
        if name.lower() in _OURS or name.lower().startswith("riverdelta-"):
            raise ValueError(f"{name!r} is set by riverdelta")
    return headers


def _check_sources(sources: tuple[str, ...] | None) -> tuple[str, ...] | None:
    unknown = set(sources or ()) - set(SOURCES)
    if unknown:
        # A typing error would let everything pass that the agent should filter.
        raise ValueError(f"unknown sources {sorted(unknown)}; there are {', '.join(SOURCES)}")
    return sources


class HttpAgent(BaseModel):
    """
    Settings of one ``http`` filter agent; ``RIVERDELTA_FILTER_AGENTS`` is a JSON list of them.

    Example: ``[{"name": "pii", "url": "http://pii:8080/filter", "timeout_s": 0.5,
    "on_failure": "block", "headers": {"authorization": "Bearer …"}}]``
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$", description="For events and logs; readers see it."
    )
    url: Annotated[HttpUrl, AfterValidator(_check_url)] = Field(
        description="Where chunks are posted; http or https, redirects are not followed."
    )
    timeout_s: float = Field(
        default=2.0,
        gt=0,
        allow_inf_nan=False,
        description="Most seconds for one answer, connecting included.",
    )
    on_failure: Literal["pass", "block"] = Field(
        default="pass",
        description="pass: the chunk goes on without the agent. block: it goes no further.",
    )
    headers: Annotated[dict[str, str], AfterValidator(_check_headers)] = Field(
        default={}, repr=False, description="Sent with every request (credentials, for example)."
    )
    sources: Annotated[tuple[str, ...] | None, AfterValidator(_check_sources)] = Field(
        default=None, description="Only messages of these sources are sent to it. Unset: of all."
    )
