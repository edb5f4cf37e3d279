"""The documents: links, named tests and code."""

import re
from pathlib import Path

import pytest

from tests.support.documents import DOCUMENTS, ROOT, code_with, python_blocks

RUN_WITH_A_SERVER = ("async def reply(", "message.restart()", "def build(", "def last_reply(")
RUN_HERE = ("ChunkTracker(", "StreamingParser(")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_links_to_is_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text("utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_all_python_of_the_documents_is_run() -> None:
    """Here, or in tests/integration/pipeline/test_documents_code.py."""
    run = [code_with(words) for words in (*RUN_WITH_A_SERVER, *RUN_HERE)]
    assert sorted(run) == sorted(python_blocks())


@pytest.mark.parametrize("words", RUN_HERE)
def test_the_parsing_of_the_docs(words: str) -> None:
    exec(compile(code_with(words), "parsing.md", "exec"), {})  # noqa: S102  # that is the test


def test_the_readme_can_be_skimmed() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 110


def test_every_test_that_the_architecture_names_is_there() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(\w+)(…?))?`", text)
    assert len(named) > 10
    for file, test, _ in named:
        path = ROOT / "tests" / file
        assert path.exists(), file
        assert f"def {test}" in path.read_text(), f"{file}::{test}"
