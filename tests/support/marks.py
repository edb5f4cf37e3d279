"""What the project's own markers say."""

from typing import Any

import pytest


def marked_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Fields of Settings that the test asks for: the nearest ``settings`` marker wins, field by field."""
    fields: dict[str, Any] = {}
    for marker in request.node.iter_markers("settings"):
        fields = {**marker.kwargs, **fields}
    return fields
