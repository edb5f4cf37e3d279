"""Options and arguments that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from riverdelta_cli.processes.folder import DEFAULT_FOLDER


class Source(StrEnum):
    """Encodings of raw chunks; equal to `riverdelta.SOURCES` (a test compares them)."""

    TEXT = "text"
    TEXT_SNAPSHOT = "text-snapshot"
    CHUNKS = "chunks"
    OPENAI_CHAT = "openai-chat"
    OPENAI_RESPONSES = "openai-responses"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"
    BEDROCK_CONVERSE = "bedrock-converse"
    OPENAI_CHAT_SSE = "openai-chat+sse"
    OPENAI_RESPONSES_SSE = "openai-responses+sse"
    ANTHROPIC_SSE = "anthropic+sse"
    GEMINI_SSE = "gemini+sse"
    BEDROCK_CONVERSE_SSE = "bedrock-converse+sse"


class ModeName(StrEnum):
    """Whether texts are increments or snapshots."""

    APPEND = "append"
    SNAPSHOT = "snapshot"


class OnMismatchName(StrEnum):
    """Rule for a snapshot that does not continue the last one."""

    EMIT = "emit"
    HOLD = "hold"
    STITCH = "stitch"
    RESET = "reset"


RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        envvar="RIVERDELTA_REDIS_URL",
        metavar="URL",
        help="Server to use. Unset: that of the `up` that runs in this folder, "
        "else redis://localhost:6379. Other users of the machine see arguments: put a URL with a password "
        "into the variable.",
    ),
]
DataDir = Annotated[
    Path,
    typer.Option("--data-dir", metavar="DIR", help="Folder of the `up` to look for."),
]
FOLDER = DEFAULT_FOLDER
SourceOption = Annotated[
    Source,
    typer.Option(
        "--source",
        "-s",
        metavar="SOURCE",
        help=f"Encoding of the raw chunks: {', '.join(Source)}.",
    ),
]
OptionalSource = Annotated[
    Source | None,
    typer.Option(
        "--source",
        "-s",
        metavar="SOURCE",
        help=f"Encoding of the raw chunks: {', '.join(Source)}. Required, but for --anonymize.",
    ),
]
PaceMs = Annotated[
    int, typer.Option("--pace-ms", min=0, metavar="MS", help="Pause after each raw chunk.")
]
ModeOption = Annotated[
    ModeName | None,
    typer.Option(
        "--mode",
        metavar="MODE",
        help="append: texts are increments; snapshot: all text so far. Unset: default of the source.",
    ),
]
OnMismatchOption = Annotated[
    OnMismatchName,
    typer.Option(
        "--on-mismatch",
        metavar="RULE",
        help="A snapshot that does not go on from the last: emit it, hold it back, stitch the "
        "overlap, or reset.",
    ),
]
FileArgument = Annotated[
    str,
    typer.Argument(
        metavar="FILE", help="One raw chunk per line; with +sse the bytes as they are. - is stdin."
    ),
]
ChatArgument = Annotated[str, typer.Argument(metavar="CHAT", help="Id of the chat.")]
Json = Annotated[
    bool,
    typer.Option("--json", metavar="", help="For programs: print only JSON on stdout."),
]
