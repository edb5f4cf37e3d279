"""What the bench pushes: replies as OpenAI's chat API streams them, about 330 bytes a chunk."""

from __future__ import annotations

import random
import string

import orjson

_TEXT = (
    "the river carries what the mountain gives and the delta keeps a little of each year in its"
    " quiet arms so that new ground may grow where the sea had been Revenue rose by 12.4 % in Q3"
)
_WORDS = _TEXT.split()


def openai_reply(content_chunks: int, seed: int) -> list[bytes]:
    """Make one reply: a chunk with the role, *content_chunks* with a token each, the finish."""
    rng = random.Random(seed)
    reply_id = "chatcmpl-" + "".join(rng.choices(string.ascii_letters + string.digits, k=29))
    chunks = [_chunk(rng, reply_id, {"role": "assistant", "content": "", "refusal": None}, None)]
    chunks += [
        _chunk(rng, reply_id, {"content": f" {rng.choice(_WORDS)}"}, None)
        for _ in range(content_chunks)
    ]
    chunks.append(_chunk(rng, reply_id, {}, "stop"))
    return chunks


def _chunk(
    rng: random.Random, reply_id: str, delta: dict[str, str | None], finish: str | None
) -> bytes:
    document = {
        "id": reply_id,
        "object": "chat.completion.chunk",
        "created": 1770933892,
        "model": "gpt-4.1-nano-2025-04-14",
        "service_tier": "default",
        "system_fingerprint": "fp_de604bd877",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
        "usage": None,
        # OpenAI pads every chunk so that its size does not tell the token.
        "obfuscation": "".join(rng.choices(string.ascii_letters, k=rng.randint(2, 16))),
    }
    return orjson.dumps(document)
