"""Streams of each provider, with anything wrong anywhere."""

import copy
import json
import random
from typing import Any

from hypothesis import strategies as st

from tests.support.core.codec_tools import lines_of, recordings

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 3),
    st.sampled_from([10**30, -(10**30), 1.5, -0.0, 2**63, 2**64 - 1]),
    st.sampled_from(
        ["", "a", "stop", "tool_calls", "completed", "text", "\ud83d", "\ude00", "é🌊"]
    ),
    st.text(st.characters(codec=None), max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
DOCUMENTS = {
    source: [json.loads(line) for path in recordings(source) for line in lines_of(path)]
    for source in (
        "openai-chat",
        "openai-responses",
        "anthropic",
        "gemini",
        "bedrock-converse",
        "chunks",
    )
}


def _mutate(document: Any, value: Any, chance: random.Random) -> Any:
    """Replace, add or drop one thing at a random depth."""
    place = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return value
        key = chance.choice(keys)
        if not isinstance(place[key], dict | list) or chance.random() < 0.2:
            break
        place = place[key]
    if isinstance(place, dict) and chance.random() < 0.2:
        del place[key]
    else:
        place[key] = value
    return document


@st.composite
def streams(draw: st.DrawFn, source: str) -> list[bytes]:
    """Draw a run of a provider's chunks, some of them bent, some replaced by anything."""
    documents = DOCUMENTS[source]
    chance = random.Random(draw(st.integers(0, 2**32)))
    begin = draw(st.integers(0, len(documents) - 1))
    run = copy.deepcopy(documents[begin : begin + draw(st.integers(1, 25))])
    if draw(st.booleans()):
        run += copy.deepcopy(chance.choices(documents, k=5))
    out = []
    for document in run:
        bent = document
        for _ in range(chance.choice([0, 0, 0, 1, 1, 3])):
            bent = _mutate(bent, draw(VALUES), chance) if isinstance(bent, dict) else bent
        text = json.dumps(bent, ensure_ascii=chance.random() < 0.7)
        raw = text.encode("utf-8", "surrogatepass")
        if chance.random() < 0.05:
            raw = raw[: chance.randrange(len(raw) + 1)]
        out.append(raw)
    return out
