"""The riverdelta command: what it teaches."""

import inspect
import re

import pytest
from typer.testing import CliRunner

from riverdelta import SOURCES
from riverdelta.core.tracker import MISMATCH_RULES, MODES
from riverdelta_cli import app as commands
from riverdelta_cli.app import app
from riverdelta_cli.options import ModeName, OnMismatchName, Source
from tests.support.shell import Shell

COMMANDS = ("up", "worker", "gateway", "turns", "push", "tail", "pipe", "inspect", "stop", "dead")


def test_help_names_every_command(shell: Shell) -> None:
    done = shell.run("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert re.search(rf"^│ {command} ", done.stdout.decode(), re.MULTILINE), command
    assert b"\x1b" not in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    done = CliRunner().invoke(app, [command, "--help"], terminal_width=80)
    assert done.exit_code == 0
    assert f"riverdelta {command}" in done.stdout
    assert "Example" in done.stdout
    assert "Prints" in done.stdout
    assert "Exit codes" in done.stdout
    assert "<bool>" not in done.stdout
    # A line that is too long for a terminal would be broken in two by its last word or so.
    printed = {line.strip() for line in done.stdout.splitlines()}
    written = inspect.getdoc(getattr(commands, command)) or ""
    assert {re.sub(r"\[/?bold\]", "", line).strip() for line in written.splitlines()} <= printed


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["pipe"],
        ["push", "c1"],
        ["tail"],
        ["pipe", "--source", "morse", "-"],
        ["up", "--workers", "x"],
    ],
)
def test_bad_usage_exits_2(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert not done.stdout
    assert "Value error" not in done.stderr
    assert "{" not in done.stderr


def test_version(shell: Shell) -> None:
    assert re.fullmatch(rb"riverdelta \d+\.\d+\.\d+\n", shell.call("--version").stdout)


def test_the_version_is_printed_without_importing_the_command(shell: Shell) -> None:
    done = shell.run("--version", PYTHONPROFILEIMPORTTIME="1")
    assert re.fullmatch(rb"riverdelta \d+\.\d+\.\d+\n", done.stdout)
    imported = set(re.findall(rb"\| +(\S+)$", done.stderr, re.MULTILINE))
    assert b"riverdelta_cli" in imported
    assert not {b"redis", b"pydantic", b"typer", b"riverdelta"} & imported


def test_every_source_can_be_named() -> None:
    assert {str(source) for source in Source} == set(SOURCES)


def test_every_rule_can_be_named() -> None:
    assert {str(mode) for mode in ModeName} == set(MODES)
    assert {str(rule) for rule in OnMismatchName} == set(MISMATCH_RULES)
