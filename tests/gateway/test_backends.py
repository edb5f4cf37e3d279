"""The backends against a local server that replays recordings, with the providers' own SDKs between."""

import contextlib
import json
from pathlib import Path

import pytest

from riverdelta import Settings, Subscriber
from riverdelta.broker.producer.encode import encode_chunk
from riverdelta.core.errors import SettingsError
from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.assets import DEMO_FOLDER, FolderCatalog
from riverdelta_gateway.backends.base import BackendError, ChatBackend, Question, Said
from riverdelta_gateway.backends.scripted import title_from
from riverdelta_gateway.backends.tokens import words
from riverdelta_gateway.parts import reply_text
from riverdelta_gateway.turn import Turn, title_of
from riverdelta_gateway.turns.plugins import make_backend, source_of
from riverdelta_gateway.turns.settings import TurnSettings
from tests.support.core.codec_tools import lines_of, recordings
from tests.support.gateway.local_turns import local_turns, turn_queue, until_message
from tests.support.gateway.replay_server import Provider, instruction, provider, said_in
from tests.support.gateway.turn_events import Log
from tests.support.local_workers import local_workers
from tests.support.servers import until

BACKENDS = {"openai-chat": "openai", "anthropic": "anthropic", "gemini": "gemini"}
_HALVES = ("surrogates", "partial-arguments")
"""Recordings with half a surrogate pair in a text: Google's SDK takes none."""
RECORDINGS = [
    pytest.param(source, path, id=f"{source}/{path.stem}")
    for source in BACKENDS
    for path in recordings(source)
    if source != "gemini" or path.stem not in _HALVES
]


def backend_for(server: Provider, **more: object) -> ChatBackend:
    return make_backend(settings_for(server, **more))


def settings_for(server: Provider, **more: object) -> TurnSettings:
    return TurnSettings.model_validate(provider_settings(server) | more)


def provider_settings(server: Provider) -> dict[str, object]:
    name = BACKENDS[server.source]
    url = f"{server.url}/v1" if name == "openai" else server.url
    return {
        "backend": name,
        f"{name}_base_url": url,
        "provider_silence_s": 5,
        "provider_retries": 0,
    }


def recording(source: str, name: str) -> list[bytes]:
    (path,) = [path for path in recordings(source) if path.stem == name and "tests" in path.parts]
    return lines_of(path)


async def said_by(backend: ChatBackend, question: Question) -> tuple[Log, BackendError | None]:
    """Fold what a backend pushes, and how it ended."""
    log = Log()
    log.start("m", source=backend.source)
    error = None
    async with contextlib.aclosing(backend.reply(question)) as chunks:
        try:
            async for chunk in chunks:
                log.add("m", "chunk", encode_chunk(chunk, text_source=False))
        except BackendError as raised:
            error = raised
    return log, error


def contents(log: Log) -> list[tuple[str, str, str | None, str | None]]:
    """Texts of a message by chunk, as far as it came; SDKs may reorder the keys of a result."""
    started = {e.chunk: e.data for e in log.events if e.type == "chunk.started"}
    texts = dict.fromkeys(started, "")
    for event in log.events:
        if event.type == "chunk.delta":
            texts[event.chunk] += event.data["text"]
    return [
        (
            data["kind"],
            sorted_keys(texts[chunk]) if data["kind"] == "tool_result" else texts[chunk],
            data["tool_name"],
            data["tool_call_id"],
        )
        for chunk, data in started.items()
    ]


def sorted_keys(text: str) -> str:
    return json.dumps(json.loads(text), sort_keys=True)


@pytest.mark.parametrize(("source", "path"), RECORDINGS)
async def test_what_a_backend_pushes_is_what_the_provider_sent(source: str, path: Path) -> None:
    lines = lines_of(path)
    expected = Log()
    expected.start("m", source=source)
    for line in lines:
        expected.add("m", "chunk", line)
    async with provider(source, lines) as server:
        backend = backend_for(server)
        log, error = await said_by(backend, Question("Hi"))
        await backend.aclose()
    assert contents(log) == contents(expected)
    failed, shown = (
        any(event.type == "step.failed" for event in one.events) for one in (expected, log)
    )
    assert (error is not None or shown) == failed


@pytest.mark.parametrize("source", BACKENDS)
async def test_a_provider_gets_the_history_and_the_asset(source: str) -> None:
    asset = await FolderCatalog(DEMO_FOLDER).get("ann", "metric", "quarterly-revenue")
    question = Question("And now?", [Said("user", "Hi"), Said("assistant", "Hello")], asset)
    async with provider(source, recording(source, "text")) as server:
        backend = backend_for(server, system_prompt="Be brief.")
        await said_by(backend, question)
        title = [piece async for piece in backend.title(question)]
        await backend.aclose()
    request, for_title = server.requests
    assert instruction(request).startswith("Be brief.")
    assert "date_trunc" in instruction(request)
    assert said_in(request) == [("user", "Hi"), ("assistant", "Hello"), ("user", "And now?")]
    assert request.get("stream") is True or ":streamgeneratecontent?alt=sse" in server.paths[0]
    assert title == ["Rivers ", "and seas"]
    assert "Hello" not in str(for_title)


@pytest.mark.parametrize("source", BACKENDS)
@pytest.mark.parametrize("status", [400, 401, 429])
async def test_a_refusal_is_a_safe_sentence(source: str, status: int) -> None:
    async with provider(source, []) as server:
        server.status = status
        backend = backend_for(server)
        _, error = await said_by(backend, Question("Hi"))
        await backend.aclose()
    assert error is not None
    assert error.sentence == f"The language model refused the request (status {status})"
    assert "secret 123" in str(error.__cause__)


@pytest.mark.parametrize("source", BACKENDS)
async def test_a_connection_that_breaks_off_is_a_safe_sentence(source: str) -> None:
    async with provider(source, recording(source, "text")) as server:
        server.cut_off = 4
        backend = backend_for(server)
        log, error = await said_by(backend, Question("Hi"))
        await backend.aclose()
    assert error is not None
    assert error.sentence == "The language model could not be reached, or broke off"
    assert "".join(text for _, text, _, _ in contents(log))


@pytest.mark.parametrize("source", BACKENDS)
async def test_a_turn_with_a_provider(
    source: str, settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        provider(source, recording(source, "text")) as server,
        local_workers(settings),
        local_turns(settings, **provider_settings(server)),
        turn_queue(settings) as queue,
    ):
        await queue.ask(Turn("c", "m1", "dev", "Where do rivers go?"))
        message = await until_message(subscriber, "c", "m1")
        assert message["status"] == "completed"
        assert title_of([message]) == "Rivers and seas"
        assert "Rivers" in reply_text(message)
        assert message["usage"] is not None
        server.status = 500
        failed = await _turn(queue, subscriber, "m2")
        assert failed["error"] is not None
        assert failed["error"]["code"] == "provider_error"
        assert "(status 500). The id of this error is " in failed["error"]["detail"]


@pytest.mark.parametrize("source", BACKENDS)
async def test_a_stop_hangs_up_on_the_provider(
    source: str, settings: Settings, subscriber: Subscriber
) -> None:
    async with (
        provider(source, recording(source, "text")[:5]) as server,
        local_workers(settings),
        local_turns(settings, **provider_settings(server)),
        turn_queue(settings) as queue,
    ):
        server.hang = True
        await queue.ask(Turn("c", "m", "dev", "Where do rivers go?"))
        await until_message(subscriber, "c", "m", text="Rivers" if source == "openai-chat" else "e")
        await subscriber.stop("c")
        message = await until_message(subscriber, "c", "m")
        assert message["status"] == "stopped"

        async def hung_up() -> bool:
            return server.gone == 1

        await until(hung_up)


async def _turn(queue: object, subscriber: Subscriber, message_id: str) -> SnapshotMessage:
    await queue.ask(Turn("c", message_id, "dev", "And seas?"))  # type: ignore[attr-defined]  # it is one
    return await until_message(subscriber, "c", message_id)


# -- without a provider --------------------------------------------------------------------------


async def test_a_gateway_knows_how_built_in_backends_encode_replies() -> None:
    for source in BACKENDS:
        async with provider(source, []) as server:
            settings = settings_for(server)
            backend = make_backend(settings)
            assert source_of(settings) == backend.source
            await backend.aclose()
    scripted = TurnSettings()
    assert source_of(scripted) == make_backend(scripted).source
    assert source_of(TurnSettings(backend="package.module:own")) == "text"


async def test_the_scripted_backend_plays_the_whole_reply() -> None:
    backend = make_backend(TurnSettings(scripted_pace_ms=0))
    kinds = [item async for item in backend.reply(Question("How are sales {today}?"))]
    assert len(kinds) > 200
    pieces = [piece async for piece in backend.title(Question("How are sales in the north today?"))]
    assert "".join(pieces) == "How are sales in the north"


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        ("Hi", "Hi"),
        ("  What \n is this? ", "What is this"),
        ("x" * 100, "x" * 48 + "..."),
        ("???", "???"),
        ("one two three four five six seven", "one two three four five six"),
    ],
)
def test_a_title_is_a_prompts_beginning(prompt: str, title: str) -> None:
    assert title_from(prompt) == title


@pytest.mark.parametrize("text", ["", " ", "a", " a b\n\nc ", "\n"])
def test_words_join_to_their_text(text: str) -> None:
    assert "".join(words(text)) == text


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (
            "gpt",
            "RIVERDELTA_TURNS_BACKEND=gpt: use scripted, openai, anthropic, gemini, or package",
        ),
        ("nowhere.at_all:backend", "No module named 'nowhere'"),
        ("riverdelta_gateway.backends:nothing", "has no 'nothing'"),
        ("riverdelta_gateway.backends.base:TITLE_TOKENS", "neither a function nor a class"),
        (":x", "write it as package.module:name"),
        ("openai", "RIVERDELTA_TURNS_OPENAI_API_KEY"),
        ("anthropic", "RIVERDELTA_TURNS_ANTHROPIC_API_KEY"),
        ("gemini", "RIVERDELTA_TURNS_GEMINI_API_KEY"),
    ],
)
def test_a_backend_that_cannot_be_used_says_why(
    name: str, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_AUTH_TOKEN",
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
    ):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SettingsError) as refusal:
        make_backend(TurnSettings(backend=name))
    assert complaint in str(refusal.value)
