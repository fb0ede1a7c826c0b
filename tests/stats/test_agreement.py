"""Agreement between option orders: exact values, what it may depend on, and what it refuses."""

from __future__ import annotations

import re
from math import log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from vidground_hf.stats.agreement import measure_agreement

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
    assert measure_agreement([choices], [num_options]).tolist() == [log(num_options) * repeats]
    assert measure_agreement([choices], [num_options], [0.25]).tolist() == [log(num_options) * (repeats + 0.25)]


def test_no_candidate_has_no_confidence() -> None:
    confidence = measure_agreement([[NAN, NAN], [NAN, 1], [1, 1]], [3, 3, 3], [0.5, NAN, NAN])
    assert_array_equal(confidence, [NAN, NAN, log(3)])


def test_a_repeat_is_worth_the_same_probability_for_all_option_counts() -> None:
    # A guess repeats 3 times among 4 options as seldom as twice among 8 or 6 times among 2: 1 in 64.
    choices = [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1], [0] * 7]
    assert measure_agreement(choices, [4, 8, 2]) == pytest.approx([log(64)] * 3)


def test_no_rows() -> None:
    assert measure_agreement(np.empty((0, 3)), np.empty(0)).shape == (0,)


@st.composite
def draw_rows(draw: st.DrawFn) -> tuple[list[list[float]], list[int], list[float]]:
    num_rows, num_orders = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    counts = draw(st.lists(st.integers(2, 4), min_size=num_rows, max_size=num_rows))
    choices = [
        draw(st.lists(st.sampled_from([*map(float, range(count)), NAN]), min_size=num_orders, max_size=num_orders))
        for count in counts
    ]
    probability = st.floats(0, 1) | st.just(NAN)
    return choices, counts, draw(st.lists(probability, min_size=num_rows, max_size=num_rows))


@given(draw_rows())
def test_agrees_with_a_loop(rows: tuple[list[list[float]], list[int], list[float]]) -> None:
    expected = []
    for choices, count, probability in zip(*rows, strict=True):
        repeats = 0
        for choice in choices[1:]:
            if choice != choices[0]:
                break
            repeats += 1
        known = 0.0 if np.isnan(probability) else probability
        expected.append(NAN if np.isnan(choices[0]) else log(count) * (repeats + known))
    assert measure_agreement(*rows) == pytest.approx(expected, nan_ok=True)


@given(draw_rows(), st.data())
def test_asking_on_after_a_row_has_stopped_changes_nothing(
    rows: tuple[list[list[float]], list[int], list[float]], data: st.DataObject
) -> None:
    choices, counts, probability = rows
    stopped = np.array(choices)
    differs = stopped[:, 1:] != stopped[:, :1]
    for row, has_stopped in enumerate(np.logical_or.accumulate(differs, axis=1)):
        later = np.flatnonzero(has_stopped)[1:] + 1
        stopped[row, later] = data.draw(st.just(NAN) | st.integers(0, counts[row] - 1).map(float))
    assert_array_equal(measure_agreement(choices, *rows[1:]), measure_agreement(stopped, counts, probability))


@given(draw_rows(), st.integers(0, 3))
def test_names_of_the_options_do_not_matter(
    rows: tuple[list[list[float]], list[int], list[float]], shift: int
) -> None:
    choices, counts, probability = rows
    renamed = (np.array(choices) + shift) % np.array(counts)[:, None]
    assert_array_equal(
        measure_agreement(choices, counts, probability), measure_agreement(renamed, counts, probability)
    )


@pytest.mark.parametrize(
    ("choices", "num_options", "probability", "message"),
    [
        ([0, 1], [2, 2], None, "got shapes (2,) and (2,) for choices and num_options; pass [N, K] with K of at least"),
        ([[], []], [2, 2], None, "got shapes (2, 0) and (2,)"),
        ([[0], [1]], [2], None, "got shapes (2, 1) and (1,)"),
        ([[0]], [0], None, "num_options allows whole numbers from 1, as integers; got int64 from 0 to 0; leave out"),
        ([[0]], [2.0], None, "num_options allows whole numbers from 1, as integers; got float64 from 2.0 to 2.0"),
        ([[0, 0], [0, 2]], [2, 2], None, "row 1 has choices [0.0, 2.0] of 2 options; pass whole numbers from 0 to 1"),
        ([[-1]], [2], None, "row 0 has choices [-1.0] of 2 options"),
        ([[0.5]], [2], None, "row 0 has choices [0.5] of 2 options"),
        ([[0]], [2], [0.5, 0.5], "got probability of shape (2,) for 1 rows; pass one value per row"),
        ([[0]], [2], [1.5], "probability lies from 1.5 to 1.5; pass numbers in [0, 1], or nan where unknown"),
        ([[0]], [2], [-0.5], "probability lies from -0.5 to -0.5"),
    ],
)
def test_refusals_say_what_is_allowed(
    choices: list, num_options: list, probability: list | None, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        measure_agreement(choices, num_options, probability)


def test_rounding_above_one_counts_as_one() -> None:
    assert measure_agreement([[0]], [2], [1 + 1e-7]).tolist() == [log(2)]
