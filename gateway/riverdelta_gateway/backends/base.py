"""What a chat backend is: a reply as raw chunks of one source, and a title."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from riverdelta_gateway.assets import Asset


class Said(NamedTuple):
    """One contribution to a chat, as a model is told of it."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """
    What a backend replies to.

    Attributes:
        prompt: What the user wrote; not blank.
        history: What was said before, oldest first.
        asset: What the prompt is about, if that was said.
    """

    prompt: str
    history: Sequence[Said] = ()
    asset: Asset | None = None


class ToolAnswer(NamedTuple):
    """Among raw chunks: what a tool that the backend has run gave back; any JSON value."""

    tool_call_id: str
    content: Any


class BackendError(Exception):
    """
    The provider refused, or broke off. The turn fails.

    Args:
        sentence: Safe for readers. What they must not see is in the error's cause, for the log.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@contextlib.contextmanager
def safe_errors(refused: type[Exception], *others: type[Exception]) -> Iterator[None]:
    """
    Turn what an SDK raises into `BackendError`.

    Args:
        refused: The provider answered with an error; it has a ``status_code``.
        others: It did not answer, broke off, or sent what cannot be read.
    """
    try:
        yield
    except refused as error:
        status = getattr(error, "status_code", "unknown")
        raise BackendError(f"The language model refused the request (status {status})") from error
    except others as error:
        raise BackendError("The language model could not be reached, or broke off") from error


class ChatBackend(Protocol):
    """
    Writes replies. One object serves all turns of a process, side by side.

    Both generators are closed when the reply is stopped, or takes too long: let go of the provider's call
    then (``async with`` around it does).

    Attributes:
        source: How the raw chunks are spelled; one of `riverdelta.SOURCES`.
    """

    @property
    def source(self) -> str:
        """How the raw chunks are spelled."""

    def reply(self, question: Question) -> AsyncGenerator[object, None]:
        """
        Give the reply: raw chunks as the source spells them, and `ToolAnswer` in between.

        Raises:
            BackendError: The provider refused, or broke off.
        """

    def title(self, question: Question) -> AsyncGenerator[str, None]:
        """
        Give a title for a chat that begins with *question*, in pieces.

        Raises:
            BackendError: As above; the chat gets its prompt's beginning as its title then.
        """

    async def aclose(self) -> None:
        """Let go of connections."""


TITLE_INSTRUCTION = (
    "Write a title of at most six words for a chat that begins with the following message. "
    "Answer with the title alone: no quotation marks, no full stop."
)
"""What language models are told before the prompt, for a title."""

TITLE_TOKENS = 32


def system_texts(prompt: str, asset: Asset | None) -> list[str]:
    """Say what a model is told first: *prompt*, if any, and the asset that the user's is about."""
    texts = [prompt] if prompt else []
    if asset is not None:
        texts.append(f"The user has opened the {asset.type} {asset.name!r}:\n\n{asset.yml_content}")
    return texts
