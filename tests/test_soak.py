"""Curation survives what happens to long runs: kills, too little memory or disk, a read-only folder, a second run.

`VIDGROUND_SOAK_KILLS` sets the length: so many kills, and a tenth as many of every other disturbance.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.soak.disturbances import find_obstacle
from tests.soak.trials import Bench, list_trials, open_bench, run_trial

TRIALS = list_trials(int(os.environ.get("VIDGROUND_SOAK_KILLS", "4")))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with open_bench(tmp_path_factory.mktemp("soak")) as bench:
        yield bench


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), TRIALS, ids=[f"{kind} {seed}" for kind, seed in TRIALS])
def test_the_next_run_ends_as_if_nothing_had_happened(bench: Bench, kind: str, seed: int) -> None:
    if (obstacle := find_obstacle(kind)) is not None:
        pytest.skip(obstacle)
    run_trial(bench, kind, seed)
