"""Secrets of every shipped kind, and what one go over the whole text makes of them, by stdlib re."""

import re
from collections.abc import Iterable

from riverdelta_workers.filters import SHIPPED, Pattern
from riverdelta_workers.filters.redact import Redact

KEY_BLOCK = (
    "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7bq+/9==\nalice@example.com\n"
    "-----END PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----"
)
JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV"

SECRETS = {
    "private_key": KEY_BLOCK,
    "email": "alice.o'neil+tag@mail.example.co.uk",
    "card": "4111 1111 1111 1111",
    "anthropic_key": "sk-ant-api03-" + "Zk8_xY-q" * 11 + "AA",
    "openai_key": "sk-proj-" + "aB3dE6gH9j" * 5,
    "aws_key": "AKIAIOSFODNN7EXAMPLE",
    "github_token": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "github_pat": "github_pat_11ABCDEFG0" + "aZ09" * 15,
    "slack_token": "xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx",
    "google_key": "AIzaSyA1234567890abcdefghijklmnopqrstuvw",
    "stripe_key": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "jwt": JWT,
    "bearer_token": "Bearer mF_9.B5f-4.1JqM/abcdefghijk+lmn==",
}


def card_length(text: str) -> int:
    """Length of the longest card number at the start of *text*, digits in groups; every end by itself."""
    ends = [at for at, char in enumerate(text) if char in " -"]
    for end in [len(text), *reversed(ends)]:
        digits = [int(char) for char in text[:end] if char.isdigit()]
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
        if len(digits) >= 13 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0:
            return end
    return 0


def redacted(text: str, patterns: Iterable[Pattern] = SHIPPED) -> str:
    """The slow oracle: every pattern's matches on the whole text, their union replaced."""
    spans = []
    for order, pattern in enumerate(patterns):
        at = 0
        while at < len(text):
            head = _compiled(pattern.expression).match(text, at)
            length = len(head.group()) if head else 0
            if head and pattern.name == "card":
                length = card_length(head.group())
            if not head or not length:
                at += 1
                continue
            end = at + length
            after = end
            if pattern.until:
                marker = pattern.until.format(**head.groupdict())
                found = text.find(marker, end)
                end = len(text) if found < 0 else found + len(marker)
                after = end
            while pattern.tail and end < len(text) and _compiled(pattern.tail).match(text, end):
                end += 1
            spans.append((at, -length, order, end, pattern.shown))
            at = after
    out, covered = [], 0
    for start, _, _, end, shown in sorted(spans):
        if start >= covered:
            out += [text[covered:start], shown]
        covered = max(covered, end)
    return "".join([*out, text[covered:]])


def _compiled(expression: str) -> re.Pattern[str]:
    return re.compile(expression)


def outputs(
    deltas: Iterable[str], patterns: tuple[Pattern, ...] = SHIPPED, *, reload: bool = False
) -> list[str]:
    """What goes out for each delta, and at the end; *reload*: with another filter at each."""
    redact = Redact(patterns)
    out = []
    for delta in deltas:
        out.append(redact.feed(delta))
        assert redact.held <= redact.bound
        if reload:
            state = redact.dump()
            redact = Redact(patterns)
            redact.load(state)
            assert redact.dump() == state
    out.append(redact.finish())
    return out


SECRET = "sk-proj-" + "Ab3" * 16
TEXT = f"Write to eva.mueller@example.com, or use {SECRET} (grüße 🙂)."
