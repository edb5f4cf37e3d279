"""
Cards of one product: plans, catalog searches, metrics and dashboards. Pure; built on `riverdelta.core`.

`builtin_processors` registers them by default. A pipeline without them starts from
`riverdelta.core.processors.generic_processors`.
"""

from riverdelta.cards.files import (
    DASHBOARD,
    METRIC,
    FileKind,
    FilesProcessor,
    dashboard_processor,
    metric_processor,
)
from riverdelta.cards.plan import TOOLS as PLAN_TOOLS
from riverdelta.cards.plan import PlanProcessor
from riverdelta.cards.search_data_catalog import TOOLS as SEARCH_TOOLS
from riverdelta.cards.search_data_catalog import SearchDataCatalogProcessor
from riverdelta.core.processors import ProcessorRegistry, generic_processors

__all__ = [
    "FileKind",
    "FilesProcessor",
    "PlanProcessor",
    "SearchDataCatalogProcessor",
    "builtin_processors",
]


def builtin_processors() -> ProcessorRegistry:
    """Return a new registry of all built-in processors: the generic ones and the cards."""
    registry = generic_processors()
    registry.register("plan", PlanProcessor, PLAN_TOOLS)
    registry.register("search_data_catalog", SearchDataCatalogProcessor, SEARCH_TOOLS)
    registry.register("metric", metric_processor, METRIC.tools)
    registry.register("dashboard", dashboard_processor, DASHBOARD.tools)
    return registry
