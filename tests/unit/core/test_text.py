import pytest

from riverdelta import truncate_message


@pytest.mark.parametrize(
    ("text", "n", "cut"),
    [("", 0, ""), ("abc", 3, "abc"), ("abcd", 3, "abc..."), ("🙂🙂", 1, "🙂..."), ("a", 0, "...")],
)
def test_the_first_code_points_and_dots_if_there_were_more(text: str, n: int, cut: str) -> None:
    assert truncate_message(text, n) == cut


def test_a_negative_length_is_a_bug() -> None:
    with pytest.raises(ValueError, match="negative"):
        truncate_message("a", -1)
