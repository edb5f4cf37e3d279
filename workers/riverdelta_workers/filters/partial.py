r"""
Regular expressions over text that is still arriving: what matches, and what is undecided yet.

`Probe.find` is a plain search. `Probe.undecided` returns the first position from which more text could
still change the answer. It uses the same expression followed by a character that does not exist, so that
it never matches, with partial matching on. Every path through the expression then either fails on the
available text, or reaches its end; only the second kind makes a position undecided. Everything before
that position is final, a completed match included.

This holds for expressions that look at text only by matching it. What tests for the end of the text in
another way (``\b``, ``$``) would see an end where there is only a split; `portable` rewrites these as
lookarounds, and refuses the ones it cannot rewrite. Only one character before a position is available, so
lookbehinds are limited to one character.
"""

from __future__ import annotations

from typing import Final

import regex

from riverdelta.core.errors import SettingsError

_NEVER: Final = r"[^\x00-\U0010FFFF]"
"""Matches nothing. The regex module optimises simpler forms, so that they fail too early."""

_TRANSLATED: Final = {
    r"\b": r"(?:(?<=\w)(?!\w)|(?<!\w)(?=\w))",
    r"\B": r"(?:(?<=\w)(?=\w)|(?<!\w)(?!\w))",
    r"\m": r"(?:(?<!\w)(?=\w))",
    r"\M": r"(?:(?<=\w)(?!\w))",
    "^": r"(?<![^\n])",
    "$": r"(?![^\n])",
}
_REFUSED_ESCAPES: Final = frozenset("AGKLXZz")
_TOKEN: Final = regex.compile(
    r"\\[pPN]\{[^}]*\}|\\.|\[\^?\]?(?:\[:[^\]]*:\]|\\.|[^\]\\])*\]|\(\?<[=!]|\(\?[a-zA-Z0-9-]+[:)]|\(\*|\{|.",
    regex.DOTALL,
)
_ONE_CHARACTER: Final = regex.compile(
    r"(?:\\[pPN]\{[^}]*\}|\\[^bBmMAGKLXZz1-9]|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\^$()|\[*+?{])\)",
    regex.DOTALL,
)
_REPEAT: Final = regex.compile(r"\{\d*,?\d*\}")
_SAFE_FLAGS: Final = frozenset("aimsuf-")


class Probe:
    """
    One expression, compiled for both questions.

    Args:
        expression: In the syntax of the regex module, as `portable` allows it. ``^`` and ``$`` mean
            the beginning and the end of a line.
        budget_s: Seconds that one search may take; None: no limit.

    Raises:
        SettingsError: The expression does not compile, matches the empty text, or uses a construct
            that cannot be decided on text that is still arriving.
    """

    __slots__ = ("_budget_s", "_full", "_hard")

    def __init__(self, expression: str, budget_s: float | None = None) -> None:
        source = portable(expression)
        try:
            self._full = regex.compile(f"(?:{source})")
            self._hard = regex.compile(f"(?:{source}){_NEVER}")
        except regex.error as error:
            raise SettingsError(
                f"pattern {expression!r} is not a valid regular expression: {error}"
            ) from error
        if self._full.fullmatch("") is not None:
            raise SettingsError(
                f"pattern {expression!r} matches the empty text, which is everywhere"
            )
        self._budget_s = budget_s

    def find(self, text: str, at: int) -> regex.Match[str] | None:
        """
        Search *text* from *at* on, as if it were complete.

        Raises:
            TimeoutError: The budget is used up.
        """
        if self._budget_s is None:
            return self._full.search(text, at)
        return self._full.search(text, at, timeout=self._budget_s)

    def match(self, text: str, at: int) -> regex.Match[str] | None:
        """Like `find`, at *at* only."""
        if self._budget_s is None:
            return self._full.match(text, at)
        return self._full.match(text, at, timeout=self._budget_s)

    def quiet(self, text: str, at: int) -> bool:
        """
        Return, in one search, whether nothing from *at* on matches, nor could with more text.

        Raises:
            TimeoutError: The budget is used up.
        """
        if self._budget_s is None:
            match = self._full.search(text, at, partial=True)
        else:
            match = self._full.search(text, at, partial=True, timeout=self._budget_s)
        return match is None or match.start() == len(text)

    def undecided(self, text: str, at: int) -> int:
        """
        Return the first position from *at* on where more text could change `find`; else the length.

        Raises:
            TimeoutError: The budget is used up.
        """
        if self._budget_s is None:
            match = self._hard.search(text, at, partial=True)
        else:
            match = self._hard.search(text, at, partial=True, timeout=self._budget_s)
        return len(text) if match is None else match.start()


def portable(expression: str) -> str:
    """
    Rewrite *expression* so that only matched text decides it; see the module.

    Raises:
        SettingsError: It uses a construct that confuses a split with the end of the text, or that looks
            back further than one character.
    """
    out: list[str] = []
    at = 0
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        token = expression[at] if found is None else found.group()
        at += len(token)
        reason = _refusal(token, expression, at)
        if reason:
            raise SettingsError(f"pattern {expression!r}: {reason}")
        out.append(_TRANSLATED.get(token, token))
    return "".join(out)


def _refusal(piece: str, expression: str, at: int) -> str:
    """Return why *piece*, which ends at *at*, cannot be used; "" if it can."""
    if piece[0] == "\\" and piece[1:2] in _REFUSED_ESCAPES:
        return f"{piece} cannot be decided while text is still arriving"
    if piece in {"(?<=", "(?<!"} and _ONE_CHARACTER.match(expression, at) is None:
        return "a lookbehind must be of one character"
    if piece == "(*":
        return "backtracking verbs are not supported"
    if piece.startswith("(?") and piece[-1] in ":)" and not _SAFE_FLAGS.issuperset(piece[2:-1]):
        return f"{piece} is not supported"
    if piece == "{" and _REPEAT.match(expression, at - 1) is None:
        return "write a literal { as \\{; fuzzy matching is not supported"
    return ""
