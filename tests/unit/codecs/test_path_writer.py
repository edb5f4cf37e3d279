"""JSON that is written from values by path: what it writes, and what it refuses."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta.core.codecs.path_writer import Path, PathWriter, parse_path


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("$.city", ("city",)),
        ("$.a.b[0].c", ("a", "b", 0, "c")),
        ("$['a b'][\"c.d\"][12]", ("a b", "c.d", 12)),
        ("$['it\\'s \"x\"']", ('it\'s "x"',)),
        ("$.größe", ("größe",)),
    ],
)
def test_paths_that_name_one_place(written: str, path: Path) -> None:
    assert parse_path(written) == path


@pytest.mark.parametrize(
    "written",
    ["", "$", "a", ".a", "$a", "$.", "$..a", "$.*", "$[0]", "$.a[-1]", "$.a[01]", "$.a[x]", "$.a[",
     "$['a]", "$['\\q']", "$" + ".a" * 101, None, 1, ["$.a"]],
)  # fmt: skip
def test_what_names_no_place_in_the_arguments(written: Any) -> None:
    assert parse_path(written) is None


def written(*values: tuple[str, Any]) -> str:
    """Write all values, and a new owner before each."""
    writer, text = PathWriter(), ""
    for written, value in values:
        writer = PathWriter.load(json.loads(json.dumps(writer.dump())))
        path = parse_path(written)
        assert path is not None
        added = writer.write(path, value)
        assert added is not None, (written, text)
        text += added
    return text + writer.close()


def test_a_string_goes_on_until_something_else_comes() -> None:
    assert written(("$.a", "x"), ("$.a", ""), ("$.a", 'y"'), ("$.b", "z")) == (
        '{"a":"xy\\"","b":"z"}'
    )
    assert written(("$.a", "")) == '{"a":""}'


def test_containers_open_and_close_as_the_paths_ask() -> None:
    text = written(
        ("$.a.b[0].c", 1), ("$.a.b[0].d", None), ("$.a.b[1].c", True), ("$.a.e[0][0]", "x"),
        ("$.a.e[0][1]", "y"), ("$.a.e[1][0]", "z"), ("$.f", 2.5),
    )  # fmt: skip
    assert json.loads(text) == {
        "a": {"b": [{"c": 1, "d": None}, {"c": True}], "e": [["x", "y"], ["z"]]},
        "f": 2.5,
    }


def test_nothing_is_an_empty_object() -> None:
    assert written() == "{}"


def test_a_value_that_is_said_again_replaces_the_first() -> None:
    assert json.loads(written(("$.a", 1), ("$.a", 2), ("$.b", 3))) == {"a": 2, "b": 3}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ([("$.a", 1), ("$.b", 1)], "$.a"),
        ([("$.a.b", 1), ("$.c", 1)], "$.a.d"),
        ([("$.a[0]", 1)], "$.a[2]"),
        ([("$.a[0]", 1)], "$.a[0]"),
        ([("$.a[0]", 1)], "$.a.b"),
        ([("$.a.b", 1)], "$.a[0]"),
        ([("$.a.b", 1)], "$.a"),
        ([("$.a", 1)], "$.a.b"),
        ([("$.a", "x")], "$.a"),
        ([], "$.a[1]"),
        ([("$.b", 1)], "$.a[0][1]"),
    ],
)
def test_what_cannot_stand_behind_the_rest_changes_nothing(
    first: list[tuple[str, Any]], then: str
) -> None:
    writer, text = PathWriter(), ""
    for written, value in first:
        text += writer.write(parse_path(written) or (), value) or ""
    before = writer.dump()
    assert writer.write(parse_path(then) or (), 5) is None
    assert writer.dump() == before
    json.loads(text + writer.close())


LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(st.text("ab.'\"[ é", max_size=3), inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def leaves(value: Any, path: Path) -> list[tuple[Path, Any]]:
    """List the leaves of a value in order, with their paths."""
    if isinstance(value, dict):
        inner: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    else:
        return [(path, value)]
    return [leaf for name, item in inner for leaf in leaves(item, (*path, name))]


def encoded(path: Path) -> str:
    return "$" + "".join(f"[{json.dumps(name, ensure_ascii=False)}]" for name in path)


@given(st.dictionaries(st.text(max_size=3), VALUES, max_size=3), st.data())
def test_the_leaves_of_any_value_in_order_write_that_value(
    value: dict[str, Any], data: st.DataObject
) -> None:
    parts = list[tuple[str, Any]]()
    for path, leaf in leaves(value, ()):
        if isinstance(leaf, str):
            cut = data.draw(st.integers(0, len(leaf)))
            parts += [(encoded(path), leaf[:cut]), (encoded(path), leaf[cut:])]
        else:
            parts.append((encoded(path), leaf))
    assert json.loads(written(*parts)) == value
