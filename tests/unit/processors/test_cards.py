"""The built-in cards, one tool call each."""

import json
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

from tests.support.core.feeding import CALL, every, outputs_of, reduced

PLAN = {"thoughts": "none of it", "plan": '1. Look.\n2. Leap ☃ \\ "now"', "more": [1]}


def file_id(name: str, suffix: str = "metric_file") -> str:
    return str(uuid5(NAMESPACE_OID, f"{CALL}:{name}:{suffix}"))


@pytest.mark.parametrize(
    "tool", ["create_plan", "create_plan_investigative", "create_plan_straightforward"]
)
@pytest.mark.parametrize("field", ["plan", "plan_markdown"])
def test_a_plan_grows_and_is_completed(tool: str, field: str) -> None:
    outputs = outputs_of(tool, ['{"', field, '":"Lo', "ok", '."', "}"])
    empty = {"id": CALL, "type": "text", "title": "Plan", "secondary_title": None}
    assert outputs == [
        {**empty, "message": None, "message_chunk": "Lo", "status": "loading"},
        {**empty, "message": None, "message_chunk": "ok", "status": "loading"},
        {**empty, "message": None, "message_chunk": ".", "status": "loading"},
        {**empty, "message": "Look.", "message_chunk": None, "status": "completed"},
    ]


def test_blanks_before_the_arguments_are_no_reason_to_refuse_them() -> None:
    assert outputs_of("create_plan", ["", " ", "\n", '{"plan":"x"}'])[-1]["message"] == "x"


def test_a_plan_that_is_cut_off_keeps_what_came_and_is_failed() -> None:
    outputs = outputs_of("create_plan", ['{"plan":"Loo', "k \\u26"])
    assert [output["message_chunk"] for output in outputs] == ["Loo", "k ", None]
    assert outputs[-1]["message"] == "Look "
    assert outputs[-1]["status"] == "failed"


def test_a_plan_key_that_comes_again_replaces_what_was_sent() -> None:
    outputs = outputs_of("create_plan", ['{"plan":"old', '","plan":"new', 'er"', "}"])
    assert reduced(outputs[:2])["message"] == "new"
    assert reduced(outputs[:3])["message"] == reduced(outputs)["message"] == "newer"


def test_a_file_is_shown_from_its_first_content_on() -> None:
    pieces = ['{"files":[{"name":"Sales","yml_con', 'tent":"a: 1', "\\nb: 2", '"}', "]}"]
    outputs = outputs_of("create_metrics", pieces)
    sales = file_id("Sales")
    assert outputs[0] == {
        "id": CALL,
        "type": "files",
        "title": "Creating metrics",
        "secondary_title": None,
        "status": "loading",
        "file_ids": [sales],
        "files": {
            sales: {
                "id": sales,
                "file_type": "metric",
                "file_name": "Sales",
                "version_number": 1,
                "status": "loading",
                "file": {"text": None, "text_chunk": "a: 1", "modified": None},
                "metadata": None,
            }
        },
    }
    assert [output["files"][sales]["file"]["text_chunk"] for output in outputs] == [
        "a: 1",
        "\nb: 2",
        None,
    ]
    assert outputs[-1]["files"][sales]["file"]["text"] == "a: 1\nb: 2"
    assert reduced(outputs) == outputs[-1]


def test_two_dashboards_in_one_piece_and_in_many() -> None:
    text = json.dumps(
        {
            "files": [
                {"name": "One", "yml_content": "x: 1"},
                {"yml_content": "y: é", "name": "Two"},  # the name is known last
            ]
        }
    )
    one, two = file_id("One", "dashboard_file"), file_id("Two", "dashboard_file")
    for pieces in ([text], list(text)):
        card = reduced(outputs_of("create_dashboards", pieces))
        assert card["file_ids"] == [one, two]
        assert [card["files"][id_]["file"]["text"] for id_ in (one, two)] == ["x: 1", "y: é"]
        assert {file["file_type"] for file in card["files"].values()} == {"dashboard"}


def test_content_before_its_name_is_shown_whole_once_the_name_is_certain() -> None:
    pieces = ['{"files":[{"yml_content":"a: 1', "2", '","name":"Sa', 'les"', "},", "{", "}]}"]
    outputs = outputs_of("create_metrics", pieces)
    assert [output["files"][file_id("Sales")]["file"]["text_chunk"] for output in outputs] == [
        "a: 12",
        None,
    ]


def test_an_update_goes_by_id_and_learns_the_name_when_it_comes() -> None:
    pieces = ['{"files":[{"id":"f-1","yml_content":"a', 'b","name":"Sales"}]}']
    outputs = outputs_of("update_metrics", pieces)
    assert outputs[0]["title"] == "Updating metrics"
    assert outputs[0]["files"]["f-1"]["file_name"] == "f-1"
    assert outputs[-1]["files"]["f-1"]["file_name"] == "Sales"
    assert reduced(outputs) == outputs[-1]


def test_an_id_means_nothing_when_creating() -> None:
    assert outputs_of("create_metrics", ['{"files":[{"id":"f","yml_content":"a"}]}']) == []
    card = outputs_of("create_metrics", ['{"files":[{"id":"f","name":"n","yml_content":"a"}]}'])[0]
    assert card["file_ids"] == [file_id("n")]


def test_a_name_that_comes_twice_is_shown_once() -> None:
    files = [
        {"name": name, "yml_content": text} for name, text in (("n", "a"), ("n", "b"), ("m", "c"))
    ]
    for size in (1, 1000):
        card = reduced(outputs_of("create_metrics", every(json.dumps({"files": files}), size)))
        assert card["file_ids"] == [file_id("n"), file_id("m")]
        assert card["files"][file_id("n")]["file"]["text"] == "a"


def test_files_that_come_twice_void_what_was_shown() -> None:
    text = '{"files":[{"name":"n","yml_content":"a"}],"files":[{"name":"m","yml_content":"b"}]}'
    for size in (1, 1000):
        outputs = outputs_of("create_metrics", every(text, size))
        assert reduced(outputs) == outputs[-1]
        assert outputs[-1]["status"] == "failed"


def test_pills_come_when_the_arguments_are_complete() -> None:
    arguments = {
        "search_requirements": "revenue by month",
        "specific_queries": ["revenue", 5, "month"],
        "exploratory_topics": ["finance"],
    }
    for pieces in ([json.dumps(arguments)], list(json.dumps(arguments))):
        assert outputs_of("search_data_catalog", pieces) == [
            {
                "id": CALL,
                "type": "pills",
                "title": "Searching the data catalog",
                "secondary_title": "revenue by month",
                "pill_containers": [
                    {
                        "title": "Specific queries",
                        "pills": [
                            {
                                "id": f"{CALL}:specific_queries:{n}",
                                "text": text,
                                "type": "specific_query",
                            }
                            for n, text in enumerate(["revenue", "month"])
                        ],
                    },
                    {
                        "title": "Exploratory topics",
                        "pills": [
                            {
                                "id": f"{CALL}:exploratory_topics:0",
                                "text": "finance",
                                "type": "exploratory_topic",
                            }
                        ],
                    },
                ],
                "status": "loading",
            }
        ]


@pytest.mark.parametrize(
    ("tool", "field"), [("done", "final_response"), ("message_user_clarifying_question", "text")]
)
def test_a_field_is_the_reply(tool: str, field: str) -> None:
    outputs = outputs_of(tool, ['{"other":"no","', field, '":"Hel', 'lo"}'])
    shape = {"id": CALL, "type": "text"}
    assert outputs == [
        {**shape, "message": None, "message_chunk": "Hel", "status": "loading"},
        {**shape, "message": "Hello", "message_chunk": None, "status": "completed"},
    ]


def test_json_passes_patches_on_and_ends_with_the_value() -> None:
    outputs = outputs_of(None, ['{"a":[1,', '"x', 'y"', "]}"], "json")
    assert outputs[1]["patches"] == [[["a", 1], "set", "x"]]
    assert reduced(outputs[:2])["value"] == {"a": [1, "x"]}
    assert reduced(outputs) == outputs[-1]
    assert outputs[-1] == {
        "id": CALL, "type": "json", "status": "completed", "value": {"a": [1, "xy"]}, "patches": None,
    }  # fmt: skip
    assert outputs_of(None, ["4", "2"], "json")[-1]["value"] == 42


def test_yml_finds_its_key_anywhere() -> None:
    value = {"a/b": {"yml_content": "x: 1"}, "c": [{"yml_content": "y"}, {"yml_content": 5}]}
    outputs = outputs_of(None, every(json.dumps(value), 3), "yml")
    texts = {"/a~1b/yml_content": "x: 1", "/c/0/yml_content": "y"}
    assert outputs[-1]["texts"] == {
        pointer: {"text": text, "text_chunk": None} for pointer, text in texts.items()
    }
    assert reduced(outputs) == outputs[-1]
    assert (
        "".join(
            output["texts"].get("/a~1b/yml_content", {}).get("text_chunk") or ""
            for output in outputs
        )
        == "x: 1"
    )


def test_yml_keys_that_come_again_replace() -> None:
    text = '{"yml_content":"old","yml_content":"new","yml_content":"newer"}'
    for size in (1, 4, 1000):
        outputs = outputs_of(None, every(text, size), "yml")
        assert reduced(outputs)["texts"]["/yml_content"]["text"] == "newer"


def test_yml_whose_place_is_gone_in_the_end_is_empty() -> None:
    text = '{"c":[{"yml_content":"x"}],"c":[]}'
    for size in (1, 1000):
        outputs = outputs_of(None, every(text, size), "yml")
        assert reduced(outputs)["texts"] == {"/c/0/yml_content": {"text": "", "text_chunk": None}}


WRONG: list[tuple[str, Any]] = [
    ("create_plan", []),
    ("create_plan", "plan"),
    ("create_plan", None),
    ("create_plan", 5),
    ("create_plan", {}),
    ("create_plan", {"plan": ""}),
    ("create_plan", {"plan": {"plan": "x"}}),
    ("create_plan", {"nested": {"plan": "x"}}),
    ("search_data_catalog", ["x"]),
    ("search_data_catalog", {}),
    ("search_data_catalog", {"search_requirements": 5, "specific_queries": "x"}),
    ("search_data_catalog", {"specific_queries": {"a": "b"}, "exploratory_topics": [1, None, ""]}),
    ("create_metrics", "files"),
    ("create_metrics", [{"name": "n", "yml_content": "x"}]),
    ("create_metrics", {}),
    ("create_metrics", {"files": "x"}),
    ("create_metrics", {"files": 5}),
    ("create_metrics", {"files": []}),
    ("create_metrics", {"files": {"name": "n", "yml_content": "x"}}),
    ("create_metrics", {"files": {"0": {"name": "n", "yml_content": "x"}}}),
    ("create_metrics", {"files": ["x", 5, None, []]}),
    ("create_metrics", {"files": [{"name": "n"}]}),
    ("create_metrics", {"files": [{"yml_content": "x"}]}),
    ("create_metrics", {"files": [{"name": "n", "yml_content": ""}]}),
    ("create_metrics", {"files": [{"name": "", "yml_content": "x"}]}),
    ("create_metrics", {"files": [{"name": 5, "yml_content": "x"}]}),
    ("create_metrics", {"files": [{"name": "n", "yml_content": ["x"]}]}),
    ("create_metrics", {"files": [{"name": "n"}, {"name": "m", "yml_content": "x"}]}),
    ("create_metrics", {"files": [{"yml_content": "y"}, {"name": "m", "yml_content": "x"}]}),
    ("create_metrics", {"files": [5, {"name": "m", "yml_content": "x"}]}),
    ("create_metrics", {"files": [[], {"name": "m", "yml_content": "x"}]}),
    ("update_dashboards", {"files": [{"yml_content": "x"}]}),
    ("done", {"text": "x"}),
    ("done", {"final_response": ["x"]}),
    ("message_user_clarifying_question", {"final_response": "x"}),
]


@pytest.mark.parametrize(("tool", "arguments"), WRONG)
@pytest.mark.parametrize("size", [1, 1000])
def test_a_wrong_shape_gives_no_card(tool: str, arguments: Any, size: int) -> None:
    assert outputs_of(tool, every(json.dumps(arguments), size)) == []


@pytest.mark.parametrize(
    "text", ["", "   ", "no json", '{"plan":', '{"files":[{"name":"n"', "\ud83d"]
)
@pytest.mark.parametrize("tool", ["create_plan", "create_metrics", "done", "search_data_catalog"])
def test_what_is_no_json_or_breaks_off_before_the_text_gives_no_card(tool: str, text: str) -> None:
    assert outputs_of(tool, list(text)) == []
    assert outputs_of(None, list(text), "yml") == []


def test_files_behind_one_that_lacks_something_are_not_shown() -> None:
    files = [{"name": "n", "yml_content": "a"}, {"name": "m"}, {"name": "o", "yml_content": "c"}]
    card = reduced(outputs_of("create_metrics", [json.dumps({"files": files})]))
    assert card["file_ids"] == [file_id("n")]
