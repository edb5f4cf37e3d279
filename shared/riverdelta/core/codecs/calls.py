"""
Find the call that a fragment belongs to, also where a provider's ids and indexes are unreliable.

A fragment of a call has an index, an id, a name and some arguments; any of them may be missing, empty,
new each time, or that of another call. `CallBook.find` decides with all of them and with what is known
of the calls so far. Its rules, the first that fits:

1. The id is known: that call, unless it is whole and a name begins another one, at another index
   or of another tool.
2. A nameless fragment goes on with the call at its index, else with the newest call that is not whole.
3. A name begins a call, unless it repeats the name of the call at its index, or goes on with it
   (a name in pieces) before any argument came.
4. A call that is whole takes nothing more with a name; one that is not takes the rest, even under a new
   id, if ids have changed within it before or nothing speaks for another call.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from riverdelta.core.codecs.arguments import Arguments
from riverdelta.core.errors import LimitExceeded


class Call:
    """
    A tool call of the open step.

    Attributes:
        key: Of its chunk.
        custom: Its arguments are plain text.
        call_id: The first id that it had.
        name: Of the tool, as far as it is known.
        held: Arguments that wait for the name, without which they are no use. None: its chunk began.
        arguments: Follows all of its arguments.
        indexes, ids: All that it had.
    """

    __slots__ = ("arguments", "call_id", "custom", "held", "ids", "indexes", "key", "name")

    def __init__(self, key: str, *, custom: bool = False) -> None:
        self.key = key
        self.custom = custom
        self.call_id: str | None = None
        self.name: str | None = None
        self.held: str | None = ""
        self.arguments = Arguments()
        self.indexes: list[int] = []
        self.ids: list[str] = []

    @property
    def empty(self) -> bool:
        """Whether it has no arguments yet."""
        return not self.arguments.begun

    @property
    def whole(self) -> bool:
        """Whether its arguments are JSON that is complete. Those of a custom call never are."""
        return self.arguments.whole and not self.custom

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values; half a character in *held* is escaped."""
        held = None if self.held is None else json.dumps(self.held)
        return [
            self.key, self.custom, self.call_id, self.name, held, self.arguments.dump(),
            list(self.indexes), list(self.ids),
        ]  # fmt: skip

    @classmethod
    def load(cls, state: list[Any]) -> Call:
        """Undo `dump`."""
        key, custom, call_id, name, held, arguments, indexes, ids = state
        call = cls(key, custom=custom)
        call.call_id, call.name = call_id, name
        call.held = None if held is None else json.loads(held)
        call.arguments = Arguments.load(arguments)
        call.indexes, call.ids = list(indexes), list(ids)
        return call


CALLS_MAX: Final = 1000
"""Calls of one step. A fragment is compared with all of them; no model makes a tenth as many."""


class CallBook:
    """The calls of one step, in the order they began."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._last: Call | None = None

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls))

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(
        self, index: int | None, call_id: str | None, name: str | None, text: str, *, custom: bool
    ) -> Call:
        """
        Find the call of a fragment, or begin one, and note what the fragment says of it.

        Args:
            index: None: the fragment has none that means anything.
            call_id: None: it has none.
            name: All or a piece of the tool's name.
            text: Its arguments; the caller adds them to the call, and feeds them to its `arguments`.
            custom: It says that its arguments are plain text.

        Raises:
            LimitExceeded: The step has `CALLS_MAX` calls already.
        """
        call = self.find(index, call_id, name, text)
        if call is None:
            if len(self._calls) >= CALLS_MAX:
                raise LimitExceeded(f"more than {CALLS_MAX} calls in one step")
            call = Call(self._free_key(), custom=custom)
            self._calls.append(call)
        elif call.held is not None and call.empty:
            call.custom = call.custom or custom
        if index is not None and index not in call.indexes:
            call.indexes.append(index)
        if call_id is not None and call_id not in call.ids:
            call.ids.append(call_id)
            call.call_id = call.call_id or call_id
        if name is not None and name != call.name and call.held is not None:
            before = call.name or ""
            call.name = name if name.startswith(before) else before + name
        self._last = call
        return call

    def of_rest(self, index: int) -> Call | None:
        """Find the call of a fragment without an id and a name, as `take` does; None: ask `take`."""
        for call in reversed(self._calls):
            if index in call.indexes:
                self._last = call
                return call
        return None

    def find(
        self, index: int | None, call_id: str | None, name: str | None, text: str
    ) -> Call | None:
        """Find the call that a fragment goes on with; None: it begins one."""
        known = self._with_id(index, call_id, name)
        if known is not None:
            return known
        there = self._at(index)
        if there is not None:
            return there if _goes_on(there, call_id, name, text) else None
        if name is not None or (call_id is not None and not text):
            return None
        waiting = [call for call in self._calls if not call.whole]
        if not waiting or (not waiting[-1].empty and text.lstrip()[:1] == "{"):
            return None  # that is the beginning of arguments, and not the rest of any
        return waiting[-1]

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values."""
        last = None if self._last is None else self._calls.index(self._last)
        return [last, [call.dump() for call in self._calls]]

    def load(self, state: list[Any]) -> None:
        """Go on where *state* was dumped."""
        last, calls = state
        self._calls = [Call.load(call) for call in calls]
        self._last = None if last is None else self._calls[last]

    def clear(self) -> None:
        """Forget the calls of a step that is over."""
        self._calls.clear()
        self._last = None

    def _with_id(self, index: int | None, call_id: str | None, name: str | None) -> Call | None:
        """Find the newest call of an id, at this index if there is one: some give all calls one id."""
        known = [call for call in self._calls if call_id is not None and call_id in call.ids]
        here = [call for call in known if index in call.indexes]
        if not known:
            return None
        call = (here or known)[-1]
        moved = index is not None and not here
        begins = call.whole and name is not None and (moved or name != call.name)
        return None if begins else call

    def _free_key(self) -> str:
        taken = {call.key for call in self._calls}
        numbers = range(len(taken), 2 * len(taken) + 1)
        return next(key for key in map("tool:{}".format, numbers) if key not in taken)

    def _at(self, index: int | None) -> Call | None:
        if index is None:
            return self._last
        return next((call for call in reversed(self._calls) if index in call.indexes), None)


def _goes_on(call: Call, call_id: str | None, name: str | None, text: str) -> bool:
    """Whether a fragment at the place of *call*, with an id that is new or missing, is part of it."""
    if name is None or call.name is None:
        return True
    other_id = call_id is not None and call.call_id is not None
    rotating = len(call.ids) > 1
    if call.whole:
        return name == call.name and not text and not other_id
    if not call.empty:
        begins = text.lstrip()[:1] == "{" and other_id and not rotating
        return name == call.name and not begins
    if other_id:
        return name == call.name and (bool(text) or rotating)
    if name == call.name or name.startswith(call.name):
        return True
    return call_id is None and not _is_whole(text) and call.held is not None


def _is_whole(text: str) -> bool:
    return Arguments.of(text).whole and text.lstrip()[:1] == "{"
