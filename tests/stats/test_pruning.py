"""Iterative bias pruning: what is dropped in which batch, when it stops, and what it refuses."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.stats.pruning import Pruning, PruningStep, prune_bias

NAN = float("nan")


def test_drops_the_worst_in_batches_and_refits_after_each() -> None:
    scores = np.linspace(0.5, 1.0, 100)
    asked: list[int] = []

    def rescore(is_kept: np.ndarray) -> np.ndarray:
        asked.append(int(is_kept.sum()))
        return scores

    pruning = prune_bias(scores, np.full(100, 0.25), rescore, fraction=0.2)
    assert pruning.dropped == tuple(range(80, 100))
    assert pruning.threshold == scores[80]
    assert asked == [98, 96, 94, 92, 90, 88, 86, 84, 82, 80]
    assert [step.num_kept for step in pruning.trace] == [100, *asked]
    assert pruning.trace[0] == PruningStep(100, float(scores.mean()), 0.25)
    assert pruning.trace[-1].mean_bias_score == pytest.approx(scores[:80].mean())


def test_later_batches_follow_the_refitted_probe() -> None:
    # Dropping row 0 makes row 3 the most predictable one.
    first, second = [0.9, 0.8, 0.1, 0.2], [NAN, 0.3, 0.1, 0.7]
    pruning = prune_bias(first, [0.25] * 4, lambda is_kept: second, fraction=0.5)
    assert pruning.dropped == (0, 3)
    assert pruning.threshold == 0.7


def test_of_equal_scores_the_earlier_row_goes_first() -> None:
    pruning = prune_bias([0.6, 0.9, 0.9, 0.9], [0.0] * 4, lambda is_kept: [0.6, 0.9, 0.9, 0.9], fraction=0.5)
    assert pruning.dropped == (1, 2)


def test_stops_when_the_probe_is_back_at_chance() -> None:
    scores = np.array([0.9, 0.9, 0.3, 0.25, 0.2, 0.2])
    pruning = prune_bias(scores, [0.25] * 6, lambda is_kept: scores, fraction=0.9)
    assert pruning.dropped == (0, 1)
    assert pruning.trace[-1].mean_bias_score == pytest.approx(0.2375)


def test_a_blank_probe_drops_nothing() -> None:
    pruning = prune_bias([0.2] * 10, [0.2] * 10, lambda is_kept: [0.2] * 10, fraction=0.5)
    assert (pruning.dropped, pruning.threshold) == ((), None)
    assert [step.num_kept for step in pruning.trace] == [10]


def test_unscored_rows_are_left_out_and_never_dropped() -> None:
    pruning = prune_bias(
        [NAN, 0.9, 0.8, NAN], [1.0, 0.1, 0.1, 1.0], lambda is_kept: [NAN, 0.9, 0.8, NAN], fraction=0.5
    )
    assert pruning.dropped == (1,)
    assert pruning.num_left_out == 2
    assert pruning.trace[0] == pytest.approx((2, 0.85, 0.1))


@pytest.mark.parametrize("scores", [[], [NAN, NAN]])
def test_no_scored_row(scores: list[float]) -> None:
    pruning = prune_bias(scores, [0.5] * len(scores), lambda is_kept: scores, fraction=0.5)
    assert pruning == Pruning(threshold=None, dropped=(), trace=(), num_left_out=len(scores))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.01, 0.99))
def test_never_drops_more_than_the_fraction(scores: list[float], fraction: float) -> None:
    pruning = prune_bias(scores, np.zeros(len(scores)), lambda is_kept: scores, fraction=fraction)
    assert len(pruning.dropped) <= fraction * len(scores) + 1e-6
    assert len(pruning.trace) <= 12
    kept_scores = [score for row, score in enumerate(scores) if row not in pruning.dropped]
    if pruning.threshold is not None:
        assert max(kept_scores) <= pruning.threshold


@pytest.mark.parametrize(("fraction", "num_rows", "num_dropped"), [(0.29, 100, 29), (0.3, 9, 2), (0.1, 30, 3)])
def test_fraction_is_an_upper_bound(fraction: float, num_rows: int, num_dropped: int) -> None:
    scores = np.linspace(0.5, 1, num_rows)
    assert (
        len(prune_bias(scores, np.zeros(num_rows), lambda is_kept: scores, fraction=fraction).dropped) == num_dropped
    )


def test_callers_mask_is_a_copy() -> None:
    def rescore(is_kept: np.ndarray) -> list[float]:
        is_kept[:] = False
        return [0.9, 0.8, 0.7, 0.6]

    assert prune_bias([0.9, 0.8, 0.7, 0.6], [0.0] * 4, rescore, fraction=0.5).dropped == (0, 1)


@pytest.mark.parametrize(
    ("rescored", "message"),
    [
        ([0.5], "rescore gave scores of shape (1,); it must give one per row, (4,)"),
        ([0.5, NAN, 0.5, 0.5], "rescore gave nan for 1 kept rows; it must score all 3"),
    ],
)
def test_refuses_scores_that_do_not_cover_the_kept_rows(rescored: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        prune_bias([0.9, 0.8, 0.7, 0.6], [0.0] * 4, lambda is_kept: rescored, fraction=0.5)


def test_survives_json() -> None:
    pruning = prune_bias([0.9, 0.8, NAN, 0.6], [0.1] * 4, lambda is_kept: [0.9, 0.8, NAN, 0.6], fraction=0.5)
    assert Pruning.from_dict(json.loads(json.dumps(asdict(pruning)))) == pruning
