"""Joint bootstrap of ratios: parity with drawing clusters one by one, exact cases, and every refusal."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vidground_hf.stats import resampling
from vidground_hf.stats.resampling import Interval, bootstrap_ratios

RIGHT_WRONG = np.array([[1.0], [0.0]])
ONES = np.ones((2, 1))


def make_rows(num_clusters: int, rows_in_each: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Kinds and clusters of right (0) and wrong (1) rows; clusters differ in how often they are right."""
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(num_clusters), rows_in_each)
    kinds = (rng.random(len(clusters)) > rng.beta(2, 1, num_clusters)[clusters]).astype(np.int64)
    return kinds, clusters


def draw_one_by_one(kinds: NDArray[np.int64], clusters: NDArray[np.int64], num_resamples: int) -> list[float]:
    """Bounds of the share of right rows, from the definition."""
    rng, num_clusters = np.random.default_rng(9), clusters.max() + 1
    rights, sizes = np.bincount(clusters, weights=kinds == 0), np.bincount(clusters)
    drawn = rng.integers(num_clusters, size=(num_resamples, num_clusters))
    return np.quantile(rights[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975]).tolist()


@pytest.mark.parametrize("is_clustered", [True, False])
def test_agrees_with_drawing_clusters_one_by_one(is_clustered: bool) -> None:
    kinds, clusters = make_rows(num_clusters=200, rows_in_each=4)
    value, *bounds = bootstrap_ratios(
        RIGHT_WRONG, ONES, kinds, clusters if is_clustered else None, num_resamples=20_000
    )[0]
    assert value == 1 - kinds.mean()
    expected = draw_one_by_one(kinds, clusters if is_clustered else np.arange(800), num_resamples=4_000)
    assert bounds == pytest.approx(expected, abs=0.004)


def test_both_ways_of_drawing_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    # Clusters of 1 to 40 rows: 40 sorts among 400 clusters is the border between the two ways.
    rng = np.random.default_rng(1)
    sizes = np.repeat(np.arange(1, 41), 10)
    clusters = np.repeat(np.arange(400), sizes)
    kinds = (rng.random(len(clusters)) < 0.3).astype(np.int64)
    one_by_one = bootstrap_ratios(RIGHT_WRONG, ONES, kinds, clusters, num_resamples=5_000)[0]
    monkeypatch.setattr(resampling, "DRAWN_SORTS", np.inf)
    multinomial = bootstrap_ratios(RIGHT_WRONG, ONES, kinds, clusters, num_resamples=5_000)[0]
    assert multinomial != one_by_one
    assert multinomial.low == pytest.approx(one_by_one.low, abs=0.003)
    assert multinomial.high == pytest.approx(one_by_one.high, abs=0.003)


def test_clusters_of_equal_content_are_one_sort() -> None:
    # Contents {right, wrong}, {wrong, right}, {right, right}: two sorts, whatever the order inside.
    columns = np.array([[1.0, 10.0], [0.0, 100.0]])
    sums, times = resampling._sort_clusters(columns, np.array([0, 1, 1, 0, 0, 0]), np.array([0, 0, 1, 1, 2, 2]))
    assert sorted(zip(sums.tolist(), times.tolist(), strict=True)) == [([1.0, 110.0], 2), ([2.0, 20.0], 1)]


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds, clusters = make_rows(num_clusters=60, rows_in_each=3)
    whole = bootstrap_ratios(RIGHT_WRONG, ONES, kinds, clusters, num_resamples=100)
    monkeypatch.setattr(resampling, "BLOCK_VALUES", 64)
    assert bootstrap_ratios(RIGHT_WRONG, ONES, kinds, clusters, num_resamples=100) == whole


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=40), seed=st.integers(0, 999)
)
def test_bounds_hold_the_value_and_ignore_the_order_of_rows(rows: list[tuple[int, int]], seed: int) -> None:
    kinds = np.array([kind for kind, _ in rows])
    _, clusters = np.unique([cluster for _, cluster in rows], return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    interval, shuffled = (
        bootstrap_ratios(RIGHT_WRONG, ONES, kinds[picked], clusters[picked], num_resamples=200, seed=seed)[0]
        for picked in (np.arange(len(rows)), order)
    )
    assert interval == shuffled
    assert interval.value == pytest.approx(1 - kinds.mean())
    if interval.low is None:
        assert clusters.max() == 0
    else:
        assert interval.high is not None
        assert 0 <= interval.low <= interval.high <= 1


def test_one_cluster_has_no_bounds() -> None:
    assert bootstrap_ratios(RIGHT_WRONG, ONES, np.array([0, 1]), np.array([0, 0])) == [Interval(0.5, None, None)]


def test_no_rows_and_no_denominator_are_none() -> None:
    nothing = Interval(None, None, None)
    assert bootstrap_ratios(RIGHT_WRONG, ONES, np.array([], dtype=np.int64)) == [nothing]
    assert bootstrap_ratios(RIGHT_WRONG, -ONES, np.array([0, 1])) == [nothing]
    # 0.1 + 0.2 - 0.3 is 5.6e-17 in floating point.
    cancelling = np.array([[0.1], [0.2], [-0.3]])
    assert bootstrap_ratios(np.ones((3, 1)), cancelling, np.array([0, 1, 2])) == [nothing]


def test_a_denominator_that_vanishes_in_too_many_resamples_leaves_no_bounds() -> None:
    # One row in 20 counts: a resample misses it with probability 0.95**20 = 0.36.
    kinds = np.array([0] + [1] * 19)
    assert bootstrap_ratios(RIGHT_WRONG, RIGHT_WRONG, kinds) == [Interval(1.0, None, None)]
    # Ten in 20: missed with probability 0.5**20.
    kinds = np.array([0] * 10 + [1] * 10)
    assert bootstrap_ratios(RIGHT_WRONG, RIGHT_WRONG, kinds) == [Interval(1.0, 1.0, 1.0)]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_resamples": 0}, "num_resamples = 0 is too few; pass at least 1"),
        ({"confidence": 1.0}, "confidence = 1.0 is out of range; pass a number in (0, 1)"),
    ],
)
def test_refuses_settings_out_of_range(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        bootstrap_ratios(RIGHT_WRONG, ONES, np.array([0, 1]), **setting)  # type: ignore[arg-type]
