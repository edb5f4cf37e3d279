"""Running text breaks between words, and says what was said."""

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from riverdelta_cli.output.wrap import Wrapper, printable

WIDTH = 12


def screen(pieces: list[str], width: int | None = WIDTH) -> list[str]:
    """What a terminal shows of *pieces*; a cell per character of a wide one, too."""
    wrapper = Wrapper(width)
    lines: list[list[str]] = [[]]
    for piece in pieces:
        for back, out in wrapper.feed(piece):
            if back:
                del lines[-1][-back:]
            for character in out:
                if character == "\n":
                    lines.append([])
                else:
                    cells = cell_len(character)
                    lines[-1] += [character] + [""] * (cells - 1) if cells else []
    assert wrapper.column == len(lines[-1])
    return ["".join(line) for line in lines]


def test_a_word_that_does_not_fit_moves_to_the_next_line() -> None:
    assert screen(["Hello wor", "ld wi", "de"]) == ["Hello world", "wide"]
    assert screen(["Hello worl", "dly one"]) == ["Hello ", "worldly one"]


def test_a_word_longer_than_a_line_is_broken() -> None:
    assert screen(["a" * 8, "a" * 8]) == ["a" * 11, "a" * 5]


def test_wide_characters_count_twice() -> None:
    assert screen(["river 河河", "河"]) == ["river ", "河河河"]


def test_without_a_terminal_text_passes() -> None:
    assert screen(["Hello worldly ", "one and all\n"], None) == ["Hello worldly one and all", ""]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\tc\r\nd\x9b") == "a\ufffd[2Jb\tc\nd\ufffd"


@given(st.lists(st.text(alphabet="ab 河\n", max_size=9), max_size=12))
def test_any_pieces_say_the_same_within_the_width(pieces: list[str]) -> None:
    lines = screen(pieces)
    text = "".join(pieces)
    assert all(cell_len(line) < WIDTH for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())
    if all(cell_len(word) < WIDTH for word in text.split()):
        assert " ".join(lines).split() == text.split()
