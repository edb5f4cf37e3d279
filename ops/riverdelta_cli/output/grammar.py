"""Commands with plain usage lines and error messages, with every version of typer."""

from __future__ import annotations

import re
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

from riverdelta_cli.output.words import friendly

_BRACES: Final = re.compile(r"^\{(.*)\}$")


class _Help:
    """Base of our commands and of their group."""

    def get_help_option(self, ctx: Any) -> Any:
        """Give --help no type: it takes no value."""
        option = super().get_help_option(ctx)  # type: ignore[misc]  # beside a class of typer's
        if option is not None:
            option.metavar = ""
        return option


class Group(_Help, TyperGroup):
    """The group of all our commands."""


class Command(_Help, TyperCommand):
    """One of our commands."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:  # a context of click, or of typer's own
        """Write a required argument as FILE, without braces."""
        return [_BRACES.sub(r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; errors are in our words."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            message = getattr(error, "message", None)
            if isinstance(message, str):
                error.message = friendly(message)  # type: ignore[attr-defined]  # click's errors
            raise
