"""The interface of a chat backend: replies as raw chunks of one source, and titles."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from riverdelta_gateway.assets import Asset


class Said(NamedTuple):
    """One contribution to a chat, as a model gets it."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """
    A prompt with its context.

    Attributes:
        prompt: The user's text; not blank.
        history: Earlier contributions to the chat, oldest first.
        asset: The asset that the prompt is about, if any.
    """

    prompt: str
    history: Sequence[Said] = ()
    asset: Asset | None = None


class ToolAnswer(NamedTuple):
    """Among raw chunks: the result of a tool that the backend ran; any JSON value."""

    tool_call_id: str
    content: Any


class BackendError(Exception):
    """
    The provider refused, or broke off: the turn fails.

    Args:
        sentence: Safe for readers. The error's cause has the rest, for the log.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


@contextlib.contextmanager
def safe_errors(refused: type[Exception], *others: type[Exception]) -> Iterator[None]:
    """
    Turn an SDK's errors into `BackendError`.

    Args:
        refused: Error with a ``status_code`` or ``code``: the provider answered with an error.
        others: Errors without an answer: no connection, a broken stream, data that cannot be read.
    """
    try:
        yield
    except refused as error:
        status = getattr(error, "status_code", None) or getattr(error, "code", "unknown")
        raise BackendError(f"The language model refused the request (status {status})") from error
    except others as error:
        raise BackendError("The language model could not be reached, or broke off") from error


class ChatBackend(Protocol):
    """
    Writes replies. One object serves all turns of a process, at the same time.

    Both generators are closed when the reply is stopped or takes too long: end the provider's call then
    (``async with`` around it does).

    Attributes:
        source: Encoding of the raw chunks; one of `riverdelta.SOURCES`.
    """

    @property
    def source(self) -> str:
        """Encoding of the raw chunks."""

    def reply(self, question: Question) -> AsyncGenerator[object, None]:
        """
        Stream the reply: raw chunks of the source, and `ToolAnswer` between them.

        Raises:
            BackendError: The provider refused, or broke off.
        """

    def title(self, question: Question) -> AsyncGenerator[str, None]:
        """
        Stream a title for a chat that begins with *question*.

        Raises:
            BackendError: As above; the beginning of the prompt becomes the title.
        """

    async def aclose(self) -> None:
        """Close the connections."""


TITLE_INSTRUCTION = (
    "Write a title of at most six words for a chat that begins with the following message. "
    "Answer with the title alone: no quotation marks, no full stop."
)
"""Instruction to a language model before the prompt, for a title."""

TITLE_TOKENS = 32


def may_call_again(backend: ChatBackend) -> bool:
    """
    Whether another process may make a reply's call once more, if nothing of the reply was sent to readers.

    A backend whose calls have effects (it books a flight) sets ``may_call_again = False``.
    """
    return bool(getattr(backend, "may_call_again", True))


def system_texts(prompt: str, asset: Asset | None) -> list[str]:
    """List the first instructions to a model: *prompt*, if any, and the asset, if any."""
    texts = [prompt] if prompt else []
    if asset is not None:
        texts.append(f"The user has opened the {asset.type} {asset.name!r}:\n\n{asset.yml_content}")
    return texts
