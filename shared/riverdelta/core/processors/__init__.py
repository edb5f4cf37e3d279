"""
Processors: cards made of chunks while they arrive.

`base` says what one is; each other module has one that is built in. A pipeline of one's own starts with
`builtin_processors` and registers more.
"""

from riverdelta.core.processors.base import (
    Card,
    ChunkText,
    Completes,
    Factory,
    ObjectProcessor,
    Processor,
    ProcessorRegistry,
    ToolResult,
)
from riverdelta.core.processors.field_text import FIELDS, FieldTextProcessor
from riverdelta.core.processors.files import (
    DASHBOARD,
    METRIC,
    FileKind,
    FilesProcessor,
    dashboard_processor,
    metric_processor,
)
from riverdelta.core.processors.json_value import JsonProcessor
from riverdelta.core.processors.plan import TOOLS as PLAN_TOOLS
from riverdelta.core.processors.plan import PlanProcessor
from riverdelta.core.processors.search_data_catalog import TOOLS as SEARCH_TOOLS
from riverdelta.core.processors.search_data_catalog import SearchDataCatalogProcessor
from riverdelta.core.processors.yml import YmlProcessor

__all__ = [
    "Card",
    "ChunkText",
    "Completes",
    "Factory",
    "FieldTextProcessor",
    "FileKind",
    "FilesProcessor",
    "JsonProcessor",
    "ObjectProcessor",
    "PlanProcessor",
    "Processor",
    "ProcessorRegistry",
    "SearchDataCatalogProcessor",
    "ToolResult",
    "YmlProcessor",
    "builtin_processors",
]


def builtin_processors() -> ProcessorRegistry:
    """Make a registry of all that is built in; ``json`` and ``yml`` have no tools, and are asked for."""
    registry = ProcessorRegistry()
    registry.register("plan", PlanProcessor, PLAN_TOOLS)
    registry.register("search_data_catalog", SearchDataCatalogProcessor, SEARCH_TOOLS)
    registry.register("metric", metric_processor, METRIC.tools)
    registry.register("dashboard", dashboard_processor, DASHBOARD.tools)
    registry.register("field_text", FieldTextProcessor, FIELDS)
    registry.register("json", JsonProcessor)
    registry.register("yml", YmlProcessor)
    return registry
