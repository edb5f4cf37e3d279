"""
Find the output item that an event is about, also where a provider's ids and indexes are unreliable.

An item has an index, an id and, if it is a call, the id of the call. Any of them may be missing, the same
for two items, or new with every event. `ItemBook` asks them in this order: an id that is known; the
call's id; the index, for an item of the same kind that is not finished; else the newest item of that kind.
An item that is finished goes on only where nothing speaks for another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

from riverdelta.core.codecs.responses_calls import CallItem, is_call
from riverdelta.core.codecs.texts import id_or_none, text_or_empty, text_or_none

Group = Literal["message", "reasoning", "call", "old"]
"""What kinds of delta an item takes; `old`: none, a worker of the version before has said all of it."""


class Item:
    """
    An output item of the open response.

    Attributes:
        number: Its place among all items, from 0; names its chunks.
        group: What kinds of delta it takes.
        index: The provider's; None: it gave none.
        ids: All that it had.
        call: How far a call is. None: it is none, or its name is not known yet.
        call_id: The call's own id.
        done: The provider finished it. More may come nevertheless.
        cut: The provider said that it is not complete.
    """

    __slots__ = ("call", "call_id", "cut", "done", "group", "ids", "index", "number")

    def __init__(self, number: int, group: Group, index: int | None) -> None:
        self.number = number
        self.group: Group = group
        self.index = index
        self.ids: list[str] = []
        self.call: CallItem | None = None
        self.call_id: str | None = None
        self.done = False
        self.cut = False

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values."""
        call = None if self.call is None else self.call.dump()
        return [self.group, self.index, list(self.ids), call, self.call_id, self.done, self.cut]

    @classmethod
    def load(cls, number: int, state: list[Any]) -> Item:
        """Undo `dump`."""
        group, index, ids, call, call_id, done, cut = state
        item = cls(number, group, index)
        item.ids, item.call_id, item.done, item.cut = list(ids), call_id, done, cut
        item.call = None if call is None else CallItem.load(call)
        return item


def group_of(data: dict[str, Any]) -> Group | None:
    """Tell which deltas an item takes, by its type; None: by none that is known."""
    kind = text_or_empty(data.get("type"))
    if kind in ("message", "reasoning"):
        return kind  # type: ignore[return-value]  # one of the two
    return "call" if is_call(kind) else None


class ItemBook:
    """The items of one response."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._rotating = False
        """Ids change within an item: they tell nothing apart."""

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def of_delta(
        self, group: Group, index: int | None, item_id: str | None, call_id: str | None = None
    ) -> Item | None:
        """Find the item that a delta of *group* goes to; None: one that was not seen yet."""
        fits = [item for item in self._items if item.group == group]
        found = _with_id(fits, item_id) or _with_call_id(fits, call_id or item_id)
        if found is not None and item_id is not None and found.call_id == item_id:
            return found  # it has the call's id in the place of its own
        found = found or self._at(fits, index, item_id)
        if found is not None:
            self._note(found, index, item_id)
        return found

    def of_item(self, group: Group, index: int | None, data: dict[str, Any]) -> Item | None:
        """Find the item that *data* announces or finishes; None: one that was not seen yet."""
        item_id, call_id = id_or_none(data.get("id")), id_or_none(data.get("call_id"))
        fits = [item for item in self._items if item.group == group and _agrees(item, data)]
        found = _with_id(fits, item_id) or _with_call_id(fits, call_id)
        found = found or self._at(fits, index, item_id)
        if found is not None:
            self._note(found, index, item_id)
        return found

    def of_output(
        self, output: list[dict[str, Any]], is_said: Callable[[Item, dict[str, Any]], bool]
    ) -> list[Item | None]:
        """
        Find the item of each member of a finished response's output; None: it was not seen yet.

        Args:
            output: All members, in order.
            is_said: Whether an item has said the beginning of a member, and nothing else.
        """
        found: list[Item | None] = []
        for data in output:
            fits = [item for item in self._items if _agrees(item, data)]
            found.append(
                _with_id(fits, id_or_none(data.get("id")))
                or _with_call_id(fits, id_or_none(data.get("call_id")))
            )
        listed = {id_or_none(data.get("id")) for data in output}
        for place, data in enumerate(output):
            if found[place] is None:
                left = [item for item in self._items if item not in found and _agrees(item, data)]
                left = [item for item in left if item.group in (group_of(data), "old")]
                renamed = list[Item]()
                if not self._rotating and data.get("id"):
                    renamed = [item for item in left if not listed.intersection(item.ids)]
                    left = [item for item in left if not item.ids]
                same = [item for item in left if item.index == place]
                same += [item for item in [*left, *renamed] if is_said(item, data)]
                found[place] = same[0] if same else None
        return found

    def begin(self, group: Group, index: int | None, item_id: str | None) -> Item:
        """Begin an item."""
        item = Item(len(self._items), group, index)
        self._items.append(item)
        self._note(item, index, item_id)
        return item

    def clear(self) -> None:
        """Forget the items of a response that is over."""
        self._items.clear()
        self._rotating = False

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values."""
        return [self._rotating, [item.dump() for item in self._items]]

    def load(self, state: list[Any]) -> None:
        """Go on where *state* was dumped."""
        self._rotating, items = state
        self._items = [Item.load(number, item) for number, item in enumerate(items)]

    def _at(self, fits: list[Item], index: int | None, item_id: str | None) -> Item | None:
        there = [item for item in fits if index is None or item.index in (index, None)]
        if not there:
            return None
        newest = there[-1]
        if not newest.done or item_id is None or not newest.ids or self._rotating:
            return newest
        return None  # that one is finished, and this has an id of its own

    def _note(self, item: Item, index: int | None, item_id: str | None) -> None:
        if item.index is None:
            item.index = index
        if item_id is not None and item_id not in item.ids:
            self._rotating = self._rotating or bool(item.ids)
            item.ids.append(item_id)


def _with_id(items: list[Item], item_id: str | None) -> Item | None:
    return next((item for item in items if item_id is not None and item_id in item.ids), None)


def _with_call_id(items: list[Item], call_id: str | None) -> Item | None:
    return next((item for item in items if call_id is not None and item.call_id == call_id), None)


def _agrees(item: Item, data: dict[str, Any]) -> bool:
    """Whether nothing in *data* says that it is another item than this."""
    call_id = id_or_none(data.get("call_id"))
    if call_id is not None and item.call_id is not None and call_id != item.call_id:
        return False
    if item.call is None:
        return True
    name = text_or_none(data.get("name"))
    same_name = name is None or item.call.name is None or name == item.call.name
    return item.call.kind == text_or_empty(data.get("type")) and same_name
