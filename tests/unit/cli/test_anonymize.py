"""`riverdelta pipe --anonymize`: the command around the pure part."""

import re
from pathlib import Path

import pytest

from riverdelta_cli.commands.anonymize import anonymize
from riverdelta_cli.errors import CliError
from tests.support.core.codec_tools import RECORDINGS


def test_it_prints_a_recording_of_the_same_lines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = RECORDINGS / "openai-responses" / "text.jsonl"
    assert anonymize(str(path), None) == 0
    printed, lines = capfdbinary.readouterr().out.splitlines(), path.read_bytes().splitlines()
    assert [len(line) for line in printed] == [len(line) for line in lines]
    assert printed != lines


def test_it_prints_an_event_stream_of_the_same_bytes(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    stream = b': ping secret\r\nevent: message_start\rid: secret\ndata: {"text": "secret"}\n\n'
    (tmp_path / "a.sse").write_bytes(stream)
    assert anonymize(str(tmp_path / "a.sse"), "anthropic+sse") == 0
    printed = capfdbinary.readouterr().out
    assert len(printed) == len(stream)
    assert b"secret" not in printed
    assert re.findall(rb"[\r\n]+", printed) == re.findall(rb"[\r\n]+", stream)


def test_a_file_that_is_not_there_is_said() -> None:
    with pytest.raises(CliError, match=r"cannot read nowhere\.jsonl"):
        anonymize("nowhere.jsonl", None)
