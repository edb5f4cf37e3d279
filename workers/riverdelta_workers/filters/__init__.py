"""Filters for the text of one chunk: `Redact` hides secrets, `Sections` cuts named parts out."""

from __future__ import annotations

from riverdelta_workers.filters.patterns import SHIPPED, Pattern, RedactRule
from riverdelta_workers.filters.redact import Redact
from riverdelta_workers.filters.sections import Sections

__all__ = ["SHIPPED", "Pattern", "Redact", "RedactRule", "Sections"]
