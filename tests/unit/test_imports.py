"""
Rules about imports and raw commands that the import contracts in pyproject.toml cannot say.

Each rule is shown to see a breach: its check is run on a planted source as well.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "riverdelta": ROOT / "shared",
    "riverdelta_workers": ROOT / "workers",
    "riverdelta_gateway": ROOT / "gateway",
    "riverdelta_cli": ROOT / "ops",
}
MODULES = sorted(path for name, above in PACKAGES.items() for path in (above / name).rglob("*.py"))

MAY_SEND_COMMANDS = ("riverdelta/broker/redis/", "riverdelta/broker/store/")
"""Rooms that send raw commands: connections, and what is stored."""
MAY_SEND_COMMANDS_TOO = {
    "riverdelta/broker/client.py": "PING",
    "riverdelta/broker/dispatch/attach_jobs.py": "arq's own keys: the only place that knows its format",
}

LAZY = "riverdelta_cli/"
"""A command imports its extra when it runs, so that the others work without it."""

Check = Callable[[str, ast.Module], Iterator[str]]


def name_of(path: Path) -> str:
    """Path of a module below the folder of its package."""
    for name, above in PACKAGES.items():
        if path.is_relative_to(above / name):
            return path.relative_to(above).as_posix()
    raise AssertionError(path)


def imported(node: ast.AST) -> Iterator[str]:
    """Names of the modules of ours that a statement imports."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = ["riverdelta" if node.level else str(node.module)]
    yield from (name for name in names if name.split(".")[0] in PACKAGES)


def mentions(node: ast.expr, name: str) -> bool:
    return any(name in (getattr(n, "id", ""), getattr(n, "attr", "")) for n in ast.walk(node))


def imports_for_types_only(name: str, tree: ast.Module) -> Iterator[str]:
    """Imports of ours under TYPE_CHECKING: they hide circles."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and mentions(node.test, "TYPE_CHECKING"):
            for inner in ast.walk(node):
                yield from (f"{name}: {module}" for module in imported(inner))


def imports_inside_functions(name: str, tree: ast.Module) -> Iterator[str]:
    """Imports of ours inside a function: they hide circles, too."""
    if name.startswith(LAZY):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for inner in ast.walk(node):
                yield from (f"{name}: {module}" for module in imported(inner))


def raw_commands(name: str, tree: ast.Module) -> Iterator[str]:
    """Uses of `execute`, called or passed on, where commands have no business."""
    if name.startswith(MAY_SEND_COMMANDS) or name in MAY_SEND_COMMANDS_TOO:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "execute":
            yield f"{name}:{node.lineno}"


def imports_of_redis_room(name: str, tree: ast.Module) -> Iterator[str]:
    """What broker/redis imports beside itself and the errors: it knows nothing of chats."""
    if not name.startswith("riverdelta/broker/redis/"):
        return
    for node in ast.walk(tree):
        for module in imported(node):
            if not module.startswith(("riverdelta.broker.redis", "riverdelta.core.errors")):
                yield f"{name}: {module}"


RULES: list[Check] = [
    imports_for_types_only,
    imports_inside_functions,
    raw_commands,
    imports_of_redis_room,
]

BREACHES: list[tuple[Check, str, str]] = [
    (
        imports_for_types_only,
        "riverdelta/broker/loop.py",
        "if TYPE_CHECKING:\n    from riverdelta.broker.client import Client",
    ),
    (
        imports_for_types_only,
        "riverdelta_workers/pump.py",
        "if typing.TYPE_CHECKING:\n    import riverdelta.broker.client as client",
    ),
    (
        imports_for_types_only,
        "riverdelta_gateway/hub.py",
        "if TYPE_CHECKING:\n    from . import sockets",
    ),
    (
        imports_inside_functions,
        "riverdelta/broker/client.py",
        "async def f():\n    if 1:\n        from riverdelta.broker.loop import Loop",
    ),
    (
        raw_commands,
        "riverdelta_workers/pump.py",
        "async def f(client):\n    await client.queue.execute('ZREM', 'k', 'm')",
    ),
    (
        raw_commands,
        "riverdelta_cli/commands/inspect.py",
        "def f(client):\n    execute = client.chats.execute",
    ),
    (
        raw_commands,
        "riverdelta/broker/reader/chat_reader.py",
        "async def f(chats):\n    return await chats.execute('XRANGE', 'k', '-', '+')",
    ),
    (
        imports_of_redis_room,
        "riverdelta/broker/redis/wire.py",
        "from riverdelta.broker.store.keys import Keys",
    ),
    (
        imports_of_redis_room,
        "riverdelta/broker/redis/wire.py",
        "from riverdelta.core.events import Event",
    ),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_module_breaks_the_rule(rule: Check) -> None:
    found = [
        breach
        for path in MODULES
        for breach in rule(name_of(path), ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(("rule", "name", "source"), BREACHES)
def test_the_rule_sees_a_breach(rule: Check, name: str, source: str) -> None:
    assert len(list(rule(name, ast.parse(source)))) == 1


@pytest.mark.parametrize("name", MAY_SEND_COMMANDS_TOO)
def test_an_exception_from_the_rule_is_needed(name: str) -> None:
    source = (PACKAGES["riverdelta"] / name).read_text(encoding="utf-8")
    assert list(raw_commands("elsewhere.py", ast.parse(source)))


def test_every_package_is_looked_at() -> None:
    assert {name_of(path).split("/")[0] for path in MODULES} == set(PACKAGES)
