"""What an input as a whole amounts to, and the lines of it that cannot be used."""

import pytest

from riverdelta_cli.input.understanding import Understanding


def read(source: str, *chunks: bytes) -> Understanding:
    made = Understanding(source)
    for line, chunk in enumerate(chunks, 1):
        made.read(chunk, None if source.endswith("+sse") else line)
    return made


@pytest.mark.parametrize(
    ("source", "chunks", "complaint"),
    [
        ("text", [], "warning: the input was empty"),
        ("text", [b"\n"], None),
        ("anthropic", [b"{}"] * 3, "warning: none of 3 chunks was understood as anthropic; "),
        ("chunks", [b"no"], "warning: no chunk was understood as chunks; "),
        ("anthropic", [b"{}", b'{"type":"message_start","message":{}}'], None),
        ("anthropic+sse", [b"data: {}\n\n" * 2], "warning: none of 2 events was understood"),
        ("anthropic+sse", [b"{}\n"], "warning: no event was understood as anthropic+sse; "),
    ],
)
def test_an_input_that_says_nothing_is_complained_about(
    source: str, chunks: list[bytes], complaint: str | None
) -> None:
    made = read(source, *chunks)
    found = made.complaint()
    assert found is None if complaint is None else str(found).startswith(complaint)
    assert made.nothing == (bool(chunks) and complaint is not None)


def test_rejected_lines_are_named_in_order() -> None:
    made = read("openai-chat", b"no", b"{}", b"[]", b"neither")
    assert [made.next_rejected() for _ in range(4)] == ["line 1", "line 3", "line 4", "a chunk"]
