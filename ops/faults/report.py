"""The table that a run prints."""

from __future__ import annotations

from collections import Counter
from typing import Final

from faults.harness import Result
from faults.measures import Measure
from faults.schedule import at_least, at_least_messages

_SHOWN: Final = 20


def table(result: Result, seconds: float) -> str:
    """Lay a result out for people."""
    lines = ["", f"{'fault':24}{'times':>6}{'floor':>7}"]
    lines += [
        f"{kind:24}{count:6}{at_least(kind, seconds):7}"
        for kind, count in sorted(result.counts.items())
    ]
    lines += ["", f"{'took':24}{'p50':>8}{'max':>8}{'bar':>8}   measured"]
    lines += [_times(measure) for measure in result.measures]
    ends = ", ".join(f"{count} {end}" for end, count in result.ends.most_common())
    lines += [
        "",
        f"{result.messages} messages ended, of {at_least_messages(seconds)} that show enough ({ends})",
        f"{result.events} events read, {result.seconds:.0f} s of faults, seed {result.seed}",
        *result.notes,
    ]
    kinds = Counter(violation.kind for violation in result.violations)
    if not kinds:
        return "\n".join([*lines, "", "violations: none"])
    lines += ["", "violations: " + ", ".join(f"{n} {kind}" for kind, n in kinds.most_common())]
    lines += [
        f"  {kind:16} {where}: {detail}" for kind, where, detail in result.violations[:_SHOWN]
    ]
    if len(result.violations) > _SHOWN:
        lines.append(f"  and {len(result.violations) - _SHOWN} more")
    return "\n".join(lines)


def _times(measure: Measure) -> str:
    if measure.p50 is None or measure.maximum is None:
        return f"{measure.name:24}{'-':>8}{'-':>8}{measure.most_s:7.1f}s   nothing"
    return (
        f"{measure.name:24}{measure.p50:7.2f}s{measure.maximum:7.2f}s{measure.most_s:7.1f}s"
        f"   {len(measure.times)} in {measure.faults} calm faults"
    )
