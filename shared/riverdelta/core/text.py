"""Text helpers."""

from __future__ import annotations


def truncate_message(text: str, n: int) -> str:
    """
    Cut *text* to its first *n* code points, followed by "..." if it was longer.

    Raises:
        ValueError: *n* is negative; a caller bug.
    """
    if n < 0:
        message = f"n must not be negative: {n}"
        raise ValueError(message)
    return text if len(text) <= n else text[:n] + "..."
