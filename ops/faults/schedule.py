"""
Draw the time of each fault from a seed. Pure.

Storms and calms take turns. In a storm, many faults overlap. In a calm, each fault comes alone, with
enough time after it to measure how long a takeover took. Only reconnects of readers happen all the
time: they affect nothing else.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final, NamedTuple

FLOOR_SECONDS: Final = 300
"""The time that the floors are meant for; other times have them in proportion."""
FLOOR_MESSAGES: Final = 1000
_LEAD_S: Final = 1.0
_SETTLE_S: Final = 4.0
"""After a storm: a lease, and what follows it."""
_STORM_PACE_S: Final = 0.4
"""A storm has a fault this often, at most."""
_SECONDS_PER_STORM: Final = 30


class Kind(NamedTuple):
    """
    One kind of fault.

    Attributes:
        floor: Least number in 300 s.
        lasts_s: For how long: from, to. What that is depends on the kind.
        calm_share: Share of its faults that come alone.
        window_s: How long it is alone then.
    """

    floor: int
    lasts_s: tuple[float, float] = (0.0, 0.0)
    calm_share: float = 0.0
    window_s: float = 0.0


KINDS: Final[dict[str, Kind]] = {
    "worker.kill": Kind(30, calm_share=0.6, window_s=3.6),
    "worker.freeze": Kind(5, (2.6, 4.5)),
    "worker.roll": Kind(5, calm_share=1.0, window_s=6.0),
    "server.kill.always": Kind(5, (0.1, 1.5)),
    "server.kill.everysec": Kind(5, (0.1, 1.5)),
    "server.lose": Kind(5, (0.1, 0.5)),
    "producer.kill": Kind(5, calm_share=1.0, window_s=6.8),
    "producer.cut": Kind(5),
    "producer.freeze": Kind(5, (0.5, 2.5)),
    "producer.delay": Kind(5, (1.0, 3.0)),
    "producer.clock": Kind(5),
    "worker.cut": Kind(5),
    "worker.partition": Kind(5, (1.0, 6.0)),
    "worker.delay": Kind(5, (1.0, 3.0)),
    "worker.clock": Kind(5),
    "reader.cut": Kind(5),
    "reader.freeze": Kind(5, (0.5, 6.0)),
    "reader.delay": Kind(5, (1.0, 3.0)),
    "reader.clock": Kind(5),
    "reader.reconnect": Kind(60),
}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """
    One fault.

    Attributes:
        at_s: Since the start; later by as much as the harness had to wait before.
        kind: Of `KINDS`.
        pick: 0 to 1: which of the processes that there are then; also how much, where that matters.
        lasts_s: For how long.
        calm: No other fault comes near it: it is measured.
    """

    at_s: float
    kind: str
    pick: float
    lasts_s: float
    calm: bool = False


class Schedule(NamedTuple):
    """Faults in order, and when the last of them is over."""

    faults: list[Fault]
    seconds: float


def make_schedule(seed: str, seconds: float, kinds: tuple[str, ...] = ()) -> Schedule:
    """
    Draw the faults of a run.

    Args:
        seed: The same gives the same.
        seconds: How long they go on; longer, where the floors do not fit in.
        kinds: Only these; one that is named several times comes at least so often. Unset: all.
    """
    rng = random.Random(f"{seed}/schedule")
    calm: list[str] = []
    storm: list[str] = []
    for name, kind in KINDS.items():
        if name not in (kinds or KINDS) or name == "reader.reconnect":
            continue
        count = max(at_least(name, seconds), kinds.count(name))
        alone = math.ceil(kind.calm_share * count)
        calm += [name] * alone
        storm += [name] * (count - alone)
    rng.shuffle(calm)
    rng.shuffle(storm)
    storms = max(1, round(seconds / _SECONDS_PER_STORM)) if storm else 0
    quiet_s = sum(KINDS[name].window_s for name in calm) + storms * _SETTLE_S + _LEAD_S
    stormy_s = max(seconds - quiet_s, len(storm) * _STORM_PACE_S)
    faults: list[Fault] = []
    now_s = _LEAD_S
    parts = max(1, storms)
    for part in range(parts):
        some = storm[part::parts]
        length_s = stormy_s * len(some) / len(storm) if storm else 0.0
        faults += [_fault(rng, name, now_s + rng.random() * length_s, calm=False) for name in some]
        now_s += length_s + (_SETTLE_S if some else 0.0)
        for name in calm[part::parts]:
            faults.append(_fault(rng, name, now_s, calm=True))
            now_s += KINDS[name].window_s
    if not kinds or "reader.reconnect" in kinds:
        count = at_least("reader.reconnect", seconds)
        faults += [
            _fault(rng, "reader.reconnect", rng.uniform(_LEAD_S, now_s), calm=False)
            for _ in range(count)
        ]
    return Schedule(sorted(faults), max(now_s, seconds))


def at_least(name: str, seconds: float) -> int:
    """How often a kind comes in a run of *seconds*."""
    return math.ceil(KINDS[name].floor * seconds / FLOOR_SECONDS)


def at_least_messages(seconds: float) -> int:
    """How many messages a run of *seconds* has to have seen to show anything."""
    return math.ceil(FLOOR_MESSAGES * seconds / FLOOR_SECONDS)


def _fault(rng: random.Random, name: str, at_s: float, *, calm: bool) -> Fault:
    return Fault(
        round(at_s, 3), name, rng.random(), round(rng.uniform(*KINDS[name].lasts_s), 3), calm
    )
