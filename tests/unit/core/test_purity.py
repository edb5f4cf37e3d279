"""
The core is pure: what it decides depends on its arguments alone.

The import contract in pyproject.toml says the same of imports; this says it of what actually runs,
and of the names that an import contract cannot see.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import riverdelta

CORE = Path(riverdelta.__file__).parent / "core"
MODULES = sorted(CORE.rglob("*.py"))

IMPURE = {
    "arq",
    "asyncio",
    "concurrent",
    "datetime",
    "io",
    "logging",
    "multiprocessing",
    "os",
    "pathlib",
    "pydantic_settings",
    "random",
    "redis",
    "secrets",
    "socket",
    "subprocess",
    "tempfile",
    "time",
}
"""Ways to a server, a clock, chance, the environment or the disk."""

IMPURE_NAMES = {
    "uuid": {"uuid1", "uuid4", "uuid6", "uuid7", "getnode"},
    "builtins": {"open", "input", "print", "__import__"},
}
"""uuid5 is a function of its arguments; the others ask a clock, chance or the machine."""

IMPORT_WITHOUT_SERVER_LIBRARIES = """
import importlib, sys, types

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("arq", "pydantic_settings", "redis"):
            raise ImportError(f"the core asked for {name}")

sys.meta_path.insert(0, Refuse())
# riverdelta/__init__.py re-exports the broker: stand in for it, so that only the core is loaded.
package = types.ModuleType("riverdelta")
package.__path__ = [sys.argv[1]]
sys.modules["riverdelta"] = package
for name in sys.argv[2:]:
    importlib.import_module(name)
"""


def imports_of(tree: ast.Module) -> set[str]:
    """Top-level names of the modules that *tree* imports, at any depth of nesting."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def names_of(tree: ast.Module) -> set[str]:
    """Every name and attribute that *tree* mentions, imported ones included."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(CORE.parent.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_core_module_has_no_way_to_the_world(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert imports_of(tree) & IMPURE == set()
    assert names_of(tree) & IMPURE_NAMES["builtins"] == set()
    if "uuid" in imports_of(tree):
        assert names_of(tree) & IMPURE_NAMES["uuid"] == set()


def test_the_core_runs_where_no_redis_library_is_installed() -> None:
    ran = subprocess.run(
        [
            sys.executable,
            "-c",
            IMPORT_WITHOUT_SERVER_LIBRARIES,
            str(CORE.parent),
            *map(module_name, MODULES),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
