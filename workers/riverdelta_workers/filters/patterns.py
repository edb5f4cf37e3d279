"""
Patterns of `Redact`: the built-in ones, and those from settings.

A pattern is a head, which decides that there is a secret, and what of the following text belongs to
it as well. Heads of the shipped patterns are short and cannot grow past their bound: as soon as the
head is complete the replacement may go out, and the rest of the secret, of whatever length, is
swallowed as it comes. Nothing of it has to be kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from riverdelta_workers.filters.card_numbers import CARD_EXPRESSION, find_card
from riverdelta_workers.filters.partial import Probe

DEFAULT_BUDGET_S: Final = 0.05
"""
CPU seconds of one search. It looks at `SLICE` characters at most, which takes a few milliseconds where text
is hostile and microseconds where it is not; only backtracking gone wild takes this.
"""

SLICE: Final = 4096
"""Characters that a filter looks at in one step: a search holds the interpreter until it is done."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """
    A kind of secret.

    Args:
        name: Unique; the default replacement is ``[name]``.
        expression: Matches the head; see `Probe` for the syntax.
        max_length: Characters a head may have, what it looks ahead to included: what may be held
            back for this pattern. A candidate that is still undecided past it is taken for a secret.
        replacement: Goes out instead of the secret.
        tail: What each further character behind the head has to begin to be swallowed, too. None:
            the head is all; then a candidate longer than *max_length* takes everything with it, to
            the chunk's end.
        until: Everything from the head to this text is swallowed; ``{group}`` is what that group
            of *expression* matched.
        search: Where not every match of *expression* is a head: gets a text and an offset, and returns
            start and end of the first head from there on, or None. A head begins where a match does, and
            is no longer.
        budget_s: CPU seconds that one search may take; past it everything that is not settled is
            swallowed, to the chunk's end. None: no limit.
        finite: No match or undecided candidate is longer than *max_length*, whatever the text.
        signed: What is written at `SIGNS` and `HOT` holds for it.
    """

    name: str
    expression: str
    max_length: int
    replacement: str = ""
    tail: str | None = None
    until: str | None = None
    search: Callable[[str, int], tuple[int, int] | None] | None = None
    budget_s: float | None = DEFAULT_BUDGET_S
    finite: bool = False
    signed: bool = False

    @property
    def shown(self) -> str:
        """What goes out instead of the secret."""
        return self.replacement or f"[{self.name}]"

    def probe(self) -> Probe:
        """Compile the head."""
        return Probe(self.expression, self.budget_s)


class RedactRule(BaseModel):
    r"""
    A custom pattern from settings.

    Give quantifiers upper bounds (``\w{1,64}`` rather than ``\w+``): a candidate still undecided
    after *max_length* characters is hidden, and without a *tail* all that follows it, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    expression: str = Field(min_length=1)
    replacement: str = ""
    max_length: int = Field(default=256, ge=1, le=4096)
    tail: str | None = None
    budget_s: float = Field(default=DEFAULT_BUDGET_S, gt=0, le=1)

    def pattern(self) -> Pattern:
        """
        Make the pattern.

        Raises:
            SettingsError: The expression cannot be used; the text says why.
        """
        made = Pattern(
            name=self.name,
            expression=self.expression,
            replacement=self.replacement,
            max_length=self.max_length,
            tail=self.tail,
            budget_s=self.budget_s,
        )
        made.probe()
        if self.tail is not None:
            Probe(self.tail, self.budget_s)
        return made


# Scripts that put spaces between words. Others (Chinese, Thai) would be held back by the clause, as
# every word may turn out to be the local part of an address.
_LETTERS: Final = r"A-Za-z\u00C0-\u024F\u0370-\u052F"
_KEY: Final = "[A-Za-z0-9_-]"


def _key(name: str, expression: str, max_length: int, tail: str = _KEY) -> Pattern:
    return Pattern(name, expression, max_length, tail=tail, finite=True, signed=True)


SHIPPED: Final[tuple[Pattern, ...]] = (
    Pattern(
        "private_key",
        r"-----BEGIN (?P<label>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----",
        80,
        until="-----END {label}-----",
        finite=True,
        signed=True,
    ),
    # Only as far as the top-level domain's second letter; one quoted or in brackets is found, too.
    Pattern(
        "email",
        rf"[{_LETTERS}0-9_](?:[{_LETTERS}0-9_.%+-]|'(?=[{_LETTERS}0-9_])){{0,63}}"
        rf"@(?:[{_LETTERS}0-9-]{{1,63}}\.){{1,4}}?[{_LETTERS}]{{2}}",
        330,
        tail=rf"[{_LETTERS}0-9]|[.-](?=[{_LETTERS}0-9])",
        finite=True,
        signed=True,
    ),
    Pattern(
        "card",
        CARD_EXPRESSION,
        40,
        search=find_card,
        finite=True,
        signed=True,
    ),
    _key("anthropic_key", rf"sk-ant-{_KEY}{{20}}", 28),
    # Inside a word ("task-oriented-dialogue-systems") only with a digit or capital; else at its start.
    _key("openai_key", rf"(?:(?<![A-Za-z0-9])sk-|sk-(?=[a-z_-]{{0,19}}[A-Z0-9])){_KEY}{{20}}", 24),
    _key("aws_key", "A(?:KI|SI)A[A-Z0-9]{16}", 21, "[A-Z0-9]"),
    _key("github_token", "gh[pousr]_[A-Za-z0-9]{20}", 25, "[A-Za-z0-9_]"),
    _key("github_pat", "github_pat_[A-Za-z0-9_]{20}", 32, "[A-Za-z0-9_]"),
    _key("slack_token", "xox[abceoprs]-[A-Za-z0-9-]{13}", 20, "[A-Za-z0-9-]"),
    _key("google_key", rf"AIza{_KEY}{{35}}", 40),
    _key("stripe_key", "[rs]k_(?:live|test)_[A-Za-z0-9]{16}", 25, "[A-Za-z0-9_]"),
    # Base64 of a JSON object's beginning; header, claims and signature, dots between them.
    _key("jwt", rf"eyJ{_KEY}{{17}}", 21, rf"{_KEY}|\.(?={_KEY})"),
    _key(
        "bearer_token",
        r"[Bb]earer[ \t]{1,4}[A-Za-z0-9._~+/=-]{20}",
        32,
        "[A-Za-z0-9._~+/=-]",
    ),
)
"""On by default where `redact` is; the earlier of two that match alike gives the replacement."""

# What lets most text pass without asking any pattern. All of it follows from the expressions above.

SIGNS: Final = re.compile(
    r"@|[0-9](?:[ -]?[0-9]){12}|A(?:KI|SI)A|AIza|eyJ|sk-|gh[pousr]_|github_pat_|xox"
    r"|k_(?:live|test)|earer|BEGIN"
)
"""
In text without a sign there is no secret, and only `LOOSE_END` may become one. For every secret holds a
sign, and what may become one and holds none is a word, or digits in groups.
"""

LOOSE_END: Final = re.compile(
    rf"(?<![{_LETTERS}0-9_.%+'-])[{_LETTERS}0-9_.%+'-]*\Z|(?<![0-9])(?:[0-9]+[ -])+[0-9]*\Z"
)

LOOSE_END_MAX: Final = 64
"""Of a longer word only the end is part of what it may become: the local part of an address."""

HOT: Final = re.compile(r"[^ !-,./:-?A-~\u00C0-\u052F]")
HOT_WORD: Final = "earer"
"""
In fewer than `COLD_MAX` characters with neither of these there is no secret, and only what follows the
last space may become one. For so short a secret holds an ``@`` or digits, and a space in what may
become one is behind a digit, a dash or *Bearer*. `HOT` finds ``@``, digits, dashes, and what is not
Latin, Greek, Cyrillic or printable (let `LOOSE_END` judge that). One class and one word: a quick scan.
"""

COLD_MAX: Final = 18
