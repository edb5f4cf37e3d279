"""`Sections`: cuts named parts out of a stream of plain text, by the patterns that begin and end them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

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

_GROUP: Final = regex.compile(r"\(\?P=(\w+)\)")


class Sections:
    """
    Cuts one chunk's text into parts; feed it deltas, end with `finish`.

    Deterministic, and independent of the split but for where texts are cut: texts and markers,
    joined, are the input. Parts do not nest; a part without its end ends with the chunk. A marker
    that is not complete yet is held back, up to `bound` characters; it goes out as text, in order,
    once it turns out to be none. A complete marker is reported with the character behind it.

    Args:
        rules: Tried in order where several begin at one place.

    Raises:
        SettingsError: A pattern cannot be used, *end* names a group that *start* lacks, or two
            rules have one name.
        TimeoutError: From `feed` and `finish`: an own pattern backtracks without end. Nothing went
            out; the caller decides what the chunk's text is now.
    """

    bound: Final = MARKER_MAX

    def __init__(self, rules: Sequence[SectionRule] = DEFAULT_SECTIONS) -> None:
        self._set = _rule_set(tuple(rules))
        self._before = ""  # the character before the held text: what line starts are known by
        self._held = ""
        self._open: SectionRule | None = None
        self._groups: dict[str, str] = {}  # of the open part's start, for its end

    @property
    def held(self) -> int:
        """Characters held back now."""
        return len(self._held)

    def feed(self, delta: str) -> list[SectionPart]:
        """Take *delta* and return what is certain now."""
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
            state["open"], state["groups"] = self._open.name, self._groups
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take up where *state* was dumped; a part whose rule is gone goes on as ordinary text."""
        self._before, self._held = state.get("before", ""), state.get("held", "")
        self._open = self._set.named.get(state.get("open", ""))
        self._groups = dict(state.get("groups", {})) if self._open is not None else {}

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
            rule, match, unsettled = self._next(window, at - base, final=ends)
            if match is not None:
                start = base + match.start()
                _add_text(parts, text[shown:start])
                parts.append(self._turn(rule, match))
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
    ) -> tuple[SectionRule | None, regex.Match[str] | None, int]:
        """The first marker that is certain, if nothing before it is open; and what is not settled."""
        probes = self._set.starts
        if self._open is not None:
            probes = [(self._open, _end_probe(self._open.end, self._groups))]
        best: regex.Match[str] | None = None
        by: SectionRule | None = None
        unsettled = len(text)
        for rule, probe in probes:
            if not final:
                unsettled = min(unsettled, probe.undecided(text, at))
            match = probe.find(text, at)
            while match is not None and match.end() == match.start():
                match = probe.find(text, match.end() + 1) if match.end() < len(text) else None
            if match is not None and (best is None or match.start() < best.start()):
                by, best = rule, match
        if best is None or best.start() >= unsettled:
            return None, None, unsettled
        return by, best, unsettled

    def _turn(self, rule: SectionRule | None, match: regex.Match[str]) -> SectionPart:
        """Pass the marker: into *rule*'s part, or out of the open one."""
        if self._open is not None or rule is None:
            self._open, self._groups = None, {}
            return SectionEnd(match.group())
        groups = {name: value or "" for name, value in match.groupdict().items()}
        info = groups.pop("info", "").strip()
        self._open, self._groups = rule, groups
        return SectionStart(rule.name, rule.kind, info, match.group())


class _RuleSet:
    """Rules, compiled once for all chunks."""

    def __init__(self, rules: tuple[SectionRule, ...]) -> None:
        self.named = {rule.name: rule for rule in rules}
        if len(self.named) < len(rules):
            raise SettingsError("two section rules have one name")
        self.starts = [(rule, Probe(rule.start, _BUDGET_S)) for rule in rules]
        for rule in rules:
            known = regex.compile(rule.start).groupindex
            for name in _GROUP.findall(rule.end):
                if name not in known:
                    raise SettingsError(f"section {rule.name!r}: start has no group {name!r}")
            _end_probe(rule.end, dict.fromkeys(known, "x"))


_sets: Final[dict[tuple[SectionRule, ...], _RuleSet]] = {}
_ends: Final[dict[str, Probe]] = {}
_ENDS_MAX: Final = 256
"""Ends that name a group are as many as the groups' texts: start over before they pile up."""


def _rule_set(rules: tuple[SectionRule, ...]) -> _RuleSet:
    made = _sets.get(rules)
    if made is None:
        made = _sets[rules] = _RuleSet(rules)
    return made


def _end_probe(end: str, groups: dict[str, str]) -> Probe:
    """Compile *end* with the texts of the start's groups in it."""
    spelled = (
        _GROUP.sub(lambda found: regex.escape(groups.get(found[1], "")), end) if groups else end
    )
    made = _ends.get(spelled)
    if made is None:
        if len(_ends) >= _ENDS_MAX:
            _ends.clear()
        made = _ends[spelled] = Probe(spelled, _BUDGET_S)
    return made


def _add_text(parts: list[SectionPart], text: str) -> None:
    if text:
        parts.append(SectionText(text))
