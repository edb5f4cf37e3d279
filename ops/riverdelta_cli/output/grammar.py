"""Commands whose usage and complaints read as people write them, whichever typer is installed."""

from __future__ import annotations

import re
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

from riverdelta_cli.output.words import friendly

_BRACES: Final = re.compile(r"^\{(.*)\}$")


class _Help:
    """What commands and the group of them have in common."""

    def get_help_option(self, ctx: Any) -> Any:
        """Give --help no type: it takes no value."""
        option = super().get_help_option(ctx)  # type: ignore[misc]  # beside a class of typer's
        if option is not None:
            option.metavar = ""
        return option


class Group(_Help, TyperGroup):
    """All our commands."""


class Command(_Help, TyperCommand):
    """A command of ours."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # a context of click, or of typer's own
        """Write a required argument as FILE: braces are a shell's."""
        return [_BRACES.sub(r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; complaints about it are in our words."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            message = getattr(error, "message", None)
            if isinstance(message, str):
                error.message = friendly(message)  # type: ignore[attr-defined]  # click's errors
            raise
