"""What `riverdelta` shows its users: exactly these names, and no type of the broker's inside."""

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import riverdelta
from riverdelta import Producer

ERROR = {"retry"}

SURFACE: dict[str, set[str]] = {
    "BackpressureError": ERROR,
    "BrokerUnavailable": ERROR,
    "ChatView": {"apply", "message", "messages", "text"},
    "ChunkText": {
        *("card_id", "chunk_id", "tool_call_id", "tool_name", "delta", "patches", "done"),
        *("complete", "complete_text", "read_text", "value"),
    },
    "ChunkTooLarge": ERROR,
    "ChunkTracker": {"add", "add_chunk", "clear_chunk", "get_complete_text"},
    "EndedMessage": {"about", "attempt", "chat_id", "end", "message", "message_id", "status"},
    "Event": {
        *("chat", "chunk", "data", "ends_message", "epoch", "message", "position", "raw", "seq"),
        *("ts", "type"),
    },
    "FormatTooNew": ERROR,
    "InvalidIdError": ERROR,
    "InvalidPositionError": ERROR,
    "JsonStream": {"close", "complete", "feed", "value"},
    "JsonStreamError": {*ERROR, "offset", "patches", "reason"},
    "Message": {
        *("id", "chat_id", "user", "is_ended"),
        *("push", "push_many", "push_tool_result", "annotate", "restart", "end", "fail", "check"),
        "release",
    },
    "MessageEnded": ERROR,
    "MessageExists": ERROR,
    "MessageLost": ERROR,
    "NotChatOwner": ERROR,
    "NotReplicated": ERROR,
    "Observer": {"name", "on_chunk", "on_complete", "on_error", "on_first_bytes"},
    "Patch": {"op", "path", "value"},
    "Pipeline": {
        *(
            "codec",
            "cut_all",
            "failure_texts",
            "observers",
            "on_processor_failure",
            "processors",
            "splitter",
        ),
        *("stream_filter", "version", "with_filter"),
    },
    "Processor": {"can_process", "process"},
    "ProcessorRegistry": {"for_chunk", "register", "type_for"},
    "Producer": {"id", "from_url", "adopt", "message"},
    "RiverdeltaError": ERROR,
    "ServerTooOld": ERROR,
    # Its fields are tested with the documents; the second is a hook of pydantic-settings.
    "Settings": {"effective_queue_url", "settings_customise_sources"},
    "SettingsError": ERROR,
    "Stopped": ERROR,
    "StreamFilter": {"bound", "dump", "feed", "finish", "held", "load"},
    "StreamingParser": {
        *("register_processor", "process_chunk", "process_chunk_with_tracking"),
        *("get_complete_text", "get_failure", "clear_chunk"),
    },
    "Subscriber": {"from_url", "events", "snapshot", "stop"},
    "TextFilter": {"bound", "dump", "feed", "finish", "held", "load"},
}
"""Each class with every public attribute and method; those of Python's own bases left out."""

FUNCTIONS = {"apply_patches", "builtin_processors", "reduce_output", "truncate_message"}
CONSTANTS = {"SOURCES"}

MADE_BY_US = {"Message": "Producer.message"}
"""Classes that users do not construct, and where they get them: their __init__ may take our types."""

CLASSES = sorted(SURFACE)


def ours(cls: type) -> list[type]:
    return [base for base in cls.__mro__ if base.__module__.split(".")[0] == "riverdelta"]


def set_in_init(cls: type) -> Iterator[str]:
    """Names that the __init__ of *cls* sets on the instance."""
    if "__init__" not in vars(cls) or dataclasses.is_dataclass(cls):
        return
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls.__init__)))  # type: ignore[misc]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def shown(cls: type) -> set[str]:
    """Every public attribute and method of *cls* that is not inherited from elsewhere."""
    names: set[str] = set()
    for base in ours(cls):
        names |= {*vars(base), *set_in_init(base)}
        if dataclasses.is_dataclass(base):
            names |= {field.name for field in dataclasses.fields(base)}
    names -= set(getattr(cls, "model_fields", {})) | {"model_config"}
    return {name for name in names if not name.startswith("_")}


def functions_of(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public methods, properties and hand-written constructors of *cls*."""
    for base in ours(cls):
        for name, value in vars(base).items():
            function = value.fget if isinstance(value, property) else value
            function = getattr(function, "__func__", function)
            constructor = name == "__init__" and not dataclasses.is_dataclass(base)
            if inspect.isfunction(function) and (constructor or not name.startswith("_")):
                yield name, function


def types_in(annotation: Any) -> Iterator[type]:
    """Every class that an annotation mentions."""
    for part in (annotation, typing.get_origin(annotation)):
        if inspect.isclass(part):
            yield part
    for argument in typing.get_args(annotation):
        for part in argument if isinstance(argument, list) else [argument]:
            yield from types_in(part)


def private_types(function: Callable[..., Any]) -> set[str]:
    """Types in a signature that users cannot import from `riverdelta`, and should not meet."""
    public = {id(getattr(riverdelta, name)) for name in riverdelta.__all__}
    return {
        f"{found.__module__}.{found.__qualname__}"
        for annotation in typing.get_type_hints(function).values()
        for found in types_in(annotation)
        if id(found) not in public
        and (found.__module__.startswith("riverdelta.broker") or found.__name__.startswith("_"))
    }


def test_the_public_names_are_these() -> None:
    assert set(riverdelta.__all__) == {*SURFACE, *FUNCTIONS, *CONSTANTS}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_shows_what_users_call_and_nothing_else(name: str) -> None:
    assert shown(getattr(riverdelta, name)) == SURFACE[name]


@pytest.mark.parametrize("name", CLASSES)
def test_no_signature_of_a_class_mentions_a_private_type(name: str) -> None:
    found = {
        method: types
        for method, function in functions_of(getattr(riverdelta, name))
        if (types := private_types(function)) and not (method == "__init__" and name in MADE_BY_US)
    }
    assert found == {}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_no_signature_of_a_function_mentions_a_private_type(name: str) -> None:
    assert private_types(getattr(riverdelta, name)) == set()


# -- the checks see a breach ---------------------------------------------------------------------


class _Inside:
    """Not for users."""


def test_a_method_or_attribute_that_is_added_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Producer, "internals", lambda _: None, raising=False)
    assert shown(Producer) - SURFACE["Producer"] == {"internals"}
    monkeypatch.undo()

    class Wider(Producer):
        def __init__(self) -> None:
            self.client = None

    Wider.__module__ = "riverdelta.planted"
    assert shown(Wider) - SURFACE["Producer"] == {"client"}


def test_a_private_type_in_a_signature_is_seen() -> None:
    def takes(inside: list[_Inside] | None, plain: int) -> None:
        """Mention it in the arguments."""

    def gives() -> Callable[[_Inside], int]:
        raise NotImplementedError

    assert private_types(takes) == private_types(gives) == {f"{__name__}._Inside"}
    init = riverdelta.Message.__init__
    assert private_types(init) == {"riverdelta.broker.producer.delivery.Delivery"}
