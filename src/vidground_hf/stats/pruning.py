"""Iterative bias pruning: which questions to drop so that a probe, refitted on the rest, finds least left to predict.

The probe itself is the caller's; verdicts are for `rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Refits, so that the cost does not grow with the set. Our guess: the Test-set Stress-Test removes a fixed 50 questions
# at a time from sets of 850 to 5,130.
NUM_BATCHES = 10


class PruningStep(NamedTuple):
    """The rows still kept when a probe had been fitted on them.

    Attributes:
        num_kept (`int`): how many.
        mean_bias_score (`float`): their mean bias score: how often the probe is right if it draws its answers from its
            own probabilities.
        chance (`float`): what that is when text says nothing.
    """

    num_kept: int
    mean_bias_score: float
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """What was dropped, and how predictable the rest was after each refit.

    Attributes:
        threshold (`float`, *optional*): lowest bias score that was dropped; `None` when nothing was.
        dropped (`tuple[int, ...]`): positions of the dropped rows, ascending.
        trace (`tuple[PruningStep, ...]`): one step per fitted probe, the first before anything was dropped.
        num_left_out (`int`): rows without a bias score, neither dropped nor counted.
    """

    threshold: float | None
    dropped: tuple[int, ...]
    trace: tuple[PruningStep, ...]
    num_left_out: int

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Pruning:
        """Rebuilds what `dataclasses.asdict` gave, also after a round trip through JSON."""
        trace = tuple(PruningStep(*step) for step in values["trace"])
        return cls(**{**values, "dropped": tuple(values["dropped"]), "trace": trace})


def prune_bias(
    bias_scores: ArrayLike,
    chance: ArrayLike,
    rescore: Callable[[NDArray[np.bool_]], ArrayLike],
    *,
    fraction: float,
) -> Pruning:
    """Drops the most predictable rows in batches, refitting the probe after each.

    In the manner of the Test-set Stress-Test's iterative bias pruning (arXiv 2511.04655). It stops when `fraction` of
    the scored rows is dropped, or earlier, when the mean bias score of the rest is no higher than chance. Of equal
    scores the earlier row goes first.

    Args:
        bias_scores (`float64[N]`): out-of-fold probability of the gold answer; nan leaves the row out.
        chance (`float64[N]`): the same for an answerer that guesses; 0 for open-ended questions.
        rescore (`Callable`): from which rows are kept (`bool[N]`) to new bias scores (`float64[N]`) by a probe fitted
            on those alone, out of fold; the values of other rows are not read.
        fraction (`float`): largest share of the scored rows to drop, in (0, 1).

    Returns:
        `Pruning`: what was dropped, and the trace.

    Raises:
        `ValueError`: when `rescore` gives another number of scores, or nan for a kept row.

    Example:
        >>> scores = [0.1, 0.9, 0.2, 0.8]
        >>> pruning = prune_bias(scores, [0.25] * 4, lambda is_kept: scores, fraction=0.5)
        >>> pruning.dropped, pruning.threshold, [step.num_kept for step in pruning.trace]
        ((1, 3), 0.8, [4, 3, 2])
    """
    bias = np.asarray(bias_scores, dtype=np.float64)
    floor = np.asarray(chance, dtype=np.float64)
    is_kept = ~np.isnan(bias)
    num_scored = int(is_kept.sum())
    num_to_drop = int(fraction * num_scored + 1e-9)  # 0.29 of 100 is 28.999... in floating point
    batch_size = ceil(num_to_drop / NUM_BATCHES)
    dropped: list[int] = []
    dropped_scores: list[float] = []
    trace: list[PruningStep] = []
    while is_kept.any():
        trace.append(PruningStep(int(is_kept.sum()), float(bias[is_kept].mean()), float(floor[is_kept].mean())))
        is_at_floor = trace[-1].mean_bias_score <= trace[-1].chance + 1e-9
        if len(dropped) == num_to_drop or is_at_floor:
            break
        kept = np.flatnonzero(is_kept)
        worst = kept[np.argsort(-bias[kept], kind="stable")][: min(batch_size, num_to_drop - len(dropped))]
        dropped.extend(worst.tolist())
        dropped_scores.extend(bias[worst].tolist())
        is_kept[worst] = False
        bias = _check_scores(rescore(is_kept.copy()), is_kept)
    return Pruning(
        threshold=min(dropped_scores, default=None),
        dropped=tuple(sorted(dropped)),
        trace=tuple(trace),
        num_left_out=bias.size - num_scored,
    )


def _check_scores(bias_scores: ArrayLike, is_kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Refuses new bias scores that do not cover the kept rows."""
    bias = np.asarray(bias_scores, dtype=np.float64)
    if bias.shape != is_kept.shape:
        raise ValueError(f"rescore gave scores of shape {bias.shape}; it must give one per row, {is_kept.shape}")
    num_missing = int(np.isnan(bias[is_kept]).sum())
    if num_missing:
        raise ValueError(f"rescore gave nan for {num_missing} kept rows; it must score all {int(is_kept.sum())}")
    return bias
