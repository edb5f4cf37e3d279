"""
Tables of JSON tokens: which character may follow which in a number, a literal or an escape.

A token may be cut anywhere, so it is read by a table (`TOKENS`: state, character, next state) without
look-ahead; the functions at the end of this module decode finished tokens.
"""

from __future__ import annotations

import re
from typing import Final

LITERAL_END: Final = "literal"
ESCAPE_END: Final = "escape"
TOKEN_ENDS: Final = frozenset({LITERAL_END, ESCAPE_END})
NUMBER_ENDS: Final = frozenset({"0", "1", ".1", "e1"})
"""States in which a number may end; the next character decides."""
DIGIT_RUNS: Final = frozenset({"1", ".1", "e1"})
LITERALS: Final = {"true": True, "false": False, "null": None}
SHORT_ESCAPES: Final = dict(zip('"\\/bfnrt', '"\\/\b\f\n\r\t', strict=True))
_HEX: Final = "0123456789abcdefABCDEF"


def _on(*rules: tuple[str, str]) -> dict[str, str]:
    return {char: following for chars, following in rules for char in chars}


_DIGIT: Final = "0123456789"
TOKENS: Final[dict[str, dict[str, str]]] = {
    # Numbers. A state is named for the last character read: 0 is a leading zero, 1 any other digit.
    "-": _on(("0", "0"), ("123456789", "1")),
    "0": _on((".", "."), ("eE", "e")),
    "1": _on((_DIGIT, "1"), (".", "."), ("eE", "e")),
    ".": _on((_DIGIT, ".1")),
    ".1": _on((_DIGIT, ".1"), ("eE", "e")),
    "e": _on(("+-", "e+"), (_DIGIT, "e1")),
    "e+": _on((_DIGIT, "e1")),
    "e1": _on((_DIGIT, "e1")),
    # Literals.
    **{
        word[:read]: {word[read]: word[: read + 1] if read + 1 < len(word) else LITERAL_END}
        for word in LITERALS
        for read in range(1, len(word))
    },
    # Escapes. \uD800-\uDBFF is half a character: its other half, \uDC00-\uDFFF, must follow at once.
    "\\": _on(("".join(SHORT_ESCAPES), ESCAPE_END), ("u", "\\u")),
    "\\u": _on(("0123456789abcefABCEF", "\\u1"), ("dD", "\\uD")),
    "\\uD": _on(("01234567", "\\u2"), ("89abAB", "\\high 2")),
    "\\u1": _on((_HEX, "\\u2")),
    "\\u2": _on((_HEX, "\\u3")),
    "\\u3": _on((_HEX, ESCAPE_END)),
    "\\high 2": _on((_HEX, "\\high 3")),
    "\\high 3": _on((_HEX, "\\high 4")),
    "\\high 4": _on(("\\", "\\low")),
    "\\low": _on(("u", "\\low u")),
    "\\low u": _on(("dD", "\\low 1")),
    "\\low 1": _on(("cdefCDEF", "\\u2")),
}
ESCAPE_STATES: Final = frozenset(state for state in TOKENS if state[0] == "\\")
FIRST: Final = _on(("123456789", "1")) | {char: char for char in "-0tfn\\"}
"""The state behind a token's first character."""


def unescape(escape: str) -> str:
    """Decode an escape."""
    if escape[1] != "u":
        return SHORT_ESCAPES[escape[1]]
    code = int(escape[2:6], 16)
    if len(escape) > 6:
        code = 0x10000 + ((code & 0x3FF) << 10 | int(escape[8:], 16) & 0x3FF)
    return chr(code)


_FRACTION_OR_EXPONENT: Final = re.compile("[.eE]").search
_MIN_INT: Final = -(2**63)
_MAX_INT: Final = 2**64 - 1
_MAX_INT_LENGTH: Final = 20
"""Length of the longer bound, sign included."""
_INFINITIES: Final = (float("inf"), float("-inf"))


def wire_number(literal: str) -> int | float | str:
    """
    Convert a JSON number to the form that events carry: its value, or its text where that is inexact.

    Integers from -2**63 to 2**64-1 become int, numbers with a fraction or an exponent float. An integer
    beyond that, and a number beyond double range (``1e400``), stays the string *literal*. Use it as
    ``parse_int`` and ``parse_float`` of ``json.loads`` to get what `JsonStream` gives.
    """
    if not _FRACTION_OR_EXPONENT(literal):
        if len(literal) > _MAX_INT_LENGTH:  # also: int() refuses 4,300 digits
            return literal
        integer = int(literal)
        return integer if _MIN_INT <= integer <= _MAX_INT else literal
    number = float(literal)
    return literal if number in _INFINITIES else number
