"""`blind_visual_gap` on 1,000,000 paired answers with 10,000 clustered resamples, beside `scipy.stats.bootstrap`.

Prints one JSON line; two minutes on one core. Each part runs in a process of its own, so that peak memory is its own.
`python benchmarks/gap_bootstrap.py [NUM_ROWS]`
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from vidground_hf.gap import measure_gap
from vidground_hf.metric_loading import load_metric
from vidground_hf.stats.gap import GapSettings, summarize_gap
from vidground_hf.stats.resampling import bootstrap_ratios

ROWS_PER_VIDEO = 5
NUM_RATIOS = 12  # that the metric bootstraps
NUM_RESAMPLES = 10_000
# scipy draws every video in every resample, so it gets as many resamples as take a few seconds, in small batches. Its
# data are sums by video, made beforehand.
SCIPY_RESAMPLES, SCIPY_BATCH = 50, 5


def make_scores(num_rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Visual scores, blind scores and videos; questions about one video are alike in difficulty."""
    rng = np.random.default_rng(0)
    videos = np.arange(num_rows) // ROWS_PER_VIDEO
    ease = rng.beta(4, 3, size=videos[-1] + 1)[videos]
    blind = rng.random(num_rows) < 0.7 * ease
    visual = rng.random(num_rows) < np.where(blind, 0.9, ease)
    return visual.astype(float), blind.astype(float), videos


def time_metric(num_rows: int) -> float:
    """The metric of `evaluate`, which writes the answers to an Arrow table and reads them again."""
    return _time_answers(num_rows, load_metric("blind_visual_gap").compute)


def time_measure_gap(num_rows: int) -> float:
    """The same without `evaluate`: checks, scoring of letters, twelve ratios with intervals, both tests."""
    return _time_answers(num_rows, measure_gap)


def _time_answers(num_rows: int, measure: Callable[..., Any]) -> float:
    visual, blind, videos = make_scores(num_rows)
    letters = np.array(["A", "B", "C", "D"])
    gold = np.random.default_rng(1).integers(4, size=num_rows)
    predictions, blind_predictions = (letters[(gold + (scores == 0)) % 4].tolist() for scores in (visual, blind))
    clusters = [f"video-{number}" for number in videos.tolist()]
    started = time.perf_counter()
    measure(
        predictions=predictions,
        blind_predictions=blind_predictions,
        references=letters[gold].tolist(),
        num_options=4,
        clusters=clusters,
        num_resamples=NUM_RESAMPLES,
    )
    return (time.perf_counter() - started) / NUM_RESAMPLES


def time_statistics(num_rows: int) -> float:
    """Twelve ratios and both tests from scores, four options each: videos are of 56 sorts."""
    return _time_summary(num_rows, np.full(num_rows, 1 / 4))


def time_mixed_options(num_rows: int) -> float:
    """The same with 3, 4 or 5 options in any mixture: videos are of a few thousand sorts."""
    return _time_summary(num_rows, 1 / np.random.default_rng(2).integers(3, 6, size=num_rows))


def time_any_options(num_rows: int) -> float:
    """The same with 2 to 10 options, the worst case: nearly every video is of its own sort, and drawn on its own.

    Drawing the random numbers alone takes about a sixtieth of scipy's time for twelve ratios.
    """
    return _time_summary(num_rows, 1 / np.random.default_rng(2).integers(2, 11, size=num_rows))


def _time_summary(num_rows: int, chance: NDArray[np.float64]) -> float:
    visual, blind, videos = make_scores(num_rows)
    started = time.perf_counter()
    summarize_gap(visual, blind, chance, clusters=videos, settings=GapSettings(num_resamples=NUM_RESAMPLES))
    return (time.perf_counter() - started) / NUM_RESAMPLES


def time_gap_alone(num_rows: int) -> float:
    """One ratio."""
    visual, blind, videos = make_scores(num_rows)
    started = time.perf_counter()
    kinds = (visual - blind).astype(np.int64) + 1
    bootstrap_ratios(np.array([[-1.0], [0.0], [1.0]]), np.ones((3, 1)), kinds, videos, num_resamples=NUM_RESAMPLES)
    return (time.perf_counter() - started) / NUM_RESAMPLES


def time_scipy(num_rows: int, num_ratios: int = 1) -> float:
    """scipy's bootstrap of the same number of ratios of sums by video."""
    visual, blind, videos = make_scores(num_rows)
    top = np.bincount(videos, weights=visual - blind)
    bottom = np.bincount(videos).astype(float)

    def divide(*sums: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.stack([sums[2 * k].sum(axis=axis) / sums[2 * k + 1].sum(axis=axis) for k in range(num_ratios)])

    started = time.perf_counter()
    bootstrap(
        (top, bottom) * num_ratios,
        divide,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=SCIPY_RESAMPLES,
        batch=SCIPY_BATCH,
        rng=np.random.default_rng(0),
    )
    return (time.perf_counter() - started) / SCIPY_RESAMPLES


def time_scipy_twelve(num_rows: int) -> float:
    """The same for as many ratios as the metric has."""
    return time_scipy(num_rows, NUM_RATIOS)


PARTS: dict[str, Callable[[int], float]] = {
    "metric": time_metric,
    "measure_gap": time_measure_gap,
    "statistics": time_statistics,
    "mixed_options": time_mixed_options,
    "any_options": time_any_options,
    "gap_alone": time_gap_alone,
    "scipy": time_scipy,
    "scipy_twelve": time_scipy_twelve,
}


def main(num_rows: int) -> None:
    """Runs every part and prints them with their ratios."""
    parts: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        command = [sys.executable, __file__, str(num_rows), part]
        parts[part] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    twelve = ("metric", "measure_gap", "statistics", "mixed_options", "any_options")
    pairs = (("gap_alone", "scipy"), *((part, "scipy_twelve") for part in twelve))
    key = "microseconds_per_resample"
    report = {
        "rows": num_rows,
        "resamples": NUM_RESAMPLES,
        **parts,
        "metric_seconds": round(parts["metric"][key] * NUM_RESAMPLES / 1e6, 2),
        "times_faster_than_scipy": {ours: round(parts[other][key] / parts[ours][key], 1) for ours, other in pairs},
    }
    print(json.dumps(report))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        seconds = PARTS[sys.argv[2]](int(sys.argv[1]))
        peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"microseconds_per_resample": round(1e6 * seconds, 1), "peak_gib": round(peak_gib, 2)}))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
