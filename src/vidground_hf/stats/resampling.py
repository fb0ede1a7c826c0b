"""Bootstrap intervals of many ratios of sums at once, resampled by cluster, fast enough for millions of rows.

Rows come in kinds here; one value per row is what `intervals` takes. P-values are not here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Resamples are drawn in blocks of at most this many values (32 MiB), however many are asked for.
BLOCK_VALUES = 2**22
# From this share of sorts among clusters on, clusters are drawn one by one: a multinomial count costs 10 to 15 times
# as much as drawing one cluster and counting it (measured with numpy 2.4 on x86-64).
DRAWN_SORTS = 0.1
# Sums of a million fractions that cancel exactly are off by less than this.
ROUNDING = 1e-9


class Interval(NamedTuple):
    """An estimate and the interval around it.

    Attributes:
        value (`float`, *optional*): the estimate; `None` when there was nothing to estimate from.
        low (`float`, *optional*): lower bound; `None` when no interval can be stated.
        high (`float`, *optional*): upper bound; `None` exactly when `low` is.
    """

    value: float | None
    low: float | None
    high: float | None


def bootstrap_ratios(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    kinds: NDArray[np.int64],
    clusters: NDArray[np.int64] | None = None,
    *,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Bootstraps S ratios of sums from the same resamples, drawing whole clusters with replacement.

    Rows come in K kinds (for right-or-wrong answers, a handful), and clusters that hold the same kinds of rows are
    exchangeable. How often each sort of cluster is drawn is therefore multinomial, and a resample costs one draw per
    sort of cluster instead of one per cluster: the same distribution as drawing the clusters one by one, not an
    approximation. Where almost every cluster is of its own sort, clusters are drawn one by one.

    Args:
        numerators (`float64[K, S]`): what a row of each kind adds to each numerator.
        denominators (`float64[K, S]`): what it adds to each denominator; may be negative.
        kinds (`int64[N]`): the kind of each row, in [0, K).
        clusters (`int64[N]`, *optional*): the cluster of each row, in [0, C), none of them empty; `None` makes each
            row its own.
        num_resamples (`int`, *optional*, defaults to 10000): at least 1.
        confidence (`float`, *optional*, defaults to 0.95): in (0, 1); the bounds are percentiles of the resamples.
        seed (`int`, *optional*, defaults to 0): the same seed gives the same intervals, whatever the order of rows.

    Returns:
        `list[Interval]`: one for each ratio. All `None` where the denominator is not positive; bounds `None` with a
        single cluster, or where the denominator is not positive in more than `1 - confidence` of the resamples (our
        choice: the bounds of what is left would say too little).

    Raises:
        `ValueError`: for settings out of range.

    Example:
        >>> right_wrong = np.array([[1.0], [0.0]])
        >>> bootstrap_ratios(right_wrong, np.ones((2, 1)), np.array([0, 0, 0, 1]))
        [Interval(value=0.75, low=0.25, high=1.0)]
    """
    if num_resamples < 1:
        raise ValueError(f"{num_resamples = } is too few; pass at least 1")
    if not 0 < confidence < 1:
        raise ValueError(f"{confidence = } is out of range; pass a number in (0, 1)")
    if not len(kinds):
        return [Interval(None, None, None)] * numerators.shape[1]
    totals = np.bincount(kinds, minlength=len(numerators)) @ np.hstack([numerators, denominators])
    num_ratios = numerators.shape[1]
    sums, times = _sort_clusters(np.hstack([numerators, denominators]), kinds, clusters)
    resampled = _resample_sums(sums, times, num_resamples, seed)
    return [
        _state_interval(
            totals[index], totals[num_ratios + index], resampled[:, index], resampled[:, num_ratios + index],
            confidence=confidence, is_bounded=int(times.sum()) > 1,
        )
        for index in range(num_ratios)
    ]  # fmt: skip


def _sort_clusters(
    columns: NDArray[np.float64], kinds: NDArray[np.int64], clusters: NDArray[np.int64] | None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Finds the distinct sorts of cluster: their column sums `[T, 2S]` and how many clusters are of each `[T]`."""
    if clusters is None:
        times = np.bincount(kinds, minlength=len(columns))
        return columns[times > 0], times[times > 0]
    # The sum of one random 64-bit word per row (wrapping) names what a cluster holds, in any order. Two contents share
    # a name with a chance of C * C / 2**65: about 1e-9 for 200,000 clusters.
    words = np.random.default_rng(0).integers(2**64, size=len(columns), dtype=np.uint64)
    order = np.argsort(clusters, kind="stable")
    starts = np.flatnonzero(np.diff(clusters[order], prepend=-1))
    names = np.add.reduceat(words[kinds[order]], starts)
    _, first, times = np.unique(names, return_index=True, return_counts=True)
    sort_of_cluster = np.full(len(starts), -1)
    sort_of_cluster[first] = np.arange(len(first))
    sort_of_row = sort_of_cluster[np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))]
    kept = sort_of_row >= 0
    rows = kinds[order][kept]
    sums = [np.bincount(sort_of_row[kept], weights=column[rows]) for column in columns.T]
    return np.stack(sums, axis=1), times


def _resample_sums(
    sums: NDArray[np.float64], times: NDArray[np.int64], num_resamples: int, seed: int
) -> NDArray[np.float64]:
    """Draws `sum(times)` clusters with replacement, `num_resamples` times, and sums their columns `[R, 2S]`."""
    rng = np.random.default_rng(seed)
    num_clusters = int(times.sum())
    draws_clusters = len(times) > num_clusters * DRAWN_SORTS
    if draws_clusters:
        sums = np.repeat(sums, times, axis=0)
    block = max(1, BLOCK_VALUES // len(sums))
    drawn = np.empty((min(block, num_resamples), len(sums)))
    resampled = np.empty((num_resamples, sums.shape[1]))
    for start in range(0, num_resamples, block):
        size = min(block, num_resamples - start)
        if draws_clusters:
            for row in drawn[:size]:
                row[:] = np.bincount(rng.integers(num_clusters, size=num_clusters), minlength=num_clusters)
        else:
            drawn[:size] = rng.multinomial(num_clusters, times / num_clusters, size=size)
        resampled[start : start + size] = drawn[:size] @ sums
    return resampled


def _state_interval(
    top: float,
    bottom: float,
    tops: NDArray[np.float64],
    bottoms: NDArray[np.float64],
    *,
    confidence: float,
    is_bounded: bool,
) -> Interval:
    if not bottom > ROUNDING:
        return Interval(None, None, None)
    value = float(top / bottom)
    positive = bottoms > ROUNDING
    if not is_bounded or positive.mean() < confidence:
        return Interval(value, None, None)
    tail = (1 - confidence) / 2
    low, high = np.quantile(tops[positive] / bottoms[positive], [tail, 1 - tail])
    return Interval(value, float(low), float(high))
