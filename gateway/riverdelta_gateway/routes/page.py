"""The chat page: static files that load nothing from other hosts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

STATIC: Final = Path(__file__).parents[1] / "static"

HEADERS: Final = {
    # "connect-src 'self'" covers the WebSocket too (CSP Level 3).
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",  # the page's own address may have a token
    # The browser asks each time, mostly for "not modified": an upgrade never mixes two versions.
    "Cache-Control": "no-cache",
}


class Page(StaticFiles):
    """Serves the page's files, under a policy that allows only these scripts and this host."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC, html=True)

    def file_response(self, *args: Any, **kwargs: Any) -> Response:  # as StaticFiles has it
        """Respond with a file, or "not modified"."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(HEADERS)
        return response
