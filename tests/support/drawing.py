"""How many examples hypothesis draws: few at each `make test`, many in CI."""

import os

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
"""``quick``, or ``thorough`` as `.ci/run` sets it."""


def examples(thorough: int) -> int:
    """Examples to draw: *thorough* of them in the profile of that name, a fifth otherwise."""
    return thorough if PROFILE == "thorough" else max(thorough // 5, 5)
