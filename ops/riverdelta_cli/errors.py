"""Errors of commands: one line on stderr, and an exit code."""

from __future__ import annotations

import signal
from typing import Final

from pydantic import ValidationError

from riverdelta import (
    BackpressureError,
    MessageEnded,
    MessageExists,
    MessageLost,
    NotChatOwner,
    RiverdeltaError,
    Stopped,
)
from riverdelta_cli.extras import lacking
from riverdelta_cli.output.words import friendly

DONE: Final = 0
NOT_DONE: Final = 1
"""The command worked, but the result is negative: the reply failed or was stopped, nothing was open."""
UNUSABLE: Final = 2
"""Bad usage, input that cannot be read, a server that cannot be used."""
BROKEN_PIPE: Final = 128 + signal.SIGPIPE
"""Whoever read our output went away (``| head``); what the shell says of other programs, too."""

_NOT_DONE = (
    BackpressureError,
    MessageEnded,
    MessageExists,
    MessageLost,
    NotChatOwner,
    Stopped,
)

_PREFIXES: Final = {
    "GatewaySettings": "RIVERDELTA_GATEWAY_",
    "TurnSettings": "RIVERDELTA_TURNS_",
}
"""What begins the variables of settings other than `Settings`, by class."""


_UNION_MEMBERS: Final = ("bool", "tuple[str, ...]")
"""Where a value may be of several types, pydantic names each of them as if it were a part."""


class CliError(Exception):
    """Ends the command: prints *text* and exits with *exit_code*."""

    def __init__(self, text: str, exit_code: int = UNUSABLE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def explain(error: BaseException) -> CliError | None:
    """Turn an expected error into one line; None: a bug, show the traceback."""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return explain(error.exceptions[0])
    if isinstance(error, CliError):
        return error
    text = str(error)
    match error:
        case Stopped():
            text = f"the message was stopped: {text}"
        case ValidationError():
            text = _settings_line(error)
        case OSError():
            # Inputs and sockets have errors of their own: without a file's name, it is stdout.
            text = f"{error.filename or 'cannot write the output'}: {error.strerror or error}"
        case RiverdeltaError():
            pass
        case _:
            return None
    return CliError(text, NOT_DONE if isinstance(error, _NOT_DONE) else UNUSABLE)


def _settings_line(error: ValidationError) -> str:
    prefix = _PREFIXES.get(error.title, "RIVERDELTA_")
    complaints: dict[str, list[str]] = {}
    for entry in error.errors(include_url=False):
        variable, *inside = (part for part in entry["loc"] if part not in _UNION_MEMBERS)
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in inside)
        name = prefix + str(variable).upper() + place
        complaints.setdefault(name, []).append(friendly(entry["msg"]))
    return "cannot use " + "; ".join(
        f"{name}: {', or '.join(reasons)}" for name, reasons in complaints.items()
    )


def require_extras(what: str, *needed: str) -> None:
    """
    Check that extras are installed, before anything starts.

    Raises:
        CliError: One or more are missing.
    """
    if line := lacking(what, needed):
        raise CliError(line)
