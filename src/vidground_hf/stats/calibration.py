"""Target-decoy competition: how many right answers are luck, and above which confidence few enough are.

What a row is, and what its verdict is called, are for `rules`; the derivation is in `docs/design/calibrated.md`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidground_hf.stats.intervals import bootstrap_ratio
from vidground_hf.stats.resampling import Interval

MAX_CURVE_POINTS = 200


class Cuts(NamedTuple):
    """What each possible threshold would drop, from the highest confidence to the lowest.

    Thresholds that would drop nothing are left out.

    Attributes:
        threshold (`float64[K]`): the distinct confidences; a cut takes every row at or above one.
        num_drops (`int64[K]`): right rows at or above it.
        expected_lucky_drops (`float64[K]`): summed weight of the wrong rows at or above it.
        estimated_error (`float64[K]`): (largest weight + `expected_lucky_drops`) / `num_drops`.
    """

    threshold: NDArray[np.float64]
    num_drops: NDArray[np.int64]
    expected_lucky_drops: NDArray[np.float64]
    estimated_error: NDArray[np.float64]

    def choose(self, alpha: float) -> int | None:
        """The position of the lowest threshold whose `estimated_error` is at most `alpha`, or `None`."""
        # The tolerance lets nine decoys of weight 1/9 count as 1 although their sum in floating point does not.
        allowed = np.flatnonzero(self.estimated_error <= alpha * (1 + 1e-9))
        return int(allowed[-1]) if allowed.size else None


def list_cuts(is_right: ArrayLike, confidence: ArrayLike, decoy_weight: ArrayLike) -> Cuts:
    """Lists what every threshold would drop; takes the arguments of `calibrate`.

    Example:
        >>> list_cuts([True, True, False], [0.9, 0.6, 0.6], [0.5, 0.5, 0.5]).estimated_error.tolist()
        [0.5, 0.5]
    """
    right = np.asarray(is_right, dtype=bool)
    confidence = np.asarray(confidence, dtype=np.float64)
    weight = np.asarray(decoy_weight, dtype=np.float64)
    if not (right.ndim == 1 and right.shape == confidence.shape == weight.shape):
        raise ValueError(
            f"got shapes {right.shape}, {confidence.shape} and {weight.shape} for is_right, confidence and "
            "decoy_weight; pass one value per judged row in each"
        )
    if np.isnan(confidence).any():
        raise ValueError(f"{int(np.isnan(confidence).sum())} confidences are nan; leave out rows without one")
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise ValueError(
            "decoy_weight allows finite numbers above 0; leave out rows whose options all equal the gold (n = g)"
        )
    lucky = np.where(right, 0.0, weight)
    order = np.lexsort((lucky, -confidence))  # within a tie by weight, so that sums do not depend on the row order
    sorted_confidence = confidence[order]
    ends_tie = np.append(np.diff(sorted_confidence) != 0, True)[: right.size]
    num_drops = np.cumsum(right[order])
    ends_tie &= num_drops > 0
    num_drops, expected_lucky = num_drops[ends_tie], np.cumsum(lucky[order])[ends_tie]
    estimated_error = (weight.max(initial=0.0) + expected_lucky) / num_drops
    return Cuts(sorted_confidence[ends_tie], num_drops, expected_lucky, estimated_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Where the confidence was cut, and what that is expected to cost.

    Attributes:
        alpha (`float`): the share of lucky drops that was allowed.
        num_rows (`int`): judged rows, right and wrong.
        threshold (`float`, *optional*): right rows at or above it are dropped; `None` when `alpha` cannot be met, and
            then nothing is dropped.
        num_drops (`int`): right rows at or above the threshold.
        expected_lucky_drops (`float`): summed weight of the wrong rows at or above the threshold.
        estimated_error (`Interval`): (largest weight + `expected_lucky_drops`) / `num_drops`, with an interval by
            bootstrap over clusters at the fixed threshold; all `None` when nothing is dropped.
        smallest_error (`float`, *optional*): the smallest estimate any threshold attains; `None` without a right row.
        expected_missed (`float`): right rows that were kept, less the summed weight of the wrong rows below the
            threshold: how many kept rows text is expected to answer. Noise can make it negative.
        single_shot_drops (`int`): what dropping every right row drops.
        single_shot_lucky_drops (`float`): how many of those are expected to be luck.
        single_shot_lucky_share (`float`, *optional*): their ratio, which exceeds 1 where answers are worse than
            chance; `None` without a right row.
        curve (`tuple[tuple[int, float], ...]`): (drops, estimated error) over all thresholds, thinned to about
            200 points.
    """

    alpha: float
    num_rows: int
    threshold: float | None
    num_drops: int
    expected_lucky_drops: float
    estimated_error: Interval
    smallest_error: float | None
    expected_missed: float
    single_shot_drops: int
    single_shot_lucky_drops: float
    single_shot_lucky_share: float | None
    curve: tuple[tuple[int, float], ...]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """Rebuilds what `dataclasses.asdict` gave, also after a round trip through JSON."""
        curve = tuple((int(num_drops), float(error)) for num_drops, error in values["curve"])
        return cls(**{**values, "estimated_error": Interval(*values["estimated_error"]), "curve": curve})


def calibrate(
    is_right: ArrayLike,
    confidence: ArrayLike,
    decoy_weight: ArrayLike,
    *,
    alpha: float,
    clusters: Sequence[int | str] | NDArray[np.int64] | None = None,
    seed: int = 0,
) -> Calibration:
    """Finds the lowest confidence above which the right answers are expected to hold at most a share `alpha` of luck.

    If the text says nothing about the answer, each of the n distinct options is equally likely to be the gold
    one. An answer then is right with probability g/n, so each wrong one stands for g/(n-g) lucky ones of the
    same confidence. Target-decoy competition: Elias and Gygi 2007; the added largest weight, which makes the share
    hold in finite samples: Barber and Candes 2015, section 4 (Selective SeqStep+).

    Args:
        is_right (`bool[N]`): whether the answer of each judged row is right.
        confidence (`float64[N]`): how sure the answerer was, without having seen the gold answer; not nan.
        decoy_weight (`float64[N]`): g/(n-g) of each row, right or wrong: n distinct options, g of them gold.
        alpha (`float`): largest share of lucky drops allowed, in (0, 1).
        clusters (`int64[N]` or sequence of `str`, *optional*): the video of each row, for the interval.
        seed (`int`, *optional*, defaults to 0): of the bootstrap.

    Returns:
        `Calibration`: with threshold `None`, and nothing dropped, when no threshold meets `alpha`.

    Raises:
        `ValueError`: for arrays that differ in length, `alpha` out of range, a nan confidence, a weight not above 0.

    Example:
        >>> is_right = [True] * 30 + [False] + [True, False] * 10
        >>> confidence = [2.0] * 30 + [1.0] + [0.0] * 20
        >>> calibration = calibrate(is_right, confidence, [1 / 3] * 51, alpha=0.05)
        >>> calibration.threshold, calibration.num_drops, round(calibration.estimated_error.value, 3)
        (1.0, 30, 0.022)
        >>> round(calibration.expected_missed, 3), round(calibration.single_shot_lucky_share, 3)
        (6.667, 0.092)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"{alpha = } is out of range; pass a number in (0, 1), for example 0.05")
    cuts = list_cuts(is_right, confidence, decoy_weight)
    if clusters is not None and len(clusters) != np.size(is_right):
        raise ValueError(f"got {len(clusters)} clusters for {np.size(is_right)} rows; pass one cluster per row")
    right = np.asarray(is_right, dtype=bool)
    weight = np.asarray(decoy_weight, dtype=np.float64)
    all_drops, all_lucky = int(right.sum()), float(weight[~right].sum())
    chosen = cuts.choose(alpha)
    threshold, num_drops, lucky_drops, error = None, 0, 0.0, Interval(None, None, None)
    if chosen is not None:
        threshold, num_drops = float(cuts.threshold[chosen]), int(cuts.num_drops[chosen])
        lucky_drops = float(cuts.expected_lucky_drops[chosen])
        error = _bound_error(right, np.asarray(confidence) >= threshold, weight, clusters, seed)
        error = error._replace(value=float(cuts.estimated_error[chosen]))  # the same but for rounding
    return Calibration(
        alpha=alpha,
        num_rows=right.size,
        threshold=threshold,
        num_drops=num_drops,
        expected_lucky_drops=lucky_drops,
        estimated_error=error,
        smallest_error=float(cuts.estimated_error.min()) if all_drops else None,
        expected_missed=(all_drops - num_drops) - (all_lucky - lucky_drops),
        single_shot_drops=all_drops,
        single_shot_lucky_drops=all_lucky,
        single_shot_lucky_share=all_lucky / all_drops if all_drops else None,
        curve=_thin_curve(cuts, chosen),
    )


def _bound_error(
    right: NDArray[np.bool_],
    is_above: NDArray[np.bool_],
    weight: NDArray[np.float64],
    clusters: Sequence[int | str] | NDArray[np.int64] | None,
    seed: int,
) -> Interval:
    """Bootstraps the estimated error at a fixed threshold."""
    names = np.arange(right.size) if clusters is None else np.asarray(clusters)
    _, cluster_of_row, cluster_sizes = np.unique(names, return_inverse=True, return_counts=True)
    # Each of the C clusters carries 1/C of the largest weight: a resample draws C of them, so it adds it exactly once.
    added = weight.max() / (cluster_sizes.size * cluster_sizes[cluster_of_row])
    return bootstrap_ratio(
        np.where(is_above & ~right, weight, 0.0) + added, is_above & right, clusters=cluster_of_row, seed=seed
    )


def _thin_curve(cuts: Cuts, chosen: int | None) -> tuple[tuple[int, float], ...]:
    """Takes about evenly spaced cuts, always with the first, the last and the chosen one."""
    if not cuts.threshold.size:
        return ()
    spaced = np.linspace(0, cuts.threshold.size - 1, MAX_CURVE_POINTS - 1).round().astype(int)
    kept = np.unique(spaced if chosen is None else np.append(spaced, chosen))
    return tuple((int(cuts.num_drops[k]), float(cuts.estimated_error[k])) for k in kept)
