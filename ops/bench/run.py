"""
`make bench`: riverdelta beside its rivals, in one run, as ratios.

Every figure is taken several times, in turns with its rival's, on a server of the bench's own; the
median ratio and its spread are printed. Absolute figures are those of this machine, today.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from typing import Any

from bench import (
    codecs,
    cost,
    drain,
    filters,
    gateway,
    json_stream,
    latency,
    live,
    parser,
    push,
    ratios,
    stalls,
    view,
)
from bench.result import Row, table
from bench.server import BenchServer
from riverdelta_cli.processes.garbage import collect_less

Measure = Callable[..., tuple[list[Row], list[str]]]

MEASURES: dict[str, Measure] = {
    "drain": drain.measure,
    "latency": latency.measure,
    "push": push.measure,
    "live": live.measure,
    "cost": cost.measure,
    "gateway": gateway.measure,
    "codecs": codecs.measure,
    "json": json_stream.measure,
    "parser": parser.measure,
    "view": view.measure,
    "stalls": stalls.measure,
    "ratios": ratios.measure,
    "filters": filters.measure,
}


def main() -> None:
    """Measure what was asked for, and print it."""
    options = _options()
    logging.disable(logging.WARNING)
    collect_less()
    rows: list[Row] = []
    notes: list[str] = []
    started = time.monotonic()
    notes.append("garbage collector: as `riverdelta worker` sets it, for the rivals too")
    notes.append(
        f"load average before: {os.getloadavg()[0]:.1f} (the ratios hold on a machine left alone)"
    )
    for name in options.only or MEASURES:
        shape = {"chats": options.chats, "seconds": options.seconds} if name == "live" else {}
        with BenchServer() as server:
            more_rows, more_notes = MEASURES[name](server, quick=options.quick, **shape)
        rows += more_rows
        notes += more_notes
    notes.append(f"took {time.monotonic() - started:.0f} s")
    if options.json:
        result: dict[str, Any] = {"rows": [entry.as_json() for entry in rows], "notes": notes}
        print(json.dumps(result, indent=2))
        return
    print(table(rows))
    print()
    for note in notes:
        print(note)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a short smoke run: figures mean little"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--only", action="append", choices=list(MEASURES), help="one measurement; may be repeated"
    )
    parser.add_argument(
        "--chats", action="append", type=int, default=[], help="live: one size; may be repeated"
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="live: length of one window")
    return parser.parse_args()


if __name__ == "__main__":
    main()
