"""
What a `bedrock-converse` recording says, by the documented order of ConverseStream's events.

`messageStart`, then for each block `contentBlockStart` (calls only), `contentBlockDelta`s and
`contentBlockStop`, then `messageStop` and `metadata`. AWS's SDKs hand the events out and join
nothing, so they are joined here, by block index, as the documentation says.
"""

from __future__ import annotations

from typing import Any

from tests.support.core.assembled import Assembled, joined


def assemble_converse(documents: list[dict[str, Any]]) -> list[Assembled]:
    """Assemble the messages of a recording."""
    messages: list[list[dict[str, Any]]] = []
    stopped = True
    for document in documents:
        if "messageStart" in document or (stopped and "metadata" not in document):
            messages.append([])
            stopped = False
        stopped |= "messageStop" in document
        messages[-1].append(document)
    return [_message(message) for message in messages]


def _message(documents: list[dict[str, Any]]) -> Assembled:
    result = Assembled()
    blocks: dict[int, dict[str, Any]] = {}
    for document in documents:
        ((name, event),) = document.items()
        if name == "contentBlockStart":
            blocks[event["contentBlockIndex"]] = {**event["start"].get("toolUse", {}), "input": ""}
        elif name == "contentBlockDelta":
            block = blocks.setdefault(event["contentBlockIndex"], {})
            delta = event["delta"]
            if "toolUse" in delta:
                block["input"] += delta["toolUse"]["input"]
            result.text += delta.get("text", "")
            result.reasoning += delta.get("reasoningContent", {}).get("text", "")
        elif name == "messageStop":
            result.finish = event["stopReason"]
        elif name == "metadata":
            result.usage = event["usage"]
        elif name.endswith("Exception"):
            result.error = name
    result.text, result.reasoning = joined(result.text), joined(result.reasoning)
    result.tool_calls = [
        (block["toolUseId"], block["name"], joined(block["input"]))
        for block in blocks.values()
        if "toolUseId" in block
    ]
    return result
