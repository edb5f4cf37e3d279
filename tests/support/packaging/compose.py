"""docker-compose.yml as Docker would read it, where there is no Docker."""

import os
import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.packaging.environment import CHECKOUT

TEXT = (CHECKOUT / "docker-compose.yml").read_text("utf-8")
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<otherwise>[-?])(?P<text>[^}]*))?\}")


class Refused(Exception):
    """A variable is missing that must be set."""


def services(variables: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """
    Read the services with *variables* in place of what they name.

    Raises:
        Refused: One that must be set is not.
    """

    def value(found: re.Match[str]) -> str:
        name, otherwise, text = found["name"], found["otherwise"], found["text"]
        if variables.get(name):
            return variables[name]
        if otherwise == "?":
            raise Refused(name)
        assert otherwise == "-", f"{name} would silently be empty"
        return str(text)

    def fill(node: Any) -> Any:
        match node:
            case str():
                return _VARIABLE.sub(value, node)
            case list():
                return [fill(item) for item in node]
            case dict():
                return {key: fill(item) for key, item in node.items()}
        return node

    return dict(fill(yaml.safe_load(TEXT)["services"]))


def environment_of(service: Mapping[str, Any], variables: Mapping[str, str]) -> dict[str, str]:
    """All that a service's process finds in its environment: nothing of ours but what it is given."""
    given = {
        name: variables.get(name) if value is None else value
        for name, value in service["environment"].items()
    }
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RIVERDELTA_")}
    return ours | {name: value for name, value in given.items() if value is not None}


def seconds(duration: str) -> float:
    """Read a duration of whole seconds."""
    return float(duration.removesuffix("s"))
