"""
Incremental JSON: text in, patches and a growing value out. Every character is read once.

`stream` is the parser, `tokens` the tables for numbers, literals and escapes, and `patches` all that a
reader needs.
"""

from riverdelta.core.json_stream.patches import Op, Patch, Path, apply_patches
from riverdelta.core.json_stream.stream import MAX_DEPTH, JsonStream, JsonStreamError
from riverdelta.core.json_stream.tokens import wire_number

__all__ = [
    "MAX_DEPTH",
    "JsonStream",
    "JsonStreamError",
    "Op",
    "Patch",
    "Path",
    "apply_patches",
    "wire_number",
]
