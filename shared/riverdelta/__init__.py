"""Redis streams in, deltas out: raw LLM chunks become numbered, replayable deltas of a chat."""

from riverdelta.broker.producer.message import Message
from riverdelta.broker.producer.producer import Producer
from riverdelta.broker.reader.subscriber import Subscriber
from riverdelta.broker.settings import Settings
from riverdelta.cards import builtin_processors
from riverdelta.core.codecs import SOURCES
from riverdelta.core.errors import (
    BackpressureError,
    BrokerUnavailable,
    ChunkTooLarge,
    FormatTooNew,
    InvalidIdError,
    InvalidPositionError,
    MessageEnded,
    MessageExists,
    MessageLost,
    NotChatOwner,
    NotReplicated,
    RiverdeltaError,
    ServerTooOld,
    SettingsError,
    Stopped,
)
from riverdelta.core.events import Event
from riverdelta.core.filters import StreamFilter, TextFilter
from riverdelta.core.json_stream import JsonStream, JsonStreamError, Patch, apply_patches
from riverdelta.core.observers import EndedMessage, Observer
from riverdelta.core.outputs import reduce_output
from riverdelta.core.processors import ChunkText, Processor, ProcessorRegistry
from riverdelta.core.text import truncate_message
from riverdelta.core.tracker import ChunkTracker
from riverdelta.core.view import ChatView
from riverdelta.pipeline import Pipeline
from riverdelta.streaming_parser import StreamingParser

__all__ = [
    "SOURCES",
    "BackpressureError",
    "BrokerUnavailable",
    "ChatView",
    "ChunkText",
    "ChunkTooLarge",
    "ChunkTracker",
    "EndedMessage",
    "Event",
    "FormatTooNew",
    "InvalidIdError",
    "InvalidPositionError",
    "JsonStream",
    "JsonStreamError",
    "Message",
    "MessageEnded",
    "MessageExists",
    "MessageLost",
    "NotChatOwner",
    "NotReplicated",
    "Observer",
    "Patch",
    "Pipeline",
    "Processor",
    "ProcessorRegistry",
    "Producer",
    "RiverdeltaError",
    "ServerTooOld",
    "Settings",
    "SettingsError",
    "Stopped",
    "StreamFilter",
    "StreamingParser",
    "Subscriber",
    "TextFilter",
    "apply_patches",
    "builtin_processors",
    "reduce_output",
    "truncate_message",
]
