"""Every row of the validation table that needs no Redis; `test_posts` has the rest."""

from typing import Any

import pytest

from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.posting.request import (
    MAX_PROMPT_CHARS,
    MAX_PROMPT_ID_CHARS,
    AssetRef,
    Post,
    read_post,
    read_prompt_id,
)

ACCEPTED: list[tuple[dict[str, Any], Post]] = [
    ({"prompt": "Hi"}, Post("Hi")),
    ({"prompt": "Hi", "chat_id": None, "other": 5}, Post("Hi")),
    ({"prompt": "Hi", "chat_id": "c"}, Post("Hi", "c")),
    ({"prompt": "Hi", "chat_id": "c", "message_id": "m"}, Post("Hi", "c", "m")),
    ({"asset_id": "a", "asset_type": "metric"}, Post(asset=AssetRef("metric", "a"))),
    (
        {"asset_id": "a", "asset_type": "dashboard", "chat_id": "c"},
        Post(chat_id="c", asset=AssetRef("dashboard", "a")),
    ),
    ({"metric_id": "a"}, Post(asset=AssetRef("metric", "a", "metric_id"))),
    ({"dashboard_id": "a"}, Post(asset=AssetRef("dashboard", "a", "dashboard_id"))),
    (
        {"prompt": "Why?", "asset_id": "a", "asset_type": "metric"},
        Post("Why?", asset=AssetRef("metric", "a")),
    ),
    ({"prompt": " \n", "metric_id": "a"}, Post(asset=AssetRef("metric", "a", "metric_id"))),
    ({"prompt": "x" * MAX_PROMPT_CHARS}, Post("x" * MAX_PROMPT_CHARS)),
]


@pytest.mark.parametrize(("payload", "post"), ACCEPTED)
def test_an_accepted_post(payload: dict[str, Any], post: Post) -> None:
    assert read_post(payload) == post


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"prompt": "Hi", "asset_id": "a"},
        "asset_type must be provided when asset_id is specified",
    ),
    (
        {"prompt": "Hi", "asset_type": "metric"},
        "asset_id must be provided when asset_type is specified",
    ),
    (
        {"metric_id": "a", "asset_type": "metric"},
        "asset_id must be provided when asset_type is specified",
    ),
    ({"asset_id": "a", "asset_type": "chart"}, "asset_type must be `metric` or `dashboard`"),
    ({"asset_id": "a", "asset_type": ""}, "asset_type must be `metric` or `dashboard`"),
    ({"prompt": "Hi", "asset_type": "chart"}, "asset_type must be `metric` or `dashboard`"),
    (
        {"metric_id": "a", "dashboard_id": "b"},
        "only one of asset_id, metric_id, dashboard_id may be specified",
    ),
    (
        {"asset_id": "a", "asset_type": "metric", "metric_id": "a"},
        "only one of asset_id, metric_id, dashboard_id may be specified",
    ),
    (
        {"asset_id": "a", "dashboard_id": "a"},
        "only one of asset_id, metric_id, dashboard_id may be specified",
    ),
    ({}, "prompt must not be empty unless an asset is specified"),
    ({"prompt": ""}, "prompt must not be empty unless an asset is specified"),
    ({"prompt": " \t\n", "chat_id": "c"}, "prompt must not be empty unless an asset is specified"),
    (
        {"prompt": "Hi", "message_id": "m"},
        "chat_id must be provided when message_id is specified",
    ),
    (
        {"metric_id": "a", "message_id": "m"},
        "chat_id must be provided when message_id is specified",
    ),
    ({"prompt": "x" * (MAX_PROMPT_CHARS + 1)}, f"prompt must have {MAX_PROMPT_CHARS} characters"),
    ({"prompt": ["Hi"]}, "prompt must be a string"),
    ({"prompt": "Hi", "chat_id": 5}, "chat_id must be a string"),
    ({"prompt": "Hi", "asset_id": "a", "asset_type": True}, "asset_type must be a string"),
    ({"prompt": "Hi", "chat_id": "a b"}, "chat_id must have 1 to 128 characters"),
    ({"prompt": "Hi", "chat_id": "{c}"}, "chat_id must have 1 to 128 characters"),
    ({"prompt": "Hi", "chat_id": "c", "message_id": ""}, "message_id must have 1 to 128"),
    ({"metric_id": "../../etc/passwd"}, "metric_id must have 1 to 128 characters"),
]


@pytest.mark.parametrize(("payload", "sentence"), REFUSED)
def test_a_refused_post_names_the_field_and_what_is_allowed(
    payload: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        read_post(payload)
    assert refusal.value.code == "BAD_REQUEST"
    assert refusal.value.message.startswith(sentence)


@pytest.mark.parametrize("prompt_id", [None, "u1", "any text 🌊", "x" * MAX_PROMPT_ID_CHARS])
def test_ids_of_prompts(prompt_id: str | None) -> None:
    assert read_prompt_id({"prompt_id": prompt_id}) == prompt_id
    assert read_prompt_id({}) is None


@pytest.mark.parametrize("prompt_id", ["", 5, "x" * (MAX_PROMPT_ID_CHARS + 1)])
def test_what_is_no_id_of_a_prompt(prompt_id: object) -> None:
    with pytest.raises(RequestError, match="prompt_id must"):
        read_prompt_id({"prompt_id": prompt_id})
