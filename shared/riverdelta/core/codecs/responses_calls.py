"""
The call-like items of the Responses API, as tool calls.

| item | tool name | arguments |
|---|---|---|
| function_call, mcp_call | its name | its `arguments` (JSON), as they stream |
| custom_tool_call | its name | its `input` (text), as it streams |
| code_interpreter_call | code_interpreter | its `code` (text), as it streams |
| apply_patch_call | apply_patch | its `operation`, encoded by us around the diff that streams |
| shell_call | shell | its `action`, encoded by us around the commands that stream |
| computer_call | computer | object of `action`, `actions`, `pending_safety_checks` |
| web_search_call, local_shell_call | web_search, local_shell | its `action` |
| file_search_call | file_search | object of `queries` |
| program | program | object of `code` |
| tool_search_call | tool_search | its `arguments` |
| image_generation_call | image_generation | all but the image |
| mcp_approval_request | its name | its `arguments` |
| any other `…_call` | without `_call` | all but ids, status and results |

The last eight come at once, when the item is done. The call's id is `call_id`, else the item's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from riverdelta.core.codecs.delivered import Sent
from riverdelta.core.codecs.json_text import encode, encode_inside
from riverdelta.core.codecs.pieces import Format
from riverdelta.core.codecs.texts import id_or_none, text_or_empty, text_or_none


class Streamed(NamedTuple):
    """An item whose arguments come as deltas."""

    field: str
    """Where the finished item has them."""
    format: Format
    name: str | None
    """The tool's name; None: the item says it."""


STREAMED: Mapping[str, Streamed] = {
    "function_call": Streamed("arguments", "json", None),
    "mcp_call": Streamed("arguments", "json", None),
    "custom_tool_call": Streamed("input", "text", None),
    "code_interpreter_call": Streamed("code", "text", "code_interpreter"),
    "apply_patch_call": Streamed("operation", "json", "apply_patch"),
    "shell_call": Streamed("action", "json", "shell"),
}

RUN_BY_CLIENT = frozenset(
    {
        "function_call",
        "custom_tool_call",
        "apply_patch_call",
        "shell_call",
        "local_shell_call",
        "computer_call",
    }
)
"""A response that ends with one of these waits for its result: finish reason `tool_calls`."""

_VALUE_OF = {
    "web_search_call": "action",
    "local_shell_call": "action",
    "tool_search_call": "arguments",
}
_OBJECT_OF = {
    "computer_call": ("action", "actions", "pending_safety_checks"),
    "file_search_call": ("queries",),
    "program": ("code",),
}
_NOT_ARGUMENTS = frozenset(
    {"id", "type", "status", "call_id", "result", "results", "output", "outputs", "error"}
)


class CallItem:
    """A call that is being streamed."""

    __slots__ = ("begun", "commands", "in_command", "kind", "name", "prefix")

    def __init__(self, kind: str, name: str | None) -> None:
        self.kind = kind
        self.name = name
        self.prefix = ""
        """apply_patch: the document up to its diff, as long as it has not gone out."""
        self.begun = False
        """apply_patch, shell: part of the document has gone out."""
        self.commands = 0
        """shell: commands that began."""
        self.in_command = False
        """shell: the last command's string is still open."""

    def dump(self) -> list[Any]:
        """Encode it as JSON values, in the order `load` takes them."""
        return [
            self.kind, self.name, self.prefix, self.begun, self.commands, self.in_command
        ]  # fmt: skip

    @classmethod
    def load(cls, state: list[Any]) -> CallItem:
        """Undo `dump`."""
        item = cls(state[0], state[1])
        item.prefix, item.begun, item.commands, item.in_command = state[2:]
        return item


def tool_name(item: dict[str, Any]) -> str | None:
    """Name the tool that *item* calls."""
    kind = text_or_empty(item.get("type"))
    streamed = STREAMED.get(kind)
    if streamed is not None:
        return streamed.name or text_or_none(item.get("name"))
    return text_or_none(item.get("name")) or kind.removesuffix("_call")


def call_id(item: dict[str, Any]) -> str | None:
    """Give the id that the call's result will refer to."""
    return id_or_none(item.get("call_id")) or id_or_none(item.get("id"))


def is_call(kind: str) -> bool:
    """Tell whether items of this type call a tool."""
    return kind.endswith("_call") or kind in ("program", "mcp_approval_request")


def whole_arguments(item: dict[str, Any]) -> str:
    """Encode the arguments of a call that came all at once."""
    kind = text_or_empty(item.get("type"))
    if kind == "mcp_approval_request":
        return text_or_empty(item.get("arguments"))
    if kind in _VALUE_OF:
        return encode(item.get(_VALUE_OF[kind]))
    if kind in _OBJECT_OF:
        return encode({name: item[name] for name in _OBJECT_OF[kind] if name in item})
    return encode({name: value for name, value in item.items() if name not in _NOT_ARGUMENTS})


def begin_patch(call: CallItem, operation: Any) -> None:
    """Prepare an apply_patch call, if all that stands before its diff is known already."""
    if type(operation) is not dict:
        return
    kind, path = text_or_none(operation.get("type")), text_or_none(operation.get("path"))
    if kind and path:
        call.prefix = f'{{"type":{encode(kind)},"path":{encode(path)},"diff":"'


def patch_text(call: CallItem, delta: str) -> str:
    """Encode the next part of the diff, with everything before it if this is the first."""
    prefix, call.prefix, call.begun = call.prefix, "", True
    return prefix + encode_inside(delta)


def end_patch(call: CallItem, operation: Any, track: str, sent: Sent) -> str:
    """Encode the rest of an operation that is complete now."""
    operation = operation if type(operation) is dict else {}
    if not call.begun:
        return encode(operation)
    rest = encode_inside(sent.rest(track, text_or_empty(operation.get("diff"))))
    return f'{rest}"{_members(operation, ("type", "path", "diff"))}}}'


def command_text(call: CallItem, index: int, delta: str) -> str:
    """Encode the next part of a shell command; only the newest one can grow."""
    if index == call.commands:
        opening = ('"' if call.in_command else "") + (',"' if index else '{"commands":["')
        call.begun = call.in_command = True
        call.commands += 1
        return opening + encode_inside(delta)
    if index == call.commands - 1 and call.in_command:
        return encode_inside(delta)
    return ""


def end_command(call: CallItem, index: int) -> str:
    """Close a command's string, if it is the open one."""
    if index != call.commands - 1 or not call.in_command:
        return ""
    call.in_command = False
    return '"'


def end_shell(call: CallItem, action: Any, track: str, sent: Sent) -> str:
    """Encode the rest of an action that is complete now."""
    action = action if type(action) is dict else {}
    if not call.begun:
        return encode(action)
    commands = action.get("commands")
    commands = commands if type(commands) is list else []
    parts = []
    if call.in_command:
        last = call.commands - 1
        full = text_or_empty(commands[last]) if last < len(commands) else ""
        parts += [encode_inside(sent.rest(f"{track}:{last}", full)), '"']
    parts += [f",{encode(command)}" for command in commands[call.commands :]]
    return f"{''.join(parts)}]{_members(action, ('commands',))}}}"


def _members(value: dict[str, Any], but: tuple[str, ...]) -> str:
    """Encode the members of an object that follow others."""
    return "".join(
        f",{encode(key)}:{encode(item)}" for key, item in value.items() if key not in but
    )
