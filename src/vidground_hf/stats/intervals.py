"""Percentile bootstrap intervals of a mean and of a ratio of sums, from one value per row.

How resamples are drawn is in `resampling`; paired comparisons and p-values are not here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidground_hf.stats.resampling import Interval, bootstrap_ratios


def bootstrap_mean(
    values: ArrayLike,
    *,
    clusters: Sequence[int | str] | NDArray[np.int64] | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstraps the mean of `values`; see `bootstrap_ratio`, of which it is the case of a denominator of ones.

    Args:
        values (`float64[N]`): one value per row; nan marks an unscored row, which is left out.
        clusters (`int64[N]` or sequence of `str`, *optional*): the cluster of each row; `None` makes each row its own.
        num_resamples (`int`, *optional*, defaults to 1000): at least 1.
        confidence (`float`, *optional*, defaults to 0.95): in (0, 1).
        seed (`int`, *optional*, defaults to 0): the same seed gives the same interval.

    Returns:
        `Interval`: the mean over scored rows, with its bounds.

    Raises:
        `ValueError`: for lengths that differ, or settings out of range.

    Example:
        >>> bootstrap_mean([1.0, 0.0, 1.0, 1.0, float("nan")], seed=0)
        Interval(value=0.75, low=0.25, high=1.0)
    """
    values = np.asarray(values, dtype=np.float64)
    return bootstrap_ratio(
        values,
        np.ones_like(values),
        clusters=clusters,
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    clusters: Sequence[int | str] | NDArray[np.int64] | None = None,
    num_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Bootstraps `sum(numerator) / sum(denominator)` by drawing whole clusters with replacement.

    The bounds are percentiles of the resampled ratios (Efron and Tibshirani 1993, section 13.3; by cluster: Davison
    and Hinkley 1997, section 3.8). They are too narrow with few clusters, and have no width where every cluster has
    the same ratio.

    Args:
        numerator (`float64[N]`): one value per row; nan leaves the row out.
        denominator (`float64[N]`): one value per row, not negative; nan leaves the row out.
        clusters (`int64[N]` or sequence of `str`, *optional*): the cluster of each row, for example its video; `None`
            makes each row its own.
        num_resamples (`int`, *optional*, defaults to 1000): at least 1.
        confidence (`float`, *optional*, defaults to 0.95): in (0, 1).
        seed (`int`, *optional*, defaults to 0): the same seed gives the same interval.

    Returns:
        `Interval`: `None` where `resampling.bootstrap_ratios` has `None`.

    Raises:
        `ValueError`: for lengths that differ, or settings out of range.

    Example:
        >>> bootstrap_ratio([1.0, 3.0, 2.0], [2.0, 4.0, 2.0], clusters=["a", "a", "b"], seed=0)
        Interval(value=0.75, low=0.6666666666666666, high=1.0)
    """
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.asarray(denominator, dtype=np.float64)
    names = np.arange(top.size) if clusters is None else np.asarray(clusters)
    if not (top.ndim == 1 and top.shape == bottom.shape == names.shape):
        raise ValueError(
            f"got shapes {top.shape}, {bottom.shape} and {names.shape} for numerator, denominator and clusters; "
            "pass one value per row in each"
        )
    scored = ~(np.isnan(top) | np.isnan(bottom))
    rows, kinds = np.unique(np.stack([top[scored], bottom[scored]], axis=1), axis=0, return_inverse=True)
    _, cluster_of_row = np.unique(names[scored], return_inverse=True)
    return bootstrap_ratios(
        rows[:, :1],
        rows[:, 1:],
        kinds,
        None if clusters is None else cluster_of_row,
        num_resamples=num_resamples,
        confidence=confidence,
        seed=seed,
    )[0]
