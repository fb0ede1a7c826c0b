"""Conditional logit: a softmax over the options of each question, linear in their features, fitted to convergence.

Features, folds and questions are not known here.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_CHOICES_PER_CHUNK = 8192  # keeps one chunk's products in the processor's cache
_MAX_STEPS = 30
_MAX_HALVINGS = 30
_TOLERANCE = 1e-9
_SLACK = 1e-12  # of the loss: what rounding may add to it near the optimum
_DECIMALS = 6  # weights are rounded, so that the last bits of a matrix product cannot change an answer


def find_log_probabilities(scores: Floats, starts: NDArray[np.int64]) -> Floats:
    """Turns the scores of options into log-probabilities within their question.

    Args:
        scores (`float64[C]`): one per option, questions one after the other.
        starts (`int64[Q + 1]`): where each question's options start, and C; no question is without options.

    Returns:
        `float64[C]`: natural logarithms; over a question's options the probabilities sum to 1.

    Example:
        >>> find_log_probabilities(np.zeros(4), np.array([0, 4])).round(3).tolist()
        [-1.386, -1.386, -1.386, -1.386]
    """
    if not len(scores):
        return scores
    sizes = np.diff(starts)
    shifted = scores - np.repeat(np.maximum.reduceat(scores, starts[:-1]), sizes)
    totals = np.add.reduceat(np.exp(shifted), starts[:-1])
    return shifted - np.repeat(np.log(totals), sizes)


def fit_conditional_logit(
    features: NDArray[np.float32], starts: NDArray[np.int64], gold: NDArray[np.int64], *, l2: float
) -> Floats:
    """Fits the weights that make the gold options most probable, by Newton's method.

    Args:
        features (`float32[C, D]`): of every option of Q questions, best with spreads near 1.
        starts (`int64[Q + 1]`): where each question's options start, and C.
        gold (`int64[Q]`): row of `features` that holds each question's gold option.
        l2 (`float`): penalty, above 0: half of it times the squared weights is added to the summed loss.

    Returns:
        `float64[D]`: the weights, to six decimals; all 0 without questions.

    Example:
        >>> features = np.array([[1.0], [0.0], [1.0], [0.0]], dtype=np.float32)
        >>> fit_conditional_logit(features, np.array([0, 2, 4]), np.array([0, 2]), l2=1.0).tolist()
        [0.674832]
    """
    weights = np.zeros(features.shape[1])
    loss, gradient, hessian = _differentiate(features, starts, gold, weights, l2)
    for _ in range(_MAX_STEPS):
        step = np.linalg.solve(hessian, gradient)
        if np.abs(step).max(initial=0.0) < _TOLERANCE:
            weights -= step
            break
        for _ in range(_MAX_HALVINGS):
            candidate = weights - step
            derivatives = _differentiate(features, starts, gold, candidate, l2)
            if derivatives[0] <= loss + _SLACK * abs(loss):
                break
            step /= 2
        weights, (loss, gradient, hessian) = candidate, derivatives
    return np.round(weights, _DECIMALS) + 0.0  # no minus zeros


def _differentiate(
    features: NDArray[np.float32], starts: NDArray[np.int64], gold: NDArray[np.int64], weights: Floats, l2: float
) -> tuple[float, Floats, Floats]:
    """The penalised loss, its gradient and its Hessian, summed over chunks of whole questions."""
    loss = 0.5 * l2 * float(weights @ weights)
    gradient = l2 * weights
    hessian = l2 * np.eye(len(weights))
    cuts = np.unique(np.searchsorted(starts, np.arange(0, starts[-1], _CHOICES_PER_CHUNK)))
    for first, last in pairwise([*cuts.tolist(), len(starts) - 1]):
        begin = starts[first]
        block = features[begin : starts[last]].astype(np.float64)
        local = starts[first : last + 1] - begin
        chosen = gold[first:last] - begin
        log_probabilities = find_log_probabilities(block @ weights, local)
        probabilities = np.exp(log_probabilities)
        means = sp.csr_array((probabilities, np.arange(len(block)), local), shape=(last - first, len(block))) @ block
        loss -= float(log_probabilities[chosen].sum())
        gradient += means.sum(axis=0) - block[chosen].sum(axis=0)
        block -= np.repeat(means, np.diff(local), axis=0)
        block *= np.sqrt(probabilities)[:, None]
        hessian += block.T @ block
    return loss, gradient, hessian
