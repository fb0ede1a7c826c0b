"""How sure a blind answerer is of its first answer, from what it says under other orders of the options.

Nothing is asked or judged here; what a confidence is compared with is in `calibration`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp


def measure_agreement(
    choices: ArrayLike, num_options: ArrayLike, log_odds: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Sums what each order says for the first answer, in a unit that is the same for all option counts.

    An answerer that guesses repeats itself under another order with probability 1/n, so each repeat adds log(n): the
    sum is minus the log of the probability that a guess repeats itself so often. Where the answerer's probabilities
    are known, an order adds its log-odds instead, which are 0 for a blank mind whatever n is. Orders count up to and
    including the first that differs from the candidate: where asking stops, too. The gold answer has no part in it.

    Adding log-odds is our choice: on simulated answers no other combination tried dropped more overall, and most
    dropped clearly less where option counts are mixed (`docs/design/calibrated.md`).

    Args:
        choices (`float64[N, K]`): which of its distinct options, counted from 0, a row chose under each order, mapped
            back to the original options; nan where an order was not asked or not answered. The first column is the
            candidate.
        num_options (`int64[N]`): distinct options of each row, at least 1.
        log_odds (`float64[N, K]`, *optional*): of the candidate under each order, see `measure_log_odds`; nan where
            unknown: the first order then adds 0, a repeat log(n), and an order that differs 0.

    Returns:
        `float64[N]`: the confidence; nan where there is no candidate.

    Raises:
        `ValueError`: for shapes that do not fit, or values out of range.

    Example:
        >>> nan = float("nan")
        >>> choices = [[2, 2, 2], [2, 2, 0], [2, 1, nan], [nan, nan, nan]]
        >>> measure_agreement(choices, [4, 4, 4, 4]).round(2).tolist()
        [2.77, 1.39, 0.0, nan]
        >>> log_odds = [[5.0, 4.0, 6.0], [1.0, 0.5, -0.5], [0.5, -1.0, nan], [nan, nan, nan]]
        >>> measure_agreement(choices, [4, 4, 4, 4], log_odds).tolist()
        [15.0, 1.0, -0.5, nan]
    """
    chosen = np.asarray(choices, dtype=np.float64)
    counts = np.asarray(num_options)
    _check_choices(chosen, counts)
    repeats = np.logical_and.accumulate(chosen == chosen[:, :1], axis=1)
    evidence = np.where(repeats, np.log(counts)[:, None], 0.0)
    evidence[:, 0] = 0.0
    if log_odds is not None:
        odds = np.asarray(log_odds, dtype=np.float64)
        _check_log_odds(odds, chosen.shape)
        # An order has a say when all orders before it repeat the candidate: the first that differs has one, too.
        has_say = np.insert(repeats[:, :-1], 0, True, axis=1) & ~np.isnan(chosen)
        evidence = np.where(has_say & ~np.isnan(odds), odds, evidence)
    return np.where(np.isnan(chosen[:, 0]), np.nan, evidence.sum(axis=1))


def measure_log_odds(logprobs: ArrayLike, choice: ArrayLike) -> NDArray[np.float64]:
    """Measures the log of the probability of one option over the mean of the others'.

    Args:
        logprobs (`float64[..., M]`): natural logarithm of the probability of each distinct option, or anything that
            differs from it by one constant per row; -inf where a row has fewer than M options.
        choice (`int64[...]`): the option, in [0, M).

    Returns:
        `float64[...]`: 0 where all options are equally likely; nan where a value is nan or there are no others.

    Raises:
        `ValueError`: for shapes that do not fit, or a choice that a row does not have.

    Example:
        >>> measure_log_odds(np.log([[0.6, 0.2, 0.2], [0.1, 0.8, 0.1]]), [0, 2]).round(2).tolist()
        [1.1, -1.5]
    """
    values = np.asarray(logprobs, dtype=np.float64)
    index = np.asarray(choice)
    if values.ndim == 0 or index.shape != values.shape[:-1]:
        raise ValueError(
            f"got shapes {values.shape} and {index.shape} for logprobs and choice; pass [..., M] and [...]"
        )
    if index.size and not (index.min() >= 0 and index.max() < values.shape[-1]):
        raise ValueError(
            f"choice lies from {index.min()} to {index.max()}; pass one of the {values.shape[-1]} options"
        )
    own = np.take_along_axis(values, index[..., None], axis=-1)
    if np.isneginf(own).any():
        raise ValueError("choice points at an option of logprob -inf, which stands for none; pass one the row has")
    is_other = (np.arange(values.shape[-1]) != index[..., None]) & ~np.isneginf(values)
    num_others = is_other.sum(axis=-1)
    mean_of_others = logsumexp(np.where(is_other, values, -np.inf), axis=-1) - np.log(np.maximum(num_others, 1))
    return np.where(num_others > 0, own[..., 0] - mean_of_others, np.nan)


def _check_choices(chosen: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
    if chosen.ndim != 2 or chosen.shape[1] == 0 or counts.shape != chosen.shape[:1]:
        raise ValueError(
            f"got shapes {chosen.shape} and {counts.shape} for choices and num_options; pass [N, K] with K of at "
            "least 1, and [N]"
        )
    if counts.size and not (np.issubdtype(counts.dtype, np.integer) and counts.min() >= 1):
        raise ValueError(
            f"num_options allows whole numbers from 1, as integers; got {counts.dtype} from {counts.min()} to "
            f"{counts.max()}; leave out open-ended rows"
        )
    is_option = (chosen >= 0) & (chosen < counts[:, None]) & (chosen == np.floor(chosen))
    is_wrong = ~(is_option | np.isnan(chosen)).all(axis=1)
    if is_wrong.any():
        row = int(is_wrong.argmax())
        raise ValueError(
            f"row {row} has choices {chosen[row].tolist()} of {counts[row]} options; pass whole numbers from 0 to "
            f"{counts[row] - 1}, or nan where an order was not asked or not answered"
        )


def _check_log_odds(odds: NDArray[np.float64], shape: tuple[int, ...]) -> None:
    if odds.shape != shape:
        raise ValueError(f"got log_odds of shape {odds.shape} for choices of shape {shape}; pass one value per order")
    if np.isinf(odds).any():
        raise ValueError(f"{int(np.isinf(odds).sum())} log_odds are infinite; pass nan where a probability is unknown")
