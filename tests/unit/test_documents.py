"""What the documents point to is there."""

import re
from pathlib import Path


def test_every_file_that_the_documents_link_to_is_there() -> None:
    root = Path(__file__).parents[2]
    for document in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", (root / document).read_text()):
            assert (root / target).exists(), f"{document} links to {target}"


def test_every_test_that_the_architecture_names_is_there() -> None:
    root = Path(__file__).parents[2]
    text = (root / "ARCHITECTURE.md").read_text()
    named = re.findall(r"`(?:tests/)?((?:\w+/)*test_\w+\.py)(?:::(\w+)(…?))?`", text)
    assert len(named) > 10
    for file, test, _ in named:
        path = root / "tests" / file
        assert path.exists(), file
        assert f"def {test}" in path.read_text(), f"{file}::{test}"
