"""Rows of the table: our figure beside the rival's, the median ratio over interleaved repeats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any


@dataclass(slots=True)
class Row:
    """
    One line of the table.

    Attributes:
        ours, rival: Medians, in *unit*.
        ratios: One per repeat: ours by rival of the same repeat.
        at_least, at_most: The bar; both None: printed only.
    """

    what: str
    rival_name: str
    unit: str
    ours: float
    rival: float
    ratios: list[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def ratio(self) -> float:
        """Median over the repeats."""
        return median(self.ratios)

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None: there is none."""
        if self.at_least is not None:
            return self.ratio >= self.at_least
        if self.at_most is not None:
            return self.ratio <= self.at_most
        return None

    @property
    def bar(self) -> str:
        """The bar, for people."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


def row(
    what: str,
    rival_name: str,
    unit: str,
    pairs: Sequence[tuple[float, float]],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """Make a row of *pairs*: our figure and the rival's, one pair a repeat."""
    return Row(
        what,
        rival_name,
        unit,
        median(ours for ours, _ in pairs),
        median(rival for _, rival in pairs),
        [ours / rival for ours, rival in pairs],
        at_least,
        at_most,
    )


def table(rows: Sequence[Row]) -> str:
    """Lay the rows out for people."""
    head = ("what", "against", "ours", "rival", "unit", "ratio", "spread", "bar", "")
    lines = [head] + [
        (
            entry.what,
            entry.rival_name,
            _number(entry.ours),
            _number(entry.rival),
            entry.unit,
            f"{entry.ratio:.2f}",
            f"{min(entry.ratios):.2f}-{max(entry.ratios):.2f}",
            entry.bar,
            {True: "met", False: "MISSED", None: ""}[entry.met],
        )
        for entry in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def quantile(values: list[float], q: float) -> float:
    """Return the value below which the part *q* of them lies."""
    if q == 0.5:
        return median(values)
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]
