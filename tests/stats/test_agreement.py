"""Agreement between option orders: exact values, what it may depend on, and what it refuses."""

from __future__ import annotations

import re
from math import inf, isnan, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from vidground_hf.stats.agreement import measure_agreement, measure_log_odds

NAN = float("nan")


@pytest.mark.parametrize(
    ("choices", "num_options", "repeats"),
    [
        ([0], 4, 0),
        ([3, 3, 3, 3], 4, 3),
        ([1, 1, 0, 1], 4, 1),
        ([1, 0, 1, 1], 4, 0),
        ([1, 1, NAN, NAN], 4, 1),
        ([1, NAN, 1, 1], 4, 0),
        ([9] * 10, 10, 9),
        ([0, 0], 1, 1),
    ],
)
def test_repeats_count_until_the_first_that_differs_or_is_missing(
    choices: list[float], num_options: int, repeats: int
) -> None:
    expected = pytest.approx([log(num_options) * repeats])
    assert measure_agreement([choices], [num_options]) == expected
    assert measure_agreement([choices], [num_options], [[NAN] * len(choices)]) == expected


@pytest.mark.parametrize(
    ("choices", "log_odds", "expected"),
    [
        ([1], [2.5], 2.5),
        ([1, 1, 1], [2.0, 1.0, 0.5], 3.5),
        ([1, 1, 0, 1], [2.0, 1.0, -0.5, 9.0], 2.5),  # the order that differs is the last to count
        ([1, 0, 1, 1], [2.0, -4.0, 9.0, 9.0], -2.0),
        ([1, 1, NAN, 1], [2.0, 1.0, 9.0, 9.0], 3.0),  # an order without an answer ends the row and adds nothing
        ([1, 1, 1, 0], [NAN, 1.0, NAN, NAN], 1.0 + log(4)),  # unknown: 0, known, log(4), 0
    ],
)
def test_known_log_odds_take_the_place_of_repeats(
    choices: list[float], log_odds: list[float], expected: float
) -> None:
    assert measure_agreement([choices], [4], [log_odds]) == pytest.approx([expected])


def test_no_candidate_has_no_confidence() -> None:
    confidence = measure_agreement(
        [[NAN, NAN], [NAN, 1.0], [1.0, 1.0]], [3, 3, 3], [[0.5, 0.5], [NAN, 1.0], [NAN, NAN]]
    )
    assert_array_equal(confidence, [NAN, NAN, log(3)])


def test_a_repeat_is_worth_the_same_probability_for_all_option_counts() -> None:
    # A guess repeats 3 times among 4 options as seldom as twice among 8 or 6 times among 2: 1 in 64.
    choices = np.zeros((3, 7))
    choices[0, 4:] = choices[1, 3:] = 1
    assert measure_agreement(choices, [4, 8, 2]) == pytest.approx([log(64)] * 3)


def test_no_rows() -> None:
    assert measure_agreement(np.empty((0, 3)), np.empty(0)).shape == (0,)


@st.composite
def draw_rows(draw: st.DrawFn) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    shape = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    counts = rng.integers(2, 4, size=shape[0])
    choices = rng.integers(counts[:, None], size=shape).astype(float)
    log_odds = rng.normal(size=shape)
    for array in (choices, log_odds):
        array[rng.random(shape) < 0.1] = NAN
    return choices, counts, log_odds


@given(draw_rows())
def test_agrees_with_a_loop(rows: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]) -> None:
    expected = []
    for choices, count, log_odds in zip(*rows, strict=True):
        confidence = NAN if isnan(choices[0]) else 0.0
        for order, (choice, odds) in enumerate(zip(choices, log_odds, strict=True)):
            if isnan(choice):
                break
            if not isnan(odds):
                confidence += odds
            elif order > 0 and choice == choices[0]:
                confidence += log(count)
            if choice != choices[0]:
                break
        expected.append(confidence)
    assert measure_agreement(*rows) == pytest.approx(expected, nan_ok=True)


@given(draw_rows(), st.data())
def test_asking_on_after_a_row_has_stopped_changes_nothing(
    rows: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]], data: st.DataObject
) -> None:
    choices, counts, log_odds = rows
    asked_on = choices.copy()
    differs = np.logical_or.accumulate(choices != choices[:, :1], axis=1)
    asked_on[:, 1:][differs[:, :-1]] = data.draw(st.sampled_from([NAN, 0.0, 1.0]))
    assert_array_equal(measure_agreement(choices, counts, log_odds), measure_agreement(asked_on, counts, log_odds))


@given(draw_rows(), st.integers(0, 3))
def test_names_of_the_options_do_not_matter(
    rows: tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]], shift: int
) -> None:
    choices, counts, log_odds = rows
    renamed = (choices + shift) % counts[:, None]
    assert_array_equal(measure_agreement(choices, counts, log_odds), measure_agreement(renamed, counts, log_odds))


@pytest.mark.parametrize(
    ("logprobs", "choice", "expected"),
    [
        ([log(0.25)] * 4, 2, 0.0),
        ([log(0.6), log(0.3), log(0.1)], 0, log(0.6 / 0.2)),
        ([log(0.6), log(0.3), log(0.1)], 2, log(0.1 / 0.45)),
        ([log(0.6), log(0.4), -inf, -inf], 0, log(0.6 / 0.4)),
        ([1000.0, 0.0], 0, 1000.0),  # not lost where 1 - p is 0 in floating point
        ([0.0, -inf], 0, NAN),
        ([0.0], 0, NAN),
        ([log(0.6), NAN], 0, NAN),
        ([NAN, log(0.6)], 0, NAN),
    ],
)
def test_log_odds_of_an_option_over_the_mean_of_the_others(
    logprobs: list[float], choice: int, expected: float
) -> None:
    assert measure_log_odds(logprobs, choice) == pytest.approx(expected, nan_ok=True)
    shifted = [value + 3 for value in logprobs]
    assert measure_log_odds([[shifted, shifted]], [[choice, choice]]) == pytest.approx(
        np.full((1, 2), expected), nan_ok=True
    )


@pytest.mark.parametrize(
    ("choices", "num_options", "log_odds", "message"),
    [
        ([0, 1], [2, 2], None, "got shapes (2,) and (2,) for choices and num_options; pass [N, K] with K of at least"),
        ([[], []], [2, 2], None, "got shapes (2, 0) and (2,)"),
        ([[0], [1]], [2], None, "got shapes (2, 1) and (1,)"),
        ([[0]], [0], None, "num_options allows whole numbers from 1, as integers; got int64 from 0 to 0; leave out"),
        ([[0]], [2.0], None, "num_options allows whole numbers from 1, as integers; got float64 from 2.0 to 2.0"),
        ([[0, 0], [0, 2]], [2, 2], None, "row 1 has choices [0.0, 2.0] of 2 options; pass whole numbers from 0 to 1"),
        ([[-1]], [2], None, "row 0 has choices [-1.0] of 2 options"),
        ([[0.5]], [2], None, "row 0 has choices [0.5] of 2 options"),
        ([[0]], [2], [0.5], "got log_odds of shape (1,) for choices of shape (1, 1); pass one value per order"),
        ([[0, 0]], [2], [[0.5, float("inf")]], "1 log_odds are infinite; pass nan where a probability is unknown"),
    ],
)
def test_refusals_say_what_is_allowed(choices: list, num_options: list, log_odds: list | None, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        measure_agreement(choices, num_options, log_odds)


@pytest.mark.parametrize(
    ("logprobs", "choice", "message"),
    [
        (0.0, 0, "got shapes () and () for logprobs and choice; pass [..., M] and [...]"),
        ([0.0, 0.0], [0, 1], "got shapes (2,) and (2,)"),
        ([0.0, 0.0], 2, "choice lies from 2 to 2; pass one of the 2 options"),
        ([[0.0, 0.0]], [-1], "choice lies from -1 to -1"),
        ([0.0, -inf], 1, "choice points at an option of logprob -inf, which stands for none; pass one the row has"),
    ],
)
def test_log_odds_refuse_what_a_row_does_not_have(logprobs: Any, choice: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        measure_log_odds(logprobs, choice)
