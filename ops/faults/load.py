"""
What the harness pushes: replies of several kinds, drawn from a seed. Pure.

Every piece of text carries a mark of its own (``⟦7⟧``), so that the oracle can say of a wrong text
whether something was lost, repeated or reordered.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

_WORDS: Final = (
    "river", "delta", "naïve", "e\u0301te\u0301", "🙂", "👩\u200d👩\u200d👧", "n\u0303", "🇨🇭", "ﬁn",
    "\U0001d518\U0001d52b\U0001d526", "日本語", "\u202b\u0645\u0631\u062d\u0628\u0627\u202c", "Ω≈ç√",
    "a\nb", '"quoted"', "back\\slash", "\t",
)  # fmt: skip
_MESSAGES_PER_CHAT: Final = (5, 9)
_HURRIED: Final = 0.03
"""Share of pushes that are given so little time that they may be cancelled in mid-flight."""
_THINKING: Final = 0.15
"""Share of messages with a pause longer than a lease in the middle."""
_STOPPED: Final = 0.05


@dataclass(frozen=True, slots=True)
class Item:
    """
    One push.

    Attributes:
        kind: ``chunk``, ``bytes`` (base64 of them), ``tool_result`` ({tool_call_id, content}) or
            ``annotate`` ({name, data}).
        data: A JSON value.
        pause_s: Waited before it.
        hurried: Cancelled when it takes longer than a moment; whether it is stored is then in doubt.
    """

    kind: str
    data: Any
    pause_s: float
    hurried: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """
    One message to be pushed.

    Attributes:
        stop_after: A reader asks for its end once so many items are stored; None: no reader does.
        last: No further message comes for its chat.
    """

    chat: str
    message: str
    source: str
    items: tuple[Item, ...]
    stop_after: int | None = None
    last: bool = False

    def as_json(self) -> dict[str, Any]:
        """Encode it for another process."""
        return asdict(self)

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Self:
        """Undo `as_json`."""
        return cls(**fields | {"items": tuple(Item(**item) for item in fields["items"])})


def plans(seed: str, *, open_chats: int) -> Iterator[Plan]:
    """
    Draw messages for ever.

    Args:
        seed: The same gives the same.
        open_chats: Chats that messages come for at a time; one that has had its share is replaced.
    """
    rng = random.Random(f"{seed}/load")
    made = 0
    chats: list[list[Any]] = []  # [name, messages to come]
    number = 0
    while True:
        while len(chats) < open_chats:
            chats.append([f"c{made}", rng.randint(*_MESSAGES_PER_CHAT)])
            made += 1
        chat = rng.choice(chats)
        chat[1] -= 1
        if not chat[1]:
            chats.remove(chat)
        yield _plan(rng, chat[0], f"m{number}", last=not chat[1])
        number += 1


def _plan(rng: random.Random, chat: str, message: str, *, last: bool) -> Plan:
    source = rng.choice(("text", "bytes", "text-snapshot", "openai-chat", "chunks"))
    pushes = _ENCODED[source](rng, rng.randint(8, 30))
    for at in sorted(rng.sample(range(len(pushes)), k=rng.randint(0, 2)), reverse=True):
        pushes.insert(at, ("annotate", {"name": f"note-{at}", "data": {"words": _words(rng)}}))
    pace_s = rng.uniform(0.03, 0.2)
    pauses = [rng.uniform(0.2, 1.8) * pace_s for _ in pushes]
    if rng.random() < _THINKING:
        pauses[rng.randrange(len(pauses))] = rng.uniform(2.3, 3.5)
    items = tuple(
        Item(kind, data, pause_s, rng.random() < _HURRIED)
        for (kind, data), pause_s in zip(pushes, pauses, strict=True)
    )
    stop = rng.randrange(len(items)) if rng.random() < _STOPPED else None
    return Plan(chat, message, "text" if source == "bytes" else source, items, stop, last)


Push = tuple[str, Any]


def _text(rng: random.Random, count: int) -> list[Push]:
    return [("chunk", _piece(rng, number)) for number in range(count)]


def _bytes(rng: random.Random, count: int) -> list[Push]:
    """The same, cut anywhere: inside characters, too."""
    whole = "".join(_piece(rng, number) for number in range(count)).encode()
    cuts = sorted(rng.sample(range(1, len(whole)), count - 1))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    return [("bytes", base64.b64encode(part).decode()) for part in parts]


def _snapshots(rng: random.Random, count: int) -> list[Push]:
    text, pushes = "", []
    for number in range(count):
        text += _piece(rng, number)
        pushes.append(("chunk", text))
    return pushes


def _openai(rng: random.Random, count: int) -> list[Push]:
    """Two steps: text and a call of a tool, its result, text again."""
    half = count // 2
    pushes: list[Push] = [_choice({"role": "assistant", "content": ""})]
    pushes += [_choice({"content": _piece(rng, number)}) for number in range(half)]
    call: dict[str, Any] = {"index": 0, "id": "call-1", "type": "function"}
    call["function"] = {"name": "look_up", "arguments": '{"query": "'}
    pushes.append(_choice({"tool_calls": [call]}))
    for number in range(half, half + 3):
        piece = _piece(rng, number).replace("\\", "").replace('"', "").replace("\n", " ")
        arguments = {"arguments": piece.replace("\t", " ")}
        pushes.append(_choice({"tool_calls": [{"index": 0, "function": arguments}]}))
    pushes.append(_choice({"tool_calls": [{"index": 0, "function": {"arguments": '"}'}}]}))
    pushes.append(_choice({}, "tool_calls"))
    pushes.append(("tool_result", {"tool_call_id": "call-1", "content": _words(rng)}))
    pushes.append(_choice({"role": "assistant", "content": ""}))
    pushes += [_choice({"content": _piece(rng, number)}) for number in range(half + 3, count + 3)]
    pushes.append(_choice({}, "stop"))
    return pushes


def _choice(delta: dict[str, Any], finish: str | None = None) -> Push:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return "chunk", {"object": "chat.completion.chunk", "model": "gpt-fault", "choices": [choice]}


def _direct(rng: random.Random, count: int) -> list[Push]:
    """A text and a reasoning block, interleaved."""
    pushes: list[Push] = []
    for number in range(count):
        key, kind = rng.choice((("thoughts", "reasoning"), ("reply", "text")))
        pushes.append(("chunk", {"chunk": key, "kind": kind, "text": _piece(rng, number)}))
    return pushes


_ENCODED: Final = {
    "text": _text,
    "bytes": _bytes,
    "text-snapshot": _snapshots,
    "openai-chat": _openai,
    "chunks": _direct,
}


def _piece(rng: random.Random, number: int) -> str:
    return f"⟦{number}⟧ {_words(rng)} "


def _words(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(1, 5)))
