"""Input is cut into the same raw chunks, however it is read."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from riverdelta import ChunkTooLarge
from riverdelta_cli.input.lines import LineCutter, cutter_for


def cut(cutter: LineCutter, *reads: bytes) -> list[bytes]:
    chunks = [chunk for data in reads for chunk in cutter.feed(data)]
    return chunks + list(cutter.close())


def for_source(source: str, mode: str | None = None, max_bytes: int = 100) -> LineCutter:
    cutter = cutter_for(source, mode, max_bytes)
    assert cutter is not None
    return cutter


def test_a_line_of_text_keeps_its_newline() -> None:
    assert cut(for_source("text"), b"a\n\nb\r\nc\rd") == [b"a\n", b"\n", b"b\r\n", b"c\rd"]


@pytest.mark.parametrize(("source", "mode"), [("text-snapshot", None), ("text", "snapshot")])
def test_a_snapshot_does_not(source: str, mode: str) -> None:
    assert cut(for_source(source, mode), b"a\nab\r\nabc") == [b"a", b"ab", b"abc"]


@pytest.mark.parametrize("source", ["openai-chat", "anthropic", "chunks"])
def test_blank_lines_are_no_json(source: str) -> None:
    assert cut(for_source(source), b"{}\n\n  \r\n[]\r\n") == [b"{}", b"[]"]


def test_bytes_of_a_stream_are_not_cut() -> None:
    assert cutter_for("anthropic+sse", None, 100) is None


def test_an_empty_input_has_no_chunks() -> None:
    assert cut(for_source("text")) == []


def test_a_line_at_the_limit_passes() -> None:
    assert cut(for_source("openai-chat"), b"x" * 100 + b"\n") == [b"x" * 100]


@pytest.mark.parametrize("reads", [[b"ok\n" + b"x" * 101], [b"ok\n", b"x" * 60, b"x" * 60]])
def test_a_line_over_the_limit_is_refused_before_its_end(reads: list[bytes]) -> None:
    cutter = for_source("text")
    given_before: list[bytes] = []
    with pytest.raises(ChunkTooLarge, match="line 2 is longer"):  # what comes before
        for data in reads:
            given_before.extend(cutter.feed(data))
    assert given_before == [b"ok\n"]


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r", b"\x85", b"\x0c", b"bc"])), st.data())
def test_any_cut_gives_the_same_lines(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    at = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    reads = [whole[a:b] for a, b in pairwise([0, *at, len(whole)])]
    chunks = cut(for_source("text"), *reads)
    assert b"".join(chunks) == whole
    assert all(chunk.endswith(b"\n") for chunk in chunks[:-1])
    assert all(chunk.count(b"\n") <= 1 for chunk in chunks)
