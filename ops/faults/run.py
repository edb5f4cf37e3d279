"""
`make faults`: everything that can break, broken on a seeded schedule, and an oracle that watches.

Exits 1 on any violation. The same seed gives the same schedule and the same replies; how the processes
interleave is the machine's.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from faults.harness import Harness
from faults.report import table
from faults.sabotage import SABOTAGES
from faults.schedule import KINDS, make_schedule


def main() -> int:
    """Run as the options say; the exit code."""
    options = _options()
    seed = options.seed or secrets.token_hex(4)
    print(f"seed {seed}: make faults SECONDS={options.seconds:g} SEED={seed}", flush=True)
    schedule = make_schedule(seed, options.seconds, tuple(options.only or ()))
    folder = Path(tempfile.mkdtemp(prefix="riverdelta-faults-"))
    harness = Harness(
        seed,
        schedule,
        folder,
        drain_s=options.drain,
        sabotage=options.sabotage,
        slack=options.slack,
    )
    result = asyncio.run(harness.run())
    print(table(result, options.seconds))
    if result.violations:
        print(f"\nlogs of every process: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults are injected")
    parser.add_argument("--seed", help="replay this one; unset: drawn, and printed")
    parser.add_argument(
        "--drain", type=float, default=25.0, help="how long replies may take to end"
    )
    parser.add_argument(
        "--slack",
        type=float,
        default=1.0,
        help="let times be so many times what is promised: for a machine that others use, too",
    )
    parser.add_argument(
        "--only", action="append", choices=list(KINDS), help="one kind of fault; may be repeated"
    )
    parser.add_argument(
        "--sabotage", choices=sorted(SABOTAGES), help="break a guarantee, to see that it is seen"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
