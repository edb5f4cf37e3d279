"""
`Redact`: secrets out of a stream of text, before anyone can read a byte of them.

Every pattern looks through the text on its own, from left to right; what any of them covers is hidden.
Spans that overlap are one secret: it goes out as the replacement of the one that begins first, then of
the one with the longest head, then of the earlier pattern. Spans that only touch are two secrets. So
the result is a function of the text, and a secret that begins in the tail of another is found.

What goes out is the text before the first position that some pattern cannot judge yet. There are
four ways to that position, each for the text that the one before cannot judge:

1. The text is short and not `HOT`: what follows its last space is held. Ordinary prose.
2. It holds none of the `SIGNS` of a secret: its `LOOSE_END` is held, a word mostly.
3. No pattern matches: the first position undecided by any pattern.
4. Something matches: every pattern scans by itself, and what is swallowed beyond the text that is
   here (a tail, a block) is remembered as a mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final, Literal, NamedTuple

from riverdelta.core.errors import SettingsError
from riverdelta_workers.filters.json_strings import JsonStrings
from riverdelta_workers.filters.partial import Probe
from riverdelta_workers.filters.patterns import (
    COLD_MAX,
    HOT,
    HOT_WORD,
    LOOSE_END,
    LOOSE_END_MAX,
    SHIPPED,
    SIGNS,
    SLICE,
    Pattern,
)

Mode = Literal["scan", "until", "rest"]


@dataclass(slots=True)
class _Span:
    """Text to be hidden, by offsets into what is here; *shown*: its replacement has gone out."""

    start: int
    end: int
    head: int
    order: int
    replacement: str
    name: str
    shown: bool = False


class Redact:
    """
    Hides secrets in one chunk's text; a `StreamFilter`.

    Held back is at most `bound` characters: the largest ``max_length`` of *patterns*. A secret longer
    than that is no leak: behind a complete head its rest is swallowed as it comes, and a candidate
    that is still undecided at its bound is hidden with what follows it (`Pattern.tail`). A pattern
    that overruns its match-time budget hides everything that it had not settled and all that follows
    in the chunk: what was not searched is not shown. Both are counted in `counts`.

    Args:
        patterns: Unique names; order decides between equals. Or those of another filter, compiled.

    Raises:
        SettingsError: A pattern cannot be used, or two have one name.
    """

    def __init__(self, patterns: Sequence[Pattern] | _PatternSet = SHIPPED) -> None:
        if not isinstance(patterns, _PatternSet):
            patterns = _pattern_set(tuple(patterns))
        self._set = patterns
        self._made: list[_Scanner] | None = None
        self._before = ""  # the character before the held text: what lookbehinds see
        self._held = ""
        # Something beside the held text is remembered: only the fourth way is open.
        self._busy = False
        self._hot = self._hotness()
        self._spans: list[_Span] = []
        self.counts: dict[str, int] = {}

    @property
    def bound(self) -> int:
        """The most characters that are held back."""
        return self._set.bound

    @property
    def held(self) -> int:
        """Characters held back now."""
        return len(self._held)

    def feed(self, delta: str) -> str:
        """Take *delta* and return what may go out now."""
        if len(delta) <= SLICE:
            return self._feed(delta)
        slices = (delta[at : at + SLICE] for at in range(0, len(delta), SLICE))
        return "".join([self._feed(part) for part in slices])

    def _feed(self, delta: str) -> str:
        text = self._held + delta
        if len(text) < COLD_MAX and self._hot(text) is None and HOT_WORD not in text:
            calm, space, self._held = text.rpartition(" ")
            if not space:
                return ""
            self._before = space
            return calm + space
        if self._set.signed and not self._busy and SIGNS.search(text) is None:
            end = LOOSE_END.search(text)
            at = max(0 if end is None else end.start(), len(text) - LOOSE_END_MAX)
            if at:
                self._before = text[at - 1]
            self._held = text[at:]
            return text[:at]
        return self._slowly(self._before + text, final=False)

    def finish(self) -> str:
        """Take the end of the chunk and return the rest."""
        if self._set.signed and not self._busy and SIGNS.search(self._held) is None:
            rest, self._held = self._held, ""
            return rest
        return self._slowly(self._before + self._held, final=True)

    def for_json(self) -> JsonStrings:
        """Make the filter of JSON text with the same patterns."""
        return JsonStrings(lambda: Redact(self._set))  # one for each string: it must be quick

    def dump(self) -> dict[str, Any]:
        """Everything remembered; offsets count from the beginning of ``held``'s context."""
        state: dict[str, Any] = {}
        if self._before or self._held:
            state["before"], state["held"] = self._before, self._held
        if self._busy:
            state["spans"] = [list(astuple(span)) for span in self._spans]
            state["scanners"] = {
                scanner.part.pattern.name: scanner.dump(self._spans)
                for scanner in self._scanners
                if not scanner.resting
            }
        if self.counts:
            state["counts"] = dict(self.counts)
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Take up where *state* was dumped, by a filter with the same patterns."""
        self._before, self._held = state.get("before", ""), state.get("held", "")
        self._busy = "scanners" in state
        self._hot = self._hotness()
        self._spans = [_Span(*fields) for fields in state.get("spans", ())]
        scanners = state.get("scanners", {})
        for scanner in self._scanners if self._busy or self._made else ():
            scanner.load(scanners.get(scanner.part.pattern.name), self._spans)
        self.counts = dict(state.get("counts", {}))

    @property
    def _scanners(self) -> list[_Scanner]:
        """One for each pattern, made when the fourth way is first taken: most texts never need them."""
        if self._made is None:
            self._made = [_Scanner(part, order) for order, part in enumerate(self._set.parts)]
        return self._made

    def _hotness(self) -> Callable[[str], object]:
        """What tells text that is not cold; everything, where the first way is shut."""
        return HOT.search if self._set.signed and not self._busy else _always

    # -- the third and the fourth way ------------------------------------------------------------

    def _slowly(self, text: str, *, final: bool) -> str:
        """*text* is the character before, what was held, and what is new."""
        start = len(self._before)
        if not self._busy:
            calm = self._set.calm_until(text, start, final=final)
            if calm is not None:
                self._keep(text, calm)
                return text[start:calm]
        frontier = len(text)
        for scanner in self._scanners:
            frontier = min(
                frontier, scanner.run(text, start, self._spans, self.counts, final=final)
            )
        shown = self._show(text, start, frontier)
        self._move(text, frontier)
        return shown

    def _show(self, text: str, start: int, frontier: int) -> str:
        """Return the text between *start* and *frontier* with replacements instead of secrets."""
        out: list[str] = []
        covered = max((span.end for span in self._spans if span.shown), default=0)
        fresh = [span for span in self._spans if not span.shown and span.start < frontier]
        fresh.sort(key=lambda span: (span.start, -span.head, span.order))
        for span in fresh:
            if span.start >= covered:
                out.append(text[max(start, covered) : span.start])
                out.append(span.replacement)
                self.counts[span.name] = self.counts.get(span.name, 0) + 1
            span.shown = True
            covered = max(covered, span.end)
        out.append(text[max(start, covered) : frontier])
        return "".join(out)

    def _keep(self, text: str, frontier: int) -> None:
        if frontier:
            self._before = text[frontier - 1]
        self._held = text[frontier:]

    def _move(self, text: str, frontier: int) -> None:
        """Drop what is settled, and count offsets from the character before the frontier."""
        self._keep(text, frontier)
        origin = len(self._before)
        shift = frontier - origin
        growing = {id(span) for scanner in self._scanners for span in scanner.growing}
        self._spans = [s for s in self._spans if s.end > frontier or id(s) in growing]
        for span in self._spans:
            span.start, span.end = span.start - shift, span.end - shift
        for scanner in self._scanners:
            scanner.move(shift, origin)
        self._busy = bool(self._spans) or not all(s.resting for s in self._scanners)
        self._hot = self._hotness()


class _Head(NamedTuple):
    """A head that was found: offsets into the text, and what the groups matched."""

    start: int
    end: int
    groups: dict[str, str]


class _Part:
    """A pattern, compiled."""

    __slots__ = ("pattern", "probe", "tail")

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = pattern
        self.probe = pattern.probe()
        self.tail: tuple[Probe, Probe] | None = None
        if pattern.tail is not None:
            # The run of characters that begin a tail, and what may still become one.
            run = Probe(rf"(?:(?={pattern.tail})[\s\S])++", pattern.budget_s)
            self.tail = run, Probe(pattern.tail, pattern.budget_s)

    def found(self, text: str, at: int) -> bool:
        """Whether there is a head from *at* on."""
        search = self.pattern.search
        return (self.probe.find if search is None else search)(text, at) is not None

    def find(self, text: str, at: int) -> _Head | None:
        """The first head from *at* on that is not empty."""
        search = self.pattern.search
        if search is not None:
            span = search(text, at)
            return None if span is None else _Head(*span, {})
        match = self.probe.find(text, at)
        while match is not None and match.start() == match.end():
            at = match.end() + 1
            match = self.probe.find(text, at) if at <= len(text) else None
        return None if match is None else _Head(match.start(), match.end(), match.groupdict())

    def undecided(self, text: str, at: int) -> int:
        """As `Probe.undecided`; what is too far from the end to be undecided is not looked at."""
        if self.pattern.finite:
            at = max(at, len(text) - self.pattern.max_length)
        return self.probe.undecided(text, at)

    def tail_undecided(self, text: str, at: int, end: int) -> int:
        """As `undecided`, for what may go on with a tail from *at*; right up to *end*, else past it."""
        if self.tail is None:
            return len(text)
        if self.pattern.finite:
            at = max(at, len(text) - self.pattern.max_length)
            if at > end:
                return len(text)
        return self.tail[1].undecided(text, at)


class _PatternSet:
    """All patterns of a filter, compiled once for all chunks."""

    def __init__(self, patterns: tuple[Pattern, ...]) -> None:
        names = [pattern.name for pattern in patterns]
        if len(set(names)) < len(names):
            raise SettingsError(f"two patterns have one name: {', '.join(names)}")
        self.parts = [_Part(pattern) for pattern in patterns]
        self.bound = max((pattern.max_length for pattern in patterns), default=0)
        self._most = min((p.max_length for p in patterns if not p.finite), default=None)
        self.signed = self.bound >= LOOSE_END_MAX and all(pattern.signed for pattern in patterns)

    def calm_until(self, text: str, start: int, *, final: bool) -> int | None:
        """First position that is not settled, if nothing matches; None: something may."""
        if self._most is not None and len(text) - start > self._most:
            return None
        try:
            # One by one: each has its own literals to look for, a joint expression tries all at each place.
            if any(part.found(text, start) for part in self.parts):
                return None
            if final:
                return len(text)
            return min((part.undecided(text, start) for part in self.parts), default=len(text))
        except TimeoutError:
            return None


def _always(_text: str) -> object:
    """All text is hot."""
    return True


_sets: Final[dict[tuple[Pattern, ...], _PatternSet]] = {}


def _pattern_set(patterns: tuple[Pattern, ...]) -> _PatternSet:
    """Compile *patterns*, once per process: a filter is made for every chunk."""
    made = _sets.get(patterns)
    if made is None:
        made = _sets[patterns] = _PatternSet(patterns)
    return made


class _Tail:
    """A span whose tail has been followed up to the offset *at*, and may go on."""

    __slots__ = ("at", "span")

    def __init__(self, span: _Span, at: int) -> None:
        self.span = span
        self.at = at


class _Scanner:
    """
    One pattern's way through the text.

    It looks for heads from *at* on, behind the last head: a secret may begin in the tail of another,
    so tails are followed beside that. In the modes "until" and "rest" it only swallows: *span* grows.
    """

    __slots__ = ("at", "mode", "order", "part", "span", "tails", "until")

    def __init__(self, part: _Part, order: int) -> None:
        self.part = part
        self.order = order
        self.at = 0
        self.mode: Mode = "scan"
        self.until = ""
        self.span: _Span | None = None
        self.tails: list[_Tail] = []

    @property
    def growing(self) -> list[_Span]:
        """Spans that may become longer."""
        spans = [tail.span for tail in self.tails]
        return spans if self.span is None else [*spans, self.span]

    @property
    def resting(self) -> bool:
        """Nothing is remembered."""
        return self.mode == "scan" and not self.at and not self.tails

    def move(self, shift: int, origin: int) -> None:
        """Count offsets from *shift* on; what was found before *origin* is found no more."""
        self.at = max(self.at - shift, 0)
        if self.mode == "scan" and self.at <= origin:
            self.at = 0
        for tail in self.tails:
            tail.at -= shift

    def dump(self, spans: list[_Span]) -> list[Any]:
        """Everything remembered; spans by their places among *spans*."""
        places = {id(span): place for place, span in enumerate(spans)}
        tails = [[places[id(tail.span)], tail.at] for tail in self.tails]
        return [self.at, self.mode, self.until, places.get(id(self.span), -1), tails]

    def load(self, state: list[Any] | None, spans: list[_Span]) -> None:
        """Undo `dump`."""
        self.at, self.mode, self.until, place, tails = state or (0, "scan", "", -1, ())
        self.span = spans[place] if place >= 0 else None
        self.tails = [_Tail(spans[place], at) for place, at in tails]

    def run(
        self, text: str, start: int, spans: list[_Span], counts: dict[str, int], *, final: bool
    ) -> int:
        """Go on; add what is found to *spans*. Returns the first offset that is not settled."""
        here = _Text(text, final=final)
        self.at = max(self.at, start)
        try:
            settled = -1
            while settled < 0:
                settled = self._scan(here, spans) if self.mode == "scan" else self._swallow(here)
            settled = min(settled, self._follow(here))
        except TimeoutError:
            self._count(counts, "timeout")
            if self.span is None:
                self._open(max(self.at, here.clean), len(text), spans)
            for tail in self.tails:
                tail.span.end = len(text)
            self.tails, self.mode = [], "rest"
            settled = self._swallow(here)
        if here.overlong:
            self._count(counts, "overlong")
        return settled

    def _count(self, counts: dict[str, int], what: str) -> None:
        key = f"{what}:{self.part.pattern.name}"
        counts[key] = counts.get(key, 0) + 1

    def _scan(self, here: _Text, spans: list[_Span]) -> int:
        """Look for heads. Returns the first offset undecided; -1: from here on it only swallows."""
        pattern, at = self.part.pattern, self.at
        unsettled = -1
        while at < len(here.text):
            here.clean = at
            text, base = here.window(at, pattern)
            ends = here.final and base + len(text) == len(here.text)
            if ends:
                unsettled = len(text)
            elif not pattern.finite or unsettled < at:  # else known: the window is all there is
                unsettled = self.part.undecided(text, at - base)
            head = self.part.find(text, at - base)
            if head is not None and head.start < unsettled:
                at = base + head.end
                if self._found(here, base + head.start, at, head, spans):
                    return -1
            elif unsettled >= len(text):
                at = base + len(text)
            elif not pattern.finite and len(text) - unsettled > pattern.max_length:
                at = base + len(text)
                if self._overlong(here, base + unsettled, at, spans):
                    return -1
            elif base + len(text) < len(here.text):
                at = base + unsettled
            else:
                return base + unsettled
        return len(here.text)

    def _overlong(self, here: _Text, start: int, end: int, spans: list[_Span]) -> bool:
        """Hide a candidate that is undecided past its bound; True: and everything behind it."""
        here.overlong = True
        self.at = end
        self._open(start, end, spans)
        if self.part.tail is None:
            self.mode = "rest"
            return True
        self._begin_tail(end)
        return False

    def _found(self, here: _Text, start: int, end: int, head: _Head, spans: list[_Span]) -> bool:
        """Note a head; True: everything behind it is swallowed up to some text."""
        pattern = self.part.pattern
        self.at = end
        self._follow(here)
        if self.mode != "scan":
            return True  # a tail was overlong: nothing of what follows goes out
        if any(tail.at >= end for tail in self.tails):
            return False  # all of it is in the tail of another
        self._open(start, end, spans)
        if pattern.until is not None:
            self.until, self.mode = pattern.until.format(**head.groups), "until"
            return True
        self._begin_tail(end)
        return False

    def _open(self, start: int, end: int, spans: list[_Span]) -> None:
        pattern = self.part.pattern
        self.span = _Span(start, end, end - start, self.order, pattern.shown, pattern.name)
        spans.append(self.span)

    def _begin_tail(self, at: int) -> None:
        if self.span is not None and self.part.tail is not None:
            self.tails.append(_Tail(self.span, at))
        self.span = None

    def _swallow(self, here: _Text) -> int:
        """Extend the open span; -1: it is complete, and scanning goes on behind it."""
        text = here.text
        end, complete = len(text), False
        if self.mode == "until":
            found = text.find(self.until, self.at)
            complete = found >= 0
            if complete:
                end = found + len(self.until)
            elif not here.final:
                end -= _begun(text[self.at :], self.until)
        self.at = end
        if self.span is not None:
            self.span.end = max(self.span.end, end)
        if not complete:
            return end
        self.mode, self.until, self.span = "scan", "", None
        return -1

    def _follow(self, here: _Text) -> int:
        """Follow the tails through the text. Returns the first offset undecided."""
        going: dict[int, _Tail] = {}
        for tail in self.tails:
            goes_on = self._follow_one(here, tail)
            tail.span.end = max(tail.span.end, tail.at)
            if goes_on:
                going.setdefault(tail.at, tail)  # two at one place go on alike
        self.tails = list(going.values())
        return min(going, default=len(here.text))

    def _follow_one(self, here: _Text, tail: _Tail) -> bool:
        """Move *tail* as far as it is certain; False: it ends there."""
        text = here.text
        if self.part.tail is None:
            return False
        match = self.part.tail[0].match(text, tail.at)
        end = tail.at if match is None else match.end()
        most = self.part.pattern.max_length
        # What may begin a tail is judged like a head: by as many characters as may be held back.
        seen = text if len(text) - end <= most + 1 else text[: end + most + 1]
        unsettled = len(text) if here.final else self.part.tail_undecided(seen, tail.at, end)
        if unsettled <= end and unsettled < len(text):
            if len(text) - unsettled <= most:
                tail.at = unsettled
                return True
            here.overlong = True
            self.mode, self.span = "rest", tail.span
            end = self.at = len(text)
        tail.at = end
        return end == len(text) and self.mode == "scan"


class _Text:
    """The text of one `run`: all that is here, and whether it is all there will be."""

    __slots__ = ("clean", "final", "overlong", "text")

    def __init__(self, text: str, *, final: bool) -> None:
        self.text = text
        self.final = final
        self.overlong = False
        self.clean = 0  # before this offset no match begins that was not found

    def window(self, at: int, pattern: Pattern) -> tuple[str, int]:
        """
        Text from *at* on that decides about *at*, one character before it included, and its offset.

        What an own pattern may see of a candidate is bounded even where more text is here: else
        it would depend on the split what is a match and what is overlong.
        """
        if pattern.finite or len(self.text) - at <= pattern.max_length + 1:
            return self.text, 0
        base = max(at - 1, 0)
        return self.text[base : at + pattern.max_length + 1], base


def _begun(text: str, marker: str) -> int:
    """Length of the longest end of *text* that *marker* begins with."""
    length = min(len(text), len(marker) - 1)
    while length and not marker.startswith(text[-length:]):
        length -= 1
    return length
