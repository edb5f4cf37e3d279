"""Asset catalogs: metrics and dashboards by id."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol, get_args

from riverdelta.core.ids import check_id

AssetType = Literal["metric", "dashboard"]
ASSET_TYPES: Final[tuple[AssetType, ...]] = get_args(AssetType)

DEMO_FOLDER: Final = Path(__file__).with_name("demo_assets")
"""A metric and a dashboard for the demo."""

_SUFFIXES: Final = (".yml", ".yaml")
_NAME: Final = re.compile(
    r"""^(?:name|title)[ \t]*:[ \t]*(?:"([^"\n]+)"|'([^'\n]+)'|([^\s#"'|>&*!\[{][^#\n]*))""",
    re.MULTILINE,
)


class Asset(NamedTuple):
    """A metric or dashboard as it is now."""

    type: AssetType
    id: str
    name: str
    yml_content: str


class AssetCatalog(Protocol):
    """Finds assets. Implement it for your own store."""

    async def get(self, user: str, asset_type: AssetType, asset_id: str) -> Asset | None:
        """Return the asset; None: there is none with this id that *user* may see."""


class AssetPolicy(Protocol):
    """Decides who may see which asset. Implement it for your own users and groups."""

    async def may_see(self, user: str, asset: Asset) -> bool:
        """Whether *user* may see *asset*. If not, it looks to this user as if it did not exist."""


class GuardedCatalog:
    """
    A catalog with a policy in front of it.

    Args:
        catalog: Finds the assets.
        policy: Decides who may see them.
    """

    def __init__(self, catalog: AssetCatalog, policy: AssetPolicy) -> None:
        self._catalog = catalog
        self._policy = policy

    async def get(self, user: str, asset_type: AssetType, asset_id: str) -> Asset | None:
        """Return the asset; None: there is none with this id that *user* may see."""
        asset = await self._catalog.get(user, asset_type, asset_id)
        if asset is None or not await self._policy.may_see(user, asset):
            return None
        return asset


class FolderCatalog:
    """
    Assets as YAML files: ``<folder>/metrics/<id>.yml`` and ``<folder>/dashboards/<id>.yml`` (or ``.yaml``).

    An asset's name is the ``name`` or ``title`` at the top level of its file, else its id. Every user sees
    every asset: put an `AssetPolicy` in front where that is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def get(self, user: str, asset_type: AssetType, asset_id: str) -> Asset | None:  # noqa: ARG002  # every user sees every file
        """Read the asset's file, each time: an edit is seen at once."""
        check_id(
            "asset_id", asset_id
        )  # an id has no slash, so it names no file outside of the folder
        return await asyncio.to_thread(self._read, asset_type, asset_id)

    def _read(self, asset_type: AssetType, asset_id: str) -> Asset | None:
        for suffix in _SUFFIXES:
            path = self._folder / f"{asset_type}s" / f"{asset_id}{suffix}"
            try:
                content = path.read_text("utf-8", "replace")
            except (FileNotFoundError, NotADirectoryError):
                continue
            return Asset(asset_type, asset_id, _name_in(content) or asset_id, content)
        return None


def _name_in(content: str) -> str | None:
    found = _NAME.search(content)
    if found is None:
        return None
    return next(group for group in found.groups() if group is not None).strip() or None
