"""`Sections`: cuts named parts out of a stream of plain text, by the patterns that begin and end them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import regex

from riverdelta.core.errors import SettingsError
from riverdelta.core.filters import (
    DEFAULT_SECTIONS,
    SectionEnd,
    SectionPart,
    SectionRule,
    SectionStart,
    SectionText,
)
from riverdelta_workers.filters.partial import Probe

MARKER_MAX: Final = 256
"""Longest marker; text that may be a longer one is no marker. Fits a fence with its info string."""

_BUDGET_S: Final = 0.05

_QUIET_MAX: Final = 4096
"""Longest text that is searched at once: a fair pattern must not run out of time over a long one."""

_indented_end: Final = re.compile("(?:\\A|\n) {1,3}\\Z").search


def _hot(text: str) -> bool:
    """
    Tell whether *text* has what every marker of `DEFAULT_SECTIONS` has at its start, or is cut before.

    *text* begins with the character before the new text. Ordinary text has none of it, and this is far
    faster than the rules are.
    """
    return "<" in text or "`" in text or _indented_end(text[-4:]) is not None


_UNENDING: Final = Probe("(?!)")

_GROUP: Final = regex.compile(r"\(\?P=(\w+)\)")


class Sections:
    """
    Cuts one chunk's text into parts; feed it deltas, end with `finish`.

    A `Splitter`. Independent of the split but for where texts are cut. Parts do not nest; a part
    without its end ends with the chunk. A marker that is not complete yet is held back, up to `bound`
    characters; it goes out as text, in order, once it turns out to be none. A complete marker is
    reported with the character behind it.

    Args:
        rules: Tried in order where several begin at one place.

    Raises:
        SettingsError: A pattern cannot be used, *end* names a group that *start* lacks, or two
            rules have one name.
        TimeoutError: From `passes`, `feed` and `finish`: an own pattern backtracks without end.
    """

    bound: Final = MARKER_MAX

    def __init__(self, rules: Sequence[SectionRule] = DEFAULT_SECTIONS) -> None:
        self._set = _rule_set(tuple(rules))
        self._before = ""  # the character before the held text: what line starts are known by
        self._held = ""
        self._open: _Open | None = None

    @property
    def held_text(self) -> str:
        """What is held back now."""
        return self._held

    def passes(self, text: str) -> bool:
        """Whether *text* goes out as it is; see `Splitter.passes`."""
        if self._held or not self._quiet(text):
            return False
        self._before = text[-1]
        return True

    def feed(self, delta: str) -> list[SectionPart]:
        """Take *delta* and return what is certain now."""
        if not delta:
            return []
        if self.passes(delta):
            return [SectionText(delta)]
        return self._cut(delta, final=False)

    def finish(self) -> list[SectionPart]:
        """Take the end of the chunk: the rest, and the end of the open part."""
        parts = self._cut("", final=True)
        if self._open is not None:
            parts.append(SectionEnd(""))
            self._open = None
        return parts

    def dump(self) -> dict[str, Any]:
        """Everything remembered, as JSON; {} before the first delta."""
        state: dict[str, Any] = {}
        if self._before or self._held:
            state["before"], state["held"] = self._before, self._held
        if self._open is not None:
            state["open"], state["groups"] = self._open.by.rule.name, self._open.groups
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take up where *state* was dumped; the end of a part whose rule is gone is not looked for."""
        self._before, self._held = state.get("before", ""), state.get("held", "")
        by = self._set.named.get(state.get("open", ""))
        self._open = None if by is None else by.open(state["groups"])

    def _quiet(self, new: str) -> bool:
        """Whether no marker is or begins in *new*; nothing is held."""
        text, at, is_open = self._before + new, len(self._before), self._open
        if is_open is None:
            ours, own = self._set.any_shipped, self._set.own
        else:
            ours = is_open.by.shipped
            own = [] if ours else [is_open.end]
        if ours and _hot(text):
            return False
        if not own:
            return True
        return len(text) <= _QUIET_MAX and all(probe.quiet(text, at) for probe in own)

    def _cut(self, delta: str, *, final: bool) -> list[SectionPart]:
        text = self._before + self._held + delta
        at = len(self._before)
        parts: list[SectionPart] = []
        shown = at
        while at < len(text):
            base, end = 0, len(text)
            if end - at > MARKER_MAX + 1:
                base, end = max(at - 1, 0), at + MARKER_MAX + 1
            window = text[base:end]
            ends = final and end == len(text)
            by, match, unsettled = self._next(window, at - base, final=ends)
            if match is not None:
                start = base + match.start()
                _add_text(parts, text[shown:start])
                parts.append(self._turn(by, match))
                at = shown = base + match.end()
            elif unsettled == at - base and end - at > MARKER_MAX:
                at += 1
            else:
                at = base + unsettled
                if end == len(text):
                    break
        _add_text(parts, text[shown:at])
        if at:
            self._before = text[at - 1]
        self._held = text[at:]
        return parts

    def _next(
        self, text: str, at: int, *, final: bool
    ) -> tuple[_Rule | None, regex.Match[str] | None, int]:
        """The first marker that is certain, if nothing before it is open; and what is not settled."""
        probes = self._set.starts if self._open is None else [(self._open.by, self._open.end)]
        best: regex.Match[str] | None = None
        best_by: _Rule | None = None
        unsettled = len(text)
        for by, probe in probes:
            if not final:
                unsettled = min(unsettled, probe.undecided(text, at))
            match = probe.find(text, at)
            while match is not None and match.end() == match.start():
                match = probe.find(text, match.end() + 1) if match.end() < len(text) else None
            if match is not None and (best is None or match.start() < best.start()):
                best_by, best = by, match
        if best is None or best.start() >= unsettled:
            return None, None, unsettled
        return best_by, best, unsettled

    def _turn(self, by: _Rule | None, match: regex.Match[str]) -> SectionPart:
        """Pass the marker: into the part that *by* begins, or out of the open one."""
        if self._open is not None or by is None:
            self._open = None
            return SectionEnd(match.group())
        found = {name: text or "" for name, text in match.groupdict().items()}
        self._open = by.open({name: found[name] for name in by.named_by_end})
        rule = by.rule
        return SectionStart(rule.name, rule.kind, found.get("info", "").strip(), match.group())


class _Rule:
    """
    A rule, compiled.

    Raises:
        SettingsError: One of its patterns cannot be used.
    """

    __slots__ = ("_budget_s", "named_by_end", "rule", "shipped", "start")

    def __init__(self, rule: SectionRule) -> None:
        self.rule = rule
        self.shipped = rule in DEFAULT_SECTIONS
        # Ours need no watching, which makes a search three times as slow.
        self._budget_s = None if self.shipped else _BUDGET_S
        self.start = Probe(rule.start, self._budget_s)
        self.named_by_end = frozenset(_GROUP.findall(rule.end))
        for name in self.named_by_end.difference(regex.compile(rule.start).groupindex):
            raise SettingsError(f"start has no group {name!r}")
        self._end(dict.fromkeys(self.named_by_end, "x"))

    def open(self, groups: dict[str, str]) -> _Open:
        """Begin a part at a marker with *groups*, by name. It has no end where they make it no pattern."""
        try:
            return _Open(self, groups, self._end(groups))
        except SettingsError:  # they are empty, and an end that is everywhere is none
            return _Open(self, groups, _UNENDING)

    def _end(self, groups: dict[str, str]) -> Probe:
        """Put what the groups matched into the pattern of the end."""
        end = _GROUP.sub(lambda found: regex.escape(groups.get(found[1], "")), self.rule.end)
        return _end_probe(end, self._budget_s)


class _Open(NamedTuple):
    """A part that is open, and what ends it."""

    by: _Rule
    groups: dict[str, str]
    end: Probe


class _RuleSet:
    """Rules, compiled once for all chunks."""

    def __init__(self, rules: tuple[SectionRule, ...]) -> None:
        compiled = []
        for rule in rules:
            try:
                compiled.append(_Rule(rule))
            except SettingsError as error:
                raise SettingsError(f"section {rule.name!r}: {error}") from error
        self.named = {by.rule.name: by for by in compiled}
        if len(self.named) < len(rules):
            names = ", ".join(rule.name for rule in rules)
            raise SettingsError(f"two section rules have one name: {names}")
        self.starts = [(by, by.start) for by in compiled]
        self.own = [by.start for by in compiled if not by.shipped]
        self.any_shipped = len(self.own) < len(rules)


_sets: Final[dict[tuple[SectionRule, ...], _RuleSet]] = {}
_ends: Final[dict[tuple[str, float | None], Probe]] = {}
_ENDS_MAX: Final = 256
"""Ends that name a group are as many as the groups' texts: start over before they pile up."""


def _rule_set(rules: tuple[SectionRule, ...]) -> _RuleSet:
    made = _sets.get(rules)
    if made is None:
        made = _sets[rules] = _RuleSet(rules)
    return made


def _end_probe(end: str, budget_s: float | None) -> Probe:
    made = _ends.get((end, budget_s))
    if made is None:
        if len(_ends) >= _ENDS_MAX:
            _ends.clear()
        made = _ends[end, budget_s] = Probe(end, budget_s)
    return made


def _add_text(parts: list[SectionPart], text: str) -> None:
    if text:
        parts.append(SectionText(text))
