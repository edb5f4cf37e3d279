"""The harness is sound: each guarantee that is broken on purpose is seen, as what it is."""

from pathlib import Path

import pytest

from faults.harness import Harness
from faults.sabotage import SABOTAGES, SEEN_AS
from faults.schedule import Fault, Schedule

# A pick of 0.008 is the first process, and the way of freezing that lets replies through.
PROVOKED_BY = {
    "no-term-check": [Fault(1.0, "worker.freeze", 0.0, 3.5), Fault(5.0, "worker.freeze", 0.9, 3.5)],
    "no-version-check": [
        Fault(1.0, "worker.partition", 0.008, 3.0),
        Fault(2.0, "worker.partition", 0.9985, 3.0),
        Fault(4.5, "worker.partition", 0.508, 3.0),
    ],
    "no-dedupe": [Fault(0.5 + 0.4 * n, "producer.cut", n / 12, 0.0) for n in range(12)],
    "publish-outside": [
        Fault(1.0, "worker.kill", 0.0, 0.0),
        Fault(2.5, "worker.kill", 0.5, 0.0),
        Fault(4.0, "worker.kill", 0.9, 0.0),
    ],
    "wake-dropped": [Fault(0.5, "reader.reconnect", 0.0, 0.0)],
    # The owners die, too: they would know where they were.
    "epoch-kept": [
        Fault(1.5, "server.lose", 0.9, 0.2),
        *(Fault(2.0, "worker.kill", pick, 0.0) for pick in (0.0, 0.4, 0.8)),
    ],
}
SLACK = 3.0
"""Other tests may have this machine under load: times are shown by a run of its own."""

DRAINS_S = (2.5, 8.0, 20.0)
"""
Replies that are still open then count as `no end`: that kind is expected of one switch only.

Each is a run: on a machine with other work, what was broken may do its harm later than the first waits.
"""


@pytest.mark.parametrize("name", sorted(SABOTAGES))
async def test_what_is_broken_on_purpose_is_seen(name: str, tmp_path: Path) -> None:
    faults = PROVOKED_BY[name]
    schedule = Schedule(faults, faults[-1].at_s + faults[-1].lasts_s + 1.0)
    drains_s = DRAINS_S[1:] if "no end" in SEEN_AS[name] else DRAINS_S
    kinds: set[str] = set()
    for drain_s in drains_s:
        folder = tmp_path / f"{drain_s:g}"
        folder.mkdir()
        harness = Harness("sabotage", schedule, folder, drain_s=drain_s, sabotage=name)
        result = await harness.run()
        assert sum(result.counts.values()) == len(faults)
        kinds |= {violation.kind for violation in result.violations}
        if kinds & SEEN_AS[name]:
            return
    pytest.fail(f"seen: {sorted(kinds)}; expected one of {sorted(SEEN_AS[name])}")


async def test_nothing_is_seen_where_nothing_is_broken(tmp_path: Path) -> None:
    """The same faults, all at once, and the product as it is: the control for the tests above."""
    faults = sorted(
        fault
        for name, provoking in PROVOKED_BY.items()
        for fault in provoking
        if name not in {"epoch-kept", "no-term-check"}
    )
    harness = Harness("control", Schedule(faults, 6.0), tmp_path, slack=SLACK)
    result = await harness.run()
    assert result.violations == []
    assert result.ends["completed"] > 10
    assert sum(result.counts.values()) == len(faults)


async def test_a_server_that_forgets_makes_no_reader_diverge(tmp_path: Path) -> None:
    """What it lost may be missing; what readers have under one position is one thing."""
    harness = Harness(
        "lose", Schedule(PROVOKED_BY["epoch-kept"], 6.0), tmp_path, drain_s=DRAINS_S[0]
    )
    result = await harness.run()
    kinds = {violation.kind for violation in result.violations}
    assert not kinds & {"diverged", "repeated", "reordered", "gap", "two owners"}
