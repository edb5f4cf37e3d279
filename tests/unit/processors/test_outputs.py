"""How the parts of a card go together."""

from typing import Any

import pytest

from riverdelta.core.outputs import merge_outputs, reduce_output

REDUCED: list[tuple[dict[str, Any] | None, dict[str, Any], dict[str, Any]]] = [
    (None, {"m": None, "m_chunk": "a"}, {"m": "a", "m_chunk": None}),
    ({"m": None}, {"m_chunk": "a"}, {"m": "a", "m_chunk": None}),
    ({"m": "a"}, {"m_chunk": "b", "m": None}, {"m": "ab", "m_chunk": None}),
    ({"m": "a"}, {"m": "b", "m_chunk": None}, {"m": "b", "m_chunk": None}),
    ({"m": "a"}, {"m": None, "m_chunk": None}, {"m": "a", "m_chunk": None}),
    ({"m": "a"}, {"m": "b", "m_chunk": "c"}, {"m": "bc", "m_chunk": None}),
    ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}, {"a": {"b": 1, "c": 3}}),
    ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
    ({"a": {"b": 1}}, {"a": None}, {"a": None}),
    ({"a": 5}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ({"n_chunk": 5}, {"n_chunk": [1]}, {"n_chunk": [1]}),
    (
        {"files": {"1": {"file": {"text": "a", "text_chunk": None}}}},
        {"files": {"2": {"file": {"text_chunk": "x"}}, "1": {"file": {"text_chunk": "b"}}}},
        {
            "files": {
                "1": {"file": {"text": "ab", "text_chunk": None}},
                "2": {"file": {"text": "x", "text_chunk": None}},
            }
        },
    ),
    (
        {"type": "json", "value": {"a": [1]}, "patches": None},
        {"type": "json", "patches": [[["a", 1], "set", {}], [["a", 1, "b_chunk"], "set", "x"]]},
        {"type": "json", "value": {"a": [1, {"b_chunk": "x"}]}, "patches": None},
    ),
    (
        {"type": "json", "value": {"a": 1, "b": 2}},
        {"type": "json", "value": {"c_chunk": "3"}, "patches": None},
        {"type": "json", "value": {"c_chunk": "3"}, "patches": None},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("before", "output", "after"), REDUCED)
def test_the_rules(
    before: dict[str, Any] | None, output: dict[str, Any], after: dict[str, Any]
) -> None:
    kept = repr((before, output))
    assert reduce_output(before, output) == after
    assert repr((before, output)) == kept


def test_merged_parts_do_what_both_did() -> None:
    first = {"m": None, "m_chunk": "a", "f": {"x": {"t": None, "t_chunk": "1"}}, "s": "loading"}
    second = {
        "m": None,
        "m_chunk": "b",
        "f": {"x": {"t": None, "t_chunk": "2"}, "y": {}},
        "s": "ok",
    }
    assert merge_outputs(first, second) == {
        "m": None,
        "m_chunk": "ab",
        "f": {"x": {"t": None, "t_chunk": "12"}, "y": {}},
        "s": "ok",
    }


def test_patches_that_do_not_belong_are_refused() -> None:
    with pytest.raises(LookupError):
        reduce_output(
            {"type": "json", "value": {}}, {"type": "json", "patches": [[["a", 0], "set", 1]]}
        )
