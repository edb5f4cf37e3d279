"""A strict reader of UI message streams: what the npm package does with the parts, in few lines."""

from typing import Any

import orjson


def fold_parts(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Fold parts into a UI message; anything out of place is an error, as it is for the client."""
    message: dict[str, Any] = {"id": None, "parts": [], "end": None}
    texts: dict[str, dict[str, Any]] = {}
    calls: dict[str, dict[str, Any]] = {}
    cards: dict[str, dict[str, Any]] = {}
    for part in parts:
        type_ = part["type"]
        kind, _, what = type_.partition("-")
        assert message["end"] is None, "a part behind the end"
        assert message["id"] is not None or type_ == "start", "a part before the start"
        if type_ == "start":
            message["id"] = part["messageId"]
        elif kind in {"text", "reasoning"}:
            if what == "start":
                assert part["id"] not in texts
                texts[part["id"]] = {"type": kind, "text": "", "state": "streaming"}
                message["parts"].append(texts[part["id"]])
            elif what == "delta":
                texts[part["id"]]["text"] += part["delta"]
            else:
                texts.pop(part["id"])["state"] = "done"
        elif kind == "tool":
            _fold_call(part, calls, message)
        elif kind == "data" and not part.get("transient"):
            if part.get("id") is None or (type_ + part["id"]) not in cards:
                card = {"type": type_, "data": part["data"]}
                cards[type_ + str(part.get("id"))] = card
                message["parts"].append(card)
            else:
                cards[type_ + part["id"]]["data"] = part["data"]
        elif type_ in {"finish", "error", "abort"}:
            message["end"] = part
        else:
            assert type_ in {"start-step", "finish-step", "data-title"}, type_
    return message


def _fold_call(
    part: dict[str, Any], calls: dict[str, dict[str, Any]], message: dict[str, Any]
) -> None:
    call_id = part["toolCallId"]
    if part["type"] == "tool-input-start":
        if call_id not in calls:
            calls[call_id] = {"type": f"tool-{part['toolName']}"}
            message["parts"].append(calls[call_id])
        calls[call_id]["raw"] = ""
        return
    call = calls[call_id]  # the client fails on calls that did not start
    match part["type"]:
        case "tool-input-delta":
            call["raw"] += part["inputTextDelta"]
        case "tool-input-available":
            call["input"] = part["input"]
        case "tool-output-available":
            call["output"] = part["output"]
        case _:
            call["error"] = part["errorText"]


def parts_of(body: bytes) -> list[dict[str, Any]]:
    """Read a whole response; it must end with ``[DONE]``."""
    frames = [frame for frame in body.split(b"\n\n") if frame and not frame.startswith(b":")]
    assert frames[-1] == b"data: [DONE]"
    return [orjson.loads(frame.removeprefix(b"data: ")) for frame in frames[:-1]]
