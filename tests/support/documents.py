"""The documents, and the Python in them."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def python_blocks() -> list[str]:
    """Return all Python blocks of the documents."""
    texts = (document.read_text("utf-8") for document in DOCUMENTS)
    return [
        block for text in texts for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    ]


def code_with(words: str) -> str:
    """Return the only Python block that contains *words*."""
    (code,) = (block for block in python_blocks() if words in block)
    return code
