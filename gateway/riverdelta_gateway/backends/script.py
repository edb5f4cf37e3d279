"""The texts of the scripted backend: a data analyst at work, the same each time."""

from __future__ import annotations

from typing import Any, Final

REASONING: Final = (
    "The question is about how sales develop. First see which tables have orders and what a closed order "
    "is, then decide on the grain: by month shows the trend, by region shows where it comes from. "
    "Two metrics will do."
)

GREETING: Final = "Let me see what the data catalog has on that.\n\n"
GREETING_AGAIN: Final = "Let me look into that, too.\n\n"

SEARCH: Final[dict[str, Any]] = {
    "search_requirements": "Orders with their date, amount and region, and which of them count as closed",
    "specific_queries": ["orders by closing date", "revenue by region"],
    "exploratory_topics": ["seasonality of sales"],
}
FOUND: Final[dict[str, Any]] = {
    "results": [
        {"id": "ds-orders", "name": "sales.orders", "type": "dataset"},
        {"id": "ds-regions", "name": "sales.regions", "type": "dataset"},
    ]
}

PLAN: Final = """\
1. Take closed orders of the last twelve months from `sales.orders`.
2. Sum their amounts by month: the trend.
3. Join `sales.regions` and sum by region: where it comes from.
4. Say what stands out.
"""

METRICS: Final[list[dict[str, Any]]] = [
    {
        "name": "Monthly revenue",
        "yml_content": """\
name: Monthly revenue
description: Revenue of closed orders, by month
timeFrame: Last 12 months
sql: |
  SELECT date_trunc('month', closed_at) AS month, sum(amount) AS revenue
  FROM sales.orders
  WHERE status = 'closed'
  GROUP BY 1
  ORDER BY 1
chartConfig:
  selectedChartType: line
  barAndLineAxis:
    x: [month]
    y: [revenue]
""",
    },
    {
        "name": "Revenue by region",
        "yml_content": """\
name: Revenue by region
description: Revenue of closed orders, by region
timeFrame: Last 12 months
sql: |
  SELECT r.name AS region, sum(o.amount) AS revenue
  FROM sales.orders AS o
  JOIN sales.regions AS r ON r.id = o.region_id
  WHERE o.status = 'closed'
  GROUP BY 1
  ORDER BY 2 DESC
chartConfig:
  selectedChartType: bar
  barAndLineAxis:
    x: [region]
    y: [revenue]
""",
    },
]
CREATED: Final[dict[str, Any]] = {
    "files": [{"name": metric["name"], "version_number": 1} for metric in METRICS]
}

ANSWER: Final = """\
I made two metrics{about}: **Monthly revenue** shows the trend, **Revenue by region** where it comes from.

You asked: “{quoted}”. Revenue grows from month to month, with a dip in August; the north brings in \
almost half of it.

| region | share |
|---|---|
| North | 46 % |
| West | 31 % |
| South | 23 % |

(This is the scripted backend: set `RIVERDELTA_TURNS_BACKEND` to `openai` or `anthropic` for real replies.)
"""
