"""Wording that several commands share."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Say how many: ``1 raw chunk``, ``2 raw chunks``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
