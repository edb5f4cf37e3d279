"""RIVERDELTA_PIPELINE: what it may name, and what is said where it cannot be used. Filters in a chain."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from riverdelta import Pipeline, Settings, SettingsError, TextFilter
from riverdelta.core.filters import ChainedFilter, StreamFilter
from riverdelta_workers.filters import Redact, RedactRule
from riverdelta_workers.pipeline import load_pipeline

MODULE = """
import riverdelta

class Made:
    @staticmethod
    def build(settings):
        return riverdelta.Pipeline(version=settings.key_prefix)

def nothing(settings): ...
def broken(settings): raise ZeroDivisionError
text = "not a function"
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "rd_own.py").write_text(MODULE)
    (tmp_path / "rd_needs.py").write_text("import rd_is_not_installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    yield "rd_own"
    __import__("sys").modules.pop("rd_own", None)


def test_a_file_in_the_working_folder_is_found(module: str) -> None:
    found = load_pipeline(Settings(pipeline=f"{module}:Made.build", key_prefix="p"))
    assert found.version == "p"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("rd_own", "write it as package.module:name"),
        (":build", "write it as package.module:name"),
        (".rd_own:build", "write it as package.module:name"),
        ("rd_own:Made.", "write it as package.module:name"),
        ("rd_absent:build", "No module named 'rd_absent'; install it, or put it on PYTHONPATH"),
        ("rd_needs:build", "No module named 'rd_is_not_installed'"),
        ("rd_own:absent", "rd_own has no 'absent'"),
        ("rd_own:text", "that is neither a function nor a class"),
        ("rd_own:nothing", "returned a NoneType; it must return a riverdelta.Pipeline"),
    ],
)
def test_a_name_that_cannot_be_used_says_what_to_do(module: str, name: str, said: str) -> None:
    assert module
    with pytest.raises(SettingsError) as caught:
        load_pipeline(Settings(pipeline=name))
    assert str(caught.value).startswith(f"RIVERDELTA_PIPELINE={name}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_function_itself_raises_is_not_hidden(module: str) -> None:
    with pytest.raises(ZeroDivisionError):
        load_pipeline(Settings(pipeline=f"{module}:broken"))


class Letters(TextFilter):
    def feed(self, delta: str) -> str:
        return delta.replace("a", "4")


def redact(name: str, expression: str) -> Redact:
    rule: dict[str, Any] = {"name": name, "expression": expression}
    return Redact([RedactRule.model_validate(rule).pattern()])


def run(part: StreamFilter, text: str, size: int) -> str:
    return "".join(part.feed(text[i : i + size]) for i in range(0, len(text), size)) + part.finish()


@pytest.mark.parametrize("size", [1, 2, 5, 100])
def test_filters_in_a_chain_see_what_the_one_before_lets_out(size: int) -> None:
    """The second one's secret is encoded by the first one's answer, and is held back over its end."""
    chain = ChainedFilter(redact("one", "abc"), redact("two", r"\[one\]x"), Letters())
    assert run(chain, "1 abc 2 abcx 3 ab", size) == "1 [one] 2 [two] 3 4b"
    assert (chain.held, chain.bound > 0) == (0, True)


def test_a_chain_goes_on_where_another_was() -> None:
    def chain() -> ChainedFilter:
        return ChainedFilter(redact("one", "abc"), Letters())

    text, shown, state = "1 abc 2 abca", "", chain().dump()
    assert state == {}
    for letter in text:
        part = chain()
        part.load(state)
        shown += part.feed(letter)
        state = part.dump()
    last = chain()
    last.load(state)
    assert shown + last.finish() == "1 [one] 2 [one]4"


def test_a_filter_that_is_added_takes_up_what_the_first_held_back() -> None:
    before = redact("one", "abc")
    assert before.feed("1 ab") == "1 "
    pipeline = Pipeline(stream_filter=lambda: redact("one", "abc")).with_filter(Letters)
    assert pipeline.stream_filter is not None
    after = pipeline.stream_filter()
    after.load(before.dump())
    assert after.feed("c") + after.finish() == "[one]"
