"""How sure a blind answerer is of its first answer, from how often it repeats it under other option orders.

Nothing is asked or judged here; what a confidence is compared with is in `calibration`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

# A probability computed in 32-bit floats can exceed 1 by about 1e-7.
_ROUNDING = 1e-6


def measure_agreement(
    choices: ArrayLike, num_options: ArrayLike, probability: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Measures how firmly the first answer of each row stands, in a unit that is the same for all option counts.

    An answerer that guesses repeats itself under another option order with probability 1/n, so a repeats in a row have
    probability n**-a. The confidence is minus the log of that, plus log(n) times a probability in [0, 1], which orders
    rows that agree equally often: log(n) * (a + p). The second part is our choice. The gold answer has no part in it.

    Args:
        choices (`float64[N, K]`): which of its distinct options, counted from 0, a row chose under each order, mapped
            back to the original options; nan where an order was not asked or not answered. The first column is the
            candidate. Answers after the first that is nan or differs from the candidate do not count.
        num_options (`int64[N]`): distinct options of each row, at least 1.
        probability (`float64[N]`, *optional*): in [0, 1], the mean, over the orders asked, of the probability that the
            answerer gave the candidate; nan, or leaving it out, counts as 0.

    Returns:
        `float64[N]`: at least 0, at most K log(n); nan where there is no candidate.

    Raises:
        `ValueError`: for shapes that do not fit, or values out of range.

    Example:
        >>> nan = float("nan")
        >>> choices = [[2, 2, 2], [2, 2, 0], [2, 1, nan], [nan, nan, nan]]
        >>> measure_agreement(choices, [4, 4, 4, 4]).round(2).tolist()
        [2.77, 1.39, 0.0, nan]
        >>> measure_agreement(choices, [4, 4, 4, 4], [1.0, 0.5, 0.5, nan]).round(2).tolist()
        [4.16, 2.08, 0.69, nan]
    """
    chosen = np.asarray(choices, dtype=np.float64)
    counts = np.asarray(num_options)
    if chosen.ndim != 2 or chosen.shape[1] == 0 or counts.shape != chosen.shape[:1]:
        raise ValueError(
            f"got shapes {chosen.shape} and {counts.shape} for choices and num_options; pass [N, K] with K of at "
            "least 1, and [N]"
        )
    _check_counts(counts)
    is_index = (chosen >= 0) & (chosen < counts[:, None]) & (chosen == np.floor(chosen))
    if not (is_index | np.isnan(chosen)).all():
        row = int(np.flatnonzero(~(is_index | np.isnan(chosen)).all(axis=1))[0])
        raise ValueError(
            f"row {row} has choices {chosen[row].tolist()} of {counts[row]} options; pass whole numbers from 0 to "
            f"{counts[row] - 1}, or nan where an order was not asked or not answered"
        )
    num_repeats = np.logical_and.accumulate(chosen[:, 1:] == chosen[:, :1], axis=1).sum(axis=1)
    firmness = num_repeats if probability is None else num_repeats + _fill_probability(probability, chosen.shape[0])
    return np.where(np.isnan(chosen[:, 0]), np.nan, np.log(counts) * firmness)


def _check_counts(counts: NDArray[np.int64]) -> None:
    if counts.size and not (np.issubdtype(counts.dtype, np.integer) and counts.min() >= 1):
        raise ValueError(
            f"num_options allows whole numbers from 1, as integers; got {counts.dtype} from {counts.min()} to "
            f"{counts.max()}; leave out open-ended rows"
        )


def _fill_probability(probability: ArrayLike, num_rows: int) -> NDArray[np.float64]:
    """The probabilities, with 0 where one is unknown."""
    values = np.asarray(probability, dtype=np.float64)
    if values.shape != (num_rows,):
        raise ValueError(f"got probability of shape {values.shape} for {num_rows} rows; pass one value per row")
    known = values[~np.isnan(values)]
    if known.size and not (known.min() >= 0 and known.max() <= 1 + _ROUNDING):
        raise ValueError(
            f"probability lies from {known.min()} to {known.max()}; pass numbers in [0, 1], or nan where unknown"
        )
    return np.where(np.isnan(values), 0.0, np.minimum(values, 1.0))
