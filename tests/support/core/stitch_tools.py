"""The stitching rule, read slowly."""

import itertools

from riverdelta.core.stitch import MIN_OVERLAP


def stitched(delivered: str, new: str) -> str:
    """The rule of `Stitcher`, read slowly: the text that readers have at the end."""
    if new.startswith(delivered):
        return new
    begun = next(i for i in range(len(delivered) + 1) if delivered[: i + 1] != new[: i + 1])
    for overlap in range(min(len(delivered), len(new)), max(MIN_OVERLAP - 1, begun), -1):
        if delivered.endswith(new[:overlap]):
            return delivered + new[overlap:]
    return new


def split(text: str, cuts: set[int]) -> list[str]:
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    return [text[a:b] for a, b in itertools.pairwise(bounds)]
