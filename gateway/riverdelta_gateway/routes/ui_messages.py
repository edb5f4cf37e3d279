"""
A chat as UIMessages, as the AI SDK keeps them. Pure.

A reply is the fold of its stream's own parts, so a page that loads the chat has what a page that followed
the stream has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.posting.failures import safe_failure
from riverdelta_gateway.routes.ai_sdk import UIMessageStream
from riverdelta_gateway.routes.ai_sdk_chunks import Part
from riverdelta_gateway.turn import turn_of

UIMessage = dict[str, Any]


def ui_messages(messages: Sequence[SnapshotMessage]) -> list[UIMessage]:
    """Make the UIMessages of a chat: of each turn its prompt, then its reply."""
    made = []
    for message in messages:
        turn = turn_of(message["metadata"])
        if turn is not None and turn.get("prompt"):
            prompt = {"type": "text", "text": turn["prompt"]}
            id_ = turn.get("prompt_id") or f"{message['message']}:prompt"
            made.append({"id": id_, "role": "user", "parts": [prompt]})
        made.append(_reply(message))
    return made


def _reply(message: SnapshotMessage) -> UIMessage:
    """Make one message; metadata say why a reply is not whole."""
    parts = UIMessageStream(message["message"]).catch_up([message])
    reply: UIMessage = {
        "id": message["message"],
        "role": "user" if message["role"] == "user" else "assistant",
        "parts": fold(parts),
    }
    if message["status"] in {"failed", "stopped"}:
        error = message["error"]
        reply["metadata"] = {
            "status": message["status"],
            "error": None if error is None else safe_failure(error, message["message"]),
        }
    return reply


def fold(parts: Iterable[Part]) -> list[Part]:
    """Fold the parts of a stream into the parts of its UIMessage, as the npm package ``ai`` does."""
    folded: list[Part] = []
    open_: dict[str, Part] = {}
    """By kind and id: parts that later ones change."""
    for part in parts:
        type_ = part["type"]
        kind, _, what = type_.partition("-")
        if type_ == "start-step":
            folded.append({"type": "step-start"})
        elif kind in {"text", "reasoning"}:
            _fold_text(part, kind, what, folded, open_)
        elif kind == "tool":
            _fold_call(part, folded, open_)
        elif kind == "data" and not part.get("transient"):
            key = f"{type_}:{part.get('id')}"
            if "id" in part and key in open_:
                open_[key]["data"] = part["data"]
            else:
                open_[key] = dict(part)
                folded.append(open_[key])
    return folded


def _fold_text(
    part: Part, kind: str, what: str, folded: list[Part], open_: dict[str, Part]
) -> None:
    key = f"{kind}:{part['id']}"
    if what == "start":
        open_[key] = {"type": kind, "text": "", "state": "streaming"}
        folded.append(open_[key])
    elif what == "delta":
        open_[key]["text"] += part["delta"]
    else:
        open_.pop(key)["state"] = "done"


def _fold_call(part: Part, folded: list[Part], open_: dict[str, Part]) -> None:
    call_id = part["toolCallId"]
    key = f"tool:{call_id}"
    if key not in open_:
        open_[key] = {"type": f"tool-{part['toolName']}", "toolCallId": call_id}
        folded.append(open_[key])
    call = open_[key]
    match part["type"]:
        case "tool-input-start":
            call["state"] = "input-streaming"
        case "tool-input-available":
            call.update(state="input-available", input=part["input"])
        case "tool-output-available":
            call.update(state="output-available", output=part["output"])
        case "tool-input-error" | "tool-output-error":
            call.update(state="output-error", errorText=part["errorText"])
            if "input" in part:
                call["rawInput"] = part["input"]
