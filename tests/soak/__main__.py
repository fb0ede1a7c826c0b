"""`python -m tests.soak --kills 100`: the trials of `tests/test_soak.py` without pytest, a line each.

Prints what happened; ends with 1 when a trial failed, and leaves its folder behind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.disturbances import find_obstacle
from tests.soak.trials import NUM_ROWS, list_trials, open_bench, run_trial


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak")
    parser.add_argument("--kills", type=int, default=100, help="Kills; of other disturbances a tenth.")
    parser.add_argument("--first", type=int, default=0, help="The first seed; others see other moments.")
    parser.add_argument("--only", help="Only this kind of disturbance.")
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help="Of the set that is curated.")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="vidground-soak-"))
    started, num_passed, num_failed = time.monotonic(), 0, 0
    with open_bench(folder, given.rows) as bench:
        for kind, seed in list_trials(given.kills, given.first):
            if given.only not in (None, kind):
                continue
            if (obstacle := find_obstacle(kind)) is not None:
                _say(f"skipped {kind} {seed}: {obstacle}")
                continue
            try:
                told = run_trial(bench, kind, seed)
            except AssertionError as error:
                num_failed += 1
                _say(f"FAILED {error}")
            else:
                num_passed += 1
                _say(f"passed {kind} {seed}: {told}")
    _say(f"{num_passed} passed, {num_failed} failed in {time.monotonic() - started:.0f} s, folder {folder}")
    return int(num_failed > 0)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
