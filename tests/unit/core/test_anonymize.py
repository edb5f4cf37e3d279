"""A recording without what it says: the same bytes in the same places, and the same structure."""

import json
import re
from pathlib import Path

import pytest

from riverdelta.core.anonymize import Anonymizer
from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkStart,
    Piece,
    Rejected,
    StepEnd,
    StepFail,
    StepStart,
    Text,
)
from tests.support.core.codec_tools import lines_of, merged, recordings, run

SOURCES = (
    "openai-chat",
    "openai-responses",
    "anthropic",
    "gemini",
    "bedrock-converse",
    "chunks",
)


def structure(source: str, raws: list[bytes]) -> list[object]:
    """What a stream is made of, without what it says."""
    codec = make_codec(source)
    return [*(_shape(piece) for piece in merged(run(codec, raws))), codec.skipped]


def _shape(piece: Piece) -> object:  # noqa: PLR0911  # one line for each kind of piece
    match piece:
        case StepStart(model):
            return "step", model is None
        case ChunkStart():
            return "start", piece.kind, piece.format, piece.tool_name is None, piece.mode
        case Text(_, text):
            return "text", len(text)
        case ChunkEnd():
            return "end"
        case ChunkFail(_, code):
            return "fail", code
        case StepEnd(reason, word, usage):
            return "ends", reason, word, usage and usage[:4]
        case StepFail(code, detail):
            return "fails", code, len(detail)
        case Rejected(code):
            return "rejected", code
        case _:
            return piece


def _names(paths: list[Path]) -> list[str]:
    return [f"{path.parent.name}/{path.stem}" for path in paths]


PATHS = recordings(*SOURCES)


@pytest.mark.parametrize("path", PATHS, ids=_names(PATHS))
def test_a_recording_keeps_its_structure_and_the_length_of_every_line(path: Path) -> None:
    source, lines = path.parent.name, lines_of(path)
    made = Anonymizer(source)
    hidden = [made.line(line) for line in lines]
    assert [len(line) for line in hidden] == [len(line) for line in lines]
    assert structure(source, hidden) == structure(source, lines)
    words, now = (shown(source, raws) for raws in (lines, hidden))
    assert [word for word in re.findall(r"[A-Za-z]{4,}", words) if word in now] == []


def shown(source: str, raws: list[bytes]) -> str:
    """All that a reader sees as text."""
    kinds, texts = dict[str, str](), list[str]()
    for piece in run(make_codec(source), raws):
        if isinstance(piece, ChunkStart):
            kinds[piece.key] = piece.kind
        elif isinstance(piece, Text) and kinds[piece.key] in ("text", "reasoning", "refusal"):
            texts.append(piece.text)
    return "".join(texts)


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "chunks"])
def test_an_event_stream_keeps_its_frames(source: str) -> None:
    path = next(path for path in recordings(source) if path.stem == "text")
    framed = [b": a comment with words\r\n", b"retry: 5\r\n"]
    for line in lines_of(path):
        framed += [b"event: an.event\r\n", b"id: secret-7\r\n", b"data: " + line + b"\r\n", b"\r\n"]
    framed.append(b"data: [DONE]\n")
    made = Anonymizer(f"{source}+sse")
    hidden = [made.line(line) for line in framed]
    assert [len(line) for line in hidden] == [len(line) for line in framed]
    assert structure(f"{source}+sse", hidden) == structure(f"{source}+sse", framed)
    assert hidden[1] == b"retry: 5\r\n"
    assert b"event: an.event\r\n" in hidden
    assert b"words" not in b"".join(hidden)
    assert b"secret" not in b"".join(hidden)


def hide(source: str, *lines: str) -> list[str]:
    made = Anonymizer(source)
    return [made.line(line.encode()).decode() for line in lines]


def test_every_form_of_a_character_keeps_its_size() -> None:
    line = '{"text": "Aé語🌊\\u0041\\u00e9\\ud83d\\ude00\\n\\"/ \\\\"}'
    (hidden,) = hide("chunks", line)
    assert hidden == '{"text": "xé語\U0001d431\\u0078\\u00e9\\ud835\\udc31\\n\\"/ \\\\"}'


def test_the_same_id_is_renamed_in_the_same_way_everywhere() -> None:
    first, second = hide(
        "openai-responses",
        '{"type":"response.output_item.added","item":{"id":"fc_1","call_id":"call_1"}}',
        '{"type":"response.output_item.done","item":{"id":"fc_2","call_id":"call_1"}}',
    )
    one, two = json.loads(first)["item"], json.loads(second)["item"]
    assert one["call_id"] == two["call_id"] != "call_1"
    assert len({one["id"], two["id"], "fc_1", "fc_2"}) == 4


def test_arguments_in_parts_stay_json() -> None:
    whole = '{"city": "Bos\\u0074on", "n": [12, true, null], "deep": {"a": -1.5e3}}'
    for cut in range(len(whole)):
        lines = [
            json.dumps({"type": "content_block_delta", "index": 0, "delta": {"partial_json": part}})
            for part in (whole[:cut], whole[cut:])
        ]
        parts = [json.loads(line)["delta"]["partial_json"] for line in hide("anthropic", *lines)]
        assert "".join(parts) == (
            '{"xxxx": "xxx\\u0061xx", "x": [11, true, null], "xxxx": {"x": -1.1e1}}'
        )


def test_a_users_own_objects_lose_their_names_and_numbers() -> None:
    (hidden,) = hide(
        "gemini",
        '{"candidates":[{"content":{"parts":[{"functionCall":{"name":"pay",'
        '"args":{"salary":4200,"to":["Ann"]}}}]}}],"responseId":"r"}',
    )
    for word in ("pay", "salary", "4200", "Ann"):
        assert word not in hidden
    assert "functionCall" in hidden


def test_a_value_by_path_is_no_longer_the_users() -> None:
    hidden = hide("gemini", '{"partialArgs":[{"jsonPath":"$.n","numberValue":4200.5}]}')[0]
    assert '"numberValue":1111.1' in hidden


def test_names_in_a_path_are_those_of_the_object() -> None:
    first, second = hide(
        "gemini", '{"jsonPath":"$.stops[12].name"}', '{"jsonPath":"$[\'stops\'][0].name"}'
    )
    assert re.fullmatch(r'\{"jsonPath":"\$\.\w{5}\[12\]\.\w{4}"\}', first)
    assert first[15:20] == second[16:21] != "stops"


@pytest.mark.parametrize("line", ['{"text": "secret', "secret words, no JSON", '{"a": secret}'])
def test_what_is_no_json_says_nothing_either(line: str) -> None:
    (hidden,) = hide("openai-chat", line)
    assert "secret" not in hidden
    assert len(hidden) == len(line)


def test_plain_text_keeps_its_lines() -> None:
    assert hide("text", "Hello, you!\n", "é 1\n") == ["xxxxxx xxxx\n", "é x\n"]
