"""Bootstrap intervals: exact values, coverage, clusters, and every refusal."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap

from vidground_hf.stats.intervals import bootstrap_mean, bootstrap_ratio
from vidground_hf.stats.resampling import Interval

NAN = float("nan")


def test_ratio_of_sums_is_exact_and_leaves_out_nan_rows() -> None:
    interval = bootstrap_ratio([1.0, NAN, 3.0, 9.0], [2.0, 5.0, 4.0, NAN])
    assert interval.value == 4 / 6
    # Two rows are left, with ratios 1/2 and 3/4: every resample lies between.
    assert (interval.low, interval.high) == (0.5, 0.75)


def test_mean_is_the_ratio_over_ones() -> None:
    values = np.array([0.0, 1.0, NAN, 0.5, 1.0])
    assert bootstrap_mean(values, seed=3) == bootstrap_ratio(values, np.ones(5), seed=3)
    assert bootstrap_mean(values).value == 2.5 / 4


@pytest.mark.parametrize(
    ("numerator", "denominator"), [([], []), ([NAN, NAN], [1.0, 1.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0], [NAN])]
)
def test_nothing_to_estimate_from_is_none(numerator: list[float], denominator: list[float]) -> None:
    assert bootstrap_ratio(numerator, denominator) == Interval(None, None, None)


def test_one_cluster_has_a_value_and_no_bounds() -> None:
    assert bootstrap_mean([0.0, 1.0], clusters=[7, 7]) == Interval(0.5, None, None)
    # A second cluster that is unscored does not count.
    assert bootstrap_mean([0.0, 1.0, NAN], clusters=["a", "a", "b"]) == Interval(0.5, None, None)


def test_resamples_without_denominator_are_left_out_while_they_are_few() -> None:
    # One of two rows counts: a quarter of the resamples miss it. Ten of twenty: one in a million.
    assert bootstrap_ratio([0.5, 0.0], [1.0, 0.0]) == Interval(0.5, None, None)
    assert bootstrap_ratio([0.5, 0.0] * 10, [1.0, 0.0] * 10) == Interval(0.5, 0.5, 0.5)


def test_matches_scipy_percentile_bootstrap_on_independent_rows() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=200)
    reference = scipy_bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=1).confidence_interval
    interval = bootstrap_mean(values, num_resamples=20000)
    assert interval.low == pytest.approx(reference.low, abs=0.01)
    assert interval.high == pytest.approx(reference.high, abs=0.01)


def test_covers_the_mean_with_clusters_and_not_without() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 10)
    covered = {True: 0, False: 0}
    for seed in range(200):
        values = rng.normal(size=40)[clusters] + 0.3 * rng.normal(size=400)
        for clustered in covered:
            interval = bootstrap_mean(values, clusters=clusters if clustered else None, num_resamples=200, seed=seed)
            assert interval.low is not None
            assert interval.high is not None
            covered[clustered] += interval.low <= 0 <= interval.high
    assert 0.88 <= covered[True] / 200 <= 0.99
    assert covered[False] / 200 < 0.65


def test_same_seed_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(1).normal(size=50)
    assert bootstrap_mean(values, seed=5) == bootstrap_mean(values, seed=5)
    assert bootstrap_mean(values, seed=5) != bootstrap_mean(values, seed=6)


def test_higher_confidence_is_wider() -> None:
    values = np.random.default_rng(1).normal(size=50)
    narrow, wide = bootstrap_mean(values, confidence=0.5), bootstrap_mean(values, confidence=0.99)
    assert narrow.low is not None
    assert narrow.high is not None
    assert wide.low is not None
    assert wide.high is not None
    assert wide.low < narrow.low < narrow.high < wide.high


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30), st.integers(0, 5))
def test_bounds_lie_among_the_values(values: list[float], seed: int) -> None:
    interval = bootstrap_mean(values, num_resamples=20, seed=seed)
    assert interval.value is not None
    assert interval.low is not None
    assert interval.high is not None
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    assert math.isclose(interval.value, math.fsum(values) / len(values), abs_tol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: bootstrap_ratio([1.0], [1.0, 2.0]),
            "got shapes (1,), (2,) and (1,) for numerator, denominator and clusters; pass one value per row in each",
        ),
        (lambda: bootstrap_mean([1.0, 2.0], clusters=[1]), "got shapes (2,), (2,) and (1,)"),
        (lambda: bootstrap_mean([[1.0]]), "got shapes (1, 1), (1, 1) and (1,)"),
        (lambda: bootstrap_mean([1.0], num_resamples=0), "num_resamples = 0 is too few; pass at least 1"),
        (lambda: bootstrap_mean([1.0], confidence=1.0), "confidence = 1.0 is out of range; pass a number in (0, 1)"),
    ],
)
def test_refusals_say_what_is_allowed(call, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
