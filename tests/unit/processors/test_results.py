"""What a tool answered completes its card."""

import json
from typing import Any

import pytest

from riverdelta.core.outputs import reduce_output
from riverdelta.core.parser import complete_card
from riverdelta.core.processors import ToolResult
from tests.support.core.feeding import CALL, REGISTRY, outputs_of, reduced, wire


def completed(tool: str, content: Any, card: dict[str, Any] | None = None) -> dict[str, Any]:
    done = complete_card(REGISTRY, ToolResult(tool, CALL, content, card))
    assert done.failure is None
    assert done.output is not None
    return wire(done.output)


FOUND: list[tuple[Any, str, list[str]]] = [
    (["a", "b", "c"], "3 data catalog items found", ["a", "b", "c"]),
    (
        {"results": [{"name": "a", "id": "1", "type": "dataset"}]},
        "1 data catalog item found",
        ["a"],
    ),
    ('{"items": [{"title": "a"}, "b", 5, {}]}', "2 data catalog items found", ["a", "b"]),
    ({"results": []}, "No data catalog items found", []),
    ("[]", "No data catalog items found", []),
]


@pytest.mark.parametrize(("content", "title", "pills"), FOUND)
def test_a_search_ends_with_what_was_found(content: Any, title: str, pills: list[str]) -> None:
    card = completed("search_data_catalog", content)
    assert (card["title"], card["status"], card["id"]) == (title, "completed", CALL)
    assert [pill["text"] for box in card["pill_containers"] for pill in box["pills"]] == pills
    before = outputs_of("search_data_catalog", ['{"specific_queries":["x"]}'])[-1]
    assert reduce_output(before, card) == card


UNREADABLE: list[tuple[Any, str]] = [
    ("Timeout!", "not JSON"),
    ("", "not JSON"),
    ("[" * 100_000, "not JSON"),
    (None, "neither an object nor a list"),
    ("5", "neither an object nor a list"),
    ({"error": "database is away"}, "database is away"),
    ({"results": "x", "files": "x"}, "has no list"),
    ({"rows": 5}, "has no '"),
]


@pytest.mark.parametrize(("content", "reason"), UNREADABLE)
@pytest.mark.parametrize("tool", ["search_data_catalog", "create_metrics", "update_dashboards"])
def test_an_unreadable_result_fails_the_card_with_the_reason(
    tool: str, content: Any, reason: str
) -> None:
    card = completed(tool, content)
    assert card["status"] == "failed"
    assert reason in card["secondary_title"]


FILES: list[tuple[str, Any, str, str]] = [
    (
        "create_metrics",
        {
            "files": [{"name": "a"}, {"name": "b"}],
            "failed_files": [{"name": "c", "error": "bad sql"}],
        },
        "Created 2 metrics, 1 failed",
        "completed",
    ),
    ("create_metrics", {"files": ["a"]}, "Created 1 metric", "completed"),
    (
        "create_dashboards",
        json.dumps({"files": [{"name": "a"}]}),
        "Created 1 dashboard",
        "completed",
    ),
    ("update_metrics", [{"id": "1"}, {"id": "2"}], "Updated 2 metrics", "completed"),
    ("open_dashboards", [{"id": "1"}], "Opened 1 dashboard", "completed"),
    (
        "update_metrics",
        {"files": [], "failed_files": ["a", "b"]},
        "Failed to update 2 metrics",
        "failed",
    ),
    ("create_metrics", {"files": []}, "Created no metrics", "completed"),
]


@pytest.mark.parametrize(("tool", "content", "title", "status"), FILES)
def test_a_file_tool_ends_with_what_it_did(
    tool: str, content: Any, title: str, status: str
) -> None:
    card = completed(tool, content)
    assert (card["title"], card["status"]) == (title, status)


def test_the_finished_card_keeps_the_streamed_texts_and_settles_every_file() -> None:
    arguments = {"files": [{"name": name, "yml_content": f"{name}: 1"} for name in "abc"]}
    before = reduced(outputs_of("create_metrics", [json.dumps(arguments)]))
    result = {
        "files": [{"name": "a", "version_number": 3}, {"name": "b", "yml_content": "b: 2"}],
        "failed_files": [{"name": "c", "error": "bad sql"}],
    }
    card = completed("create_metrics", result, before)
    files = [card["files"][id_] for id_ in before["file_ids"]]
    assert card["file_ids"] == before["file_ids"]
    assert [file["file"]["text"] for file in files] == ["a: 1", "b: 2", "c: 1"]
    assert [file["status"] for file in files] == ["completed", "completed", "failed"]
    assert [file["version_number"] for file in files] == [3, 1, 1]
    assert files[2]["metadata"] == [{"error": "bad sql"}]
    assert card["secondary_title"] == "bad sql"
    assert reduce_output(before, card) == card


def test_an_unreadable_result_fails_every_file_of_the_card() -> None:
    before = outputs_of("create_metrics", ['{"files":[{"name":"a","yml_content":"x"}]}'])[-1]
    card = completed("create_metrics", "?", before)
    assert [file["status"] for file in card["files"].values()] == ["failed"]
    assert [file["file"]["text"] for file in card["files"].values()] == ["x"]
    assert reduce_output(before, card) == card


@pytest.mark.parametrize("tool", ["create_plan", "done", "unknown_tool", None])
def test_other_results_change_no_card(tool: str | None) -> None:
    assert complete_card(REGISTRY, ToolResult(tool, CALL, {})).output is None
