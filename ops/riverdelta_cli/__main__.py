"""Entry point of the ``riverdelta`` command: says which extra is missing, if one is."""

from __future__ import annotations

import importlib.util
import sys


def main() -> None:
    """Run the command; never returns."""
    if any(importlib.util.find_spec(name) is None for name in ("typer", "rich")):
        line = 'riverdelta: the command needs the extra "cli": pip install "riverdelta[cli]"'
        print(line, file=sys.stderr)
        sys.exit(2)
    from riverdelta_cli.app import app  # noqa: PLC0415  # needs the extra

    app(prog_name="riverdelta")


if __name__ == "__main__":
    main()
