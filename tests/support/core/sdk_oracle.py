"""
What the providers' own SDKs assemble from a recording: the truth our codecs are held to.

    for theirs, ours in zip(assemble(source, lines), mine, strict=True):
        assert differences(ours, theirs) == []

What the SDKs cannot do, and what is taken instead:

- All: half a surrogate pair in each of two deltas stays two code points in a Python string. The
  oracle joins pairs, and a lone half becomes U+FFFD, as UTF-8 cannot encode it.
- openai, chat: `ChatCompletionStreamState` takes one completion, so the recording is split where
  a chunk with choices has another id. An `error` object makes its `Stream` raise; here it ends
  the response and is noted. `reasoning_content` and `reasoning` are not in its types; it adds them
  up as it does content.
- openai, responses: `ResponseStreamState` checks the events, and gives the response of
  `response.completed`; the other ends carry theirs. A response without an end is its snapshot.
- anthropic: `accumulate_event` is what its streams use. It ignores a second `message_start`, as its
  callers never send one; so a duplicate with the same id is fed to it and changes nothing. It raises
  for tool input that is not JSON: then the pieces of `partial_json` in a row are the arguments.
  Its `Stream` drops pings and unknown events and raises for `error`; so they are left out here, and
  an error ends the response and is noted. Its union of deltas has no unknown ones: left out too.
- gemini, bedrock-converse: see `genai_oracle` and `converse_oracle`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from anthropic.lib.streaming._messages import accumulate_event
from openai import omit
from openai._models import construct_type_unchecked
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent

from tests.support.core.assembled import Assembled, joined
from tests.support.core.converse_oracle import assemble_converse
from tests.support.core.genai_oracle import assemble_gemini

SOURCES = ("openai-chat", "openai-responses", "anthropic", "gemini", "bedrock-converse")


def assemble(source: str, lines: Iterable[bytes]) -> list[Assembled]:
    """
    Assemble a recording with the SDK of its provider, one result per response.

    Args:
        source: One of `SOURCES`.
        lines: The raw chunks, one JSON object each; blank ones are passed over.

    Raises:
        ValueError: No SDK for this source.
    """
    documents = [json.loads(line) for line in lines if line.strip()]
    if source == "openai-chat":
        return [_chat(response) for response in _split_chat(documents)]
    if source == "openai-responses":
        return [_responses(response) for response in _split(documents, "response.created")]
    if source == "anthropic":
        return [_anthropic(response) for response in _split(documents, "message_start")]
    if source == "gemini":
        return assemble_gemini(documents)
    if source == "bedrock-converse":
        return assemble_converse(documents)
    raise ValueError(f"no SDK assembles {source!r}")


def _split(documents: list[dict[str, Any]], first: str) -> list[list[dict[str, Any]]]:
    """Split where a response begins, unless it is the same one said twice."""
    responses: list[list[dict[str, Any]]] = []
    last_id = None
    for document in documents:
        if document["type"] == first:
            begun = document.get("response") or document.get("message") or {}
            if begun.get("id") != last_id:
                last_id = begun.get("id")
                responses.append([])
        if responses:
            responses[-1].append(document)
    return responses


def _split_chat(documents: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    responses: list[list[dict[str, Any]]] = []
    last_id = None
    for document in documents:
        if document.get("choices") and document["id"] != last_id:
            last_id = document["id"]
            responses.append([])
        if responses:
            responses[-1].append(document)
    return responses


def _chat(documents: list[dict[str, Any]]) -> Assembled:
    state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
    error = None
    for document in documents:
        if document.get("error"):
            error = document["error"].get("code") or document["error"].get("type")
            break
        state.handle_chunk(ChatCompletionChunk.construct(**document))
    completion = cast("dict[str, Any]", state.current_completion_snapshot.to_dict())
    choice = completion["choices"][0]
    message = choice["message"]
    return Assembled(
        text=joined(message.get("content") or ""),
        reasoning=joined(message.get("reasoning_content") or message.get("reasoning") or ""),
        refusal=joined(message.get("refusal") or ""),
        tool_calls=[
            (call["id"], call["function"]["name"], joined(call["function"]["arguments"]))
            for call in message.get("tool_calls") or []
        ],
        usage=completion.get("usage"),
        finish=choice.get("finish_reason"),
        error=error,
    )


def _responses(documents: list[dict[str, Any]]) -> Assembled:
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    final: Response | None = None
    error = None
    for document in documents:
        event: Any = construct_type_unchecked(
            type_=cast("type[ResponseStreamEvent]", ResponseStreamEvent), value=document
        )
        state.handle_event(event)
        if document["type"] in ("response.failed", "response.incomplete"):
            final = event.response
        if document["type"] == "error":
            error = (document.get("error") or document)["code"]
    final = state._completed_response or final
    response: Any = (final or state._ResponseStreamState__current_snapshot).to_dict(warnings=False)  # type: ignore[attr-defined]
    result = Assembled(error=error or (response.get("error") or {}).get("code"))
    output = response["output"]
    if (
        result.error is not None
    ):  # the response that failed has no output: the deltas are all there is
        output = state._ResponseStreamState__current_snapshot.to_dict(warnings=False)["output"]  # type: ignore[attr-defined]
    for item in output:
        _response_item(item, result)
    if final is not None:
        result.usage = response.get("usage")
        reason = (response.get("incomplete_details") or {}).get("reason")
        result.finish = reason or response["status"]
    return result


def _response_item(item: dict[str, Any], result: Assembled) -> None:
    kind = item["type"]
    if kind == "message":
        for part in item["content"]:
            result.text += joined(part.get("text") or "")
            result.refusal += joined(part.get("refusal") or "")
    elif kind == "reasoning":
        for parts in (item.get("summary") or [], item.get("content") or []):
            result.reasoning += joined("\n\n".join(part["text"] for part in parts))
    elif kind in _ARGUMENTS:
        name, field_ = _ARGUMENTS[kind]
        value = item[field_] if field_ is not None else {"code": item["code"]}
        if kind == "file_search_call":
            value = {"queries": value}
        arguments = joined(value if isinstance(value, str) else json.dumps(value))
        call_id = item.get("call_id") or item["id"]
        result.tool_calls.append((call_id, name or item["name"], arguments))


_ARGUMENTS: dict[str, tuple[str | None, str | None]] = {
    "function_call": (None, "arguments"),
    "mcp_call": (None, "arguments"),
    "custom_tool_call": (None, "input"),
    "code_interpreter_call": ("code_interpreter", "code"),
    "apply_patch_call": ("apply_patch", "operation"),
    "shell_call": ("shell", "action"),
    "web_search_call": ("web_search", "action"),
    "file_search_call": ("file_search", "queries"),
    "program": ("program", None),
}
"""Type of an item → tool name (None: it says it) and the field with its arguments."""


_ANTHROPIC_EVENTS = frozenset(
    {
        "message_start",
        "message_delta",
        "message_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
    }
)
_ANTHROPIC_DELTAS = frozenset(
    {"text_delta", "input_json_delta", "citations_delta", "thinking_delta", "signature_delta"}
)


def _anthropic(documents: list[dict[str, Any]]) -> Assembled:
    message: Any = None
    buffers: dict[int, bytes] = {}
    encoded: dict[int, str] = {}
    broken: set[int] = set()
    for document in filter(_is_known, documents):
        delta = document.get("delta") or {}
        if delta.get("type") == "input_json_delta":
            index = document["index"]
            encoded[index] = encoded.get(index, "") + delta["partial_json"]
        try:
            message = accumulate_event(
                event=cast("Any", document), current_snapshot=message, json_bufs=buffers
            )
        except ValueError:
            broken.add(document["index"])
    errors = [document["error"]["type"] for document in documents if document["type"] == "error"]
    details = getattr(message, "stop_details", None)
    result = Assembled(
        refusal=getattr(details, "explanation", None) or "",
        usage=message.usage.to_dict(),
        finish=message.stop_reason,
        error=errors[0] if errors else None,
    )
    for index, block in enumerate(message.content):
        _anthropic_block(block, encoded[index] if index in broken else None, result)
    return result


def _is_known(event: dict[str, Any]) -> bool:
    if event["type"] == "content_block_delta":
        return event["delta"]["type"] in _ANTHROPIC_DELTAS
    return event["type"] in _ANTHROPIC_EVENTS


def _anthropic_block(block: Any, no_json: str | None, result: Assembled) -> None:
    """Add a block; *no_json*: its input, if that is not JSON."""
    if block.type == "text":
        result.text += joined(block.text)
    elif block.type == "thinking":
        result.reasoning += joined(block.thinking)
    elif block.type.endswith("tool_use"):
        arguments = json.dumps(block.input) if no_json is None else no_json
        result.tool_calls.append((block.id, block.name, joined(arguments)))
