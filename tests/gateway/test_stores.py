"""Assets and histories: the stores that come with the gateway, and those of one's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from riverdelta import Producer, Settings, Subscriber
from riverdelta.core.errors import SettingsError
from riverdelta_gateway.assets import DEMO_FOLDER, Asset, AssetType, FolderCatalog
from riverdelta_gateway.backends.base import Said
from riverdelta_gateway.parts import reply_text
from riverdelta_gateway.turn import Turn
from riverdelta_gateway.turns.history import ChatHistory, latest
from riverdelta_gateway.turns.plugins import make_catalog
from riverdelta_gateway.turns.settings import TurnSettings
from tests.support.gateway.local_turns import local_turns, turn_queue, until_message
from tests.support.local_workers import local_workers
from tests.support.servers import until

SAVED: list[tuple[str, str, list[Said]]] = []


class OwnHistory:
    """A store outside of Redis."""

    saves = True

    def __init__(self, settings: TurnSettings) -> None:
        SAVED.clear()

    async def load(self, chat_id: str, without: Sequence[str]) -> Sequence[Said]:
        return [
            said
            for chat, message_id, turn in SAVED
            if chat == chat_id and message_id not in without
            for said in turn
        ]

    async def save(self, chat_id: str, message_id: str, said: Sequence[Said]) -> None:
        SAVED.append((chat_id, message_id, list(said)))


class OwnCatalog:
    """A store of assets that has every metric."""

    def __init__(self, settings: TurnSettings) -> None:
        pass

    async def get(self, user: str, asset_type: AssetType, asset_id: str) -> Asset | None:
        return (
            Asset(asset_type, asset_id, f"Number {asset_id}", "")
            if asset_type == "metric"
            else None
        )


class OwnPolicy:
    """Ann sees everything, nobody else does."""

    def __init__(self, settings: TurnSettings) -> None:
        pass

    async def may_see(self, user: str, asset: Asset) -> bool:
        return user == "ann"


async def test_a_policy_decides_who_sees_which_asset() -> None:
    policy = f"{__name__}:OwnPolicy"
    for own in ({}, {"asset_catalog": f"{__name__}:OwnCatalog"}):
        catalog = make_catalog(TurnSettings.model_validate({"asset_policy": policy} | own))
        assert await catalog.get("ann", "metric", "quarterly-revenue") is not None
        assert await catalog.get("bob", "metric", "quarterly-revenue") is None
    with pytest.raises(SettingsError, match="RIVERDELTA_TURNS_ASSET_POLICY=nowhere:at_all"):
        make_catalog(TurnSettings(asset_policy="nowhere:at_all"))


async def test_stores_of_ones_own_are_used(settings: Settings, subscriber: Subscriber) -> None:
    own: dict[str, Any] = {
        "history_store": f"{__name__}:OwnHistory",
        "asset_catalog": f"{__name__}:OwnCatalog",
    }
    async with (
        local_workers(settings),
        local_turns(settings, **own),
        turn_queue(settings) as queue,
    ):
        for number, prompt in enumerate(("ASSET", "Well FAIL", "HISTORY"), start=1):
            await queue.ask(
                Turn("c", f"m{number}", "dev", prompt, asset_type="metric", asset_id="7")
            )

            async def saved(count: int = number) -> bool:
                return len(SAVED) == count

            await until(saved)
        last = await until_message(subscriber, "c", "m3")
    expected = "user: ASSET|assistant: Number 7|user: Well FAIL|assistant: Well "
    assert reply_text(last) == expected
    assert SAVED[-1] == ("c", "m3", [Said("user", "HISTORY"), Said("assistant", expected)])


async def test_a_chats_history_has_what_other_producers_wrote_and_no_open_message(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings):
        async with producer.message("c", source="text", message_id="m1") as message:
            await message.push("Written elsewhere")
        await until_message(subscriber, "c", "m1")
        async with producer.message("c", source="text", message_id="m2") as message:
            await message.push("still open")
            await until_message(subscriber, "c", "m2", text="open")
            history = ChatHistory(subscriber._reader)
            assert await history.load("c", []) == [Said("assistant", "Written elsewhere")]
            assert await history.load("c", ["m1"]) == []
            assert await history.load("nowhere", []) == []


@pytest.mark.parametrize(
    ("max_chars", "kept"),
    [(100, "aBcDe"), (5, "aBcDe"), (4, "cDe"), (3, "cDe"), (2, "e"), (1, "e"), (0, "")],
)
def test_the_latest_of_a_history_begins_with_the_user(max_chars: int, kept: str) -> None:
    said = [Said("user" if text.islower() else "assistant", text) for text in "aBcDe"]
    assert "".join(one.text for one in latest(said, max_chars)) == kept


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "secret.yml").write_text("name: Secret")
    return tmp_path


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("name: Revenue\nsql: x", "Revenue"),
        ("# head\ntitle: 'Its title'\n", "Its title"),
        ('name: "A: b"\n', "A: b"),
        ("name: Revenue # of all\n", "Revenue"),
        ("sql: |\n  name: not this\n", "m.1"),
        ("name:\n  nested: 1\n", "m.1"),
        ("name: |\n  block\n", "m.1"),
        ("", "m.1"),
        ("name: \udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "ÿ"),
    ],
)
async def test_an_assets_name_is_in_its_file(folder: Path, content: str, name: str) -> None:
    (folder / "metrics" / "m.1.yaml").write_text(content)
    asset = await FolderCatalog(folder).get("ann", "metric", "m.1")
    assert asset == Asset("metric", "m.1", name, content)


async def test_only_the_folders_own_files_are_assets(folder: Path) -> None:
    catalog = FolderCatalog(folder)
    assert await catalog.get("ann", "metric", "secret") is None
    assert await catalog.get("ann", "dashboard", "..") is None
    for outside in ("../secret", "/etc/passwd", "a/b", ""):
        with pytest.raises(ValueError, match="asset_id"):
            await catalog.get("ann", "metric", outside)
    assert await FolderCatalog(folder / "nowhere").get("ann", "metric", "a") is None


async def test_the_catalog_is_the_one_that_settings_name(folder: Path) -> None:
    (folder / "metrics" / "a.yml").write_text("name: Mine")
    mine = await make_catalog(TurnSettings(assets_dir=folder)).get("ann", "metric", "a")
    assert mine is not None
    demo = make_catalog(TurnSettings())
    assert await demo.get("ann", "metric", "a") is None
    for path in DEMO_FOLDER.glob("*/*.yml"):
        asset_type: AssetType = "metric" if path.parent.name == "metrics" else "dashboard"
        assert await demo.get("ann", asset_type, path.stem) is not None
    with pytest.raises(SettingsError, match="RIVERDELTA_TURNS_ASSET_CATALOG=nowhere:at_all"):
        make_catalog(TurnSettings(asset_catalog="nowhere:at_all"))
