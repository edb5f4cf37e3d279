"""Usage (token counts) as events carry it: of one step, and summed over the steps of a message."""

from __future__ import annotations

from riverdelta.core.codecs.pieces import Usage
from riverdelta.core.events import UsageData


def usage_data(usage: Usage) -> UsageData:
    """Encode a step's usage as events carry it."""
    return UsageData(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cached_tokens=usage.cached_tokens,
        raw=dict(usage.raw),
    )


def add_usage(total: UsageData | None, step: UsageData | None) -> UsageData | None:
    """Sum usage over steps. The sum has no *raw*, because no provider reported it."""
    if step is None:
        return total
    before = total or UsageData(
        input_tokens=0, output_tokens=0, reasoning_tokens=0, cached_tokens=0
    )
    return UsageData(
        input_tokens=before["input_tokens"] + step["input_tokens"],
        output_tokens=before["output_tokens"] + step["output_tokens"],
        reasoning_tokens=before["reasoning_tokens"] + step["reasoning_tokens"],
        cached_tokens=before["cached_tokens"] + step["cached_tokens"],
    )
