"""
Processors: make cards of chunks while the chunks arrive.

`base` defines the interface; every other module is a generic processor for JSON, YAML or fields, without
knowledge of a product. The cards of a product are in `riverdelta.cards`.
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
from riverdelta.core.processors.json_value import JsonProcessor
from riverdelta.core.processors.yml import YmlProcessor

__all__ = [
    "Card",
    "ChunkText",
    "Completes",
    "Factory",
    "FieldTextProcessor",
    "JsonProcessor",
    "ObjectProcessor",
    "Processor",
    "ProcessorRegistry",
    "ToolResult",
    "YmlProcessor",
    "generic_processors",
]


def generic_processors() -> ProcessorRegistry:
    """Return a new registry of the generic processors. ``json`` and ``yml`` run only on request."""
    registry = ProcessorRegistry()
    registry.register("field_text", FieldTextProcessor, FIELDS)
    registry.register("json", JsonProcessor)
    registry.register("yml", YmlProcessor)
    return registry
