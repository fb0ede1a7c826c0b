"""Overlap of windows: exact values, bounds, symmetry, and malformed rows."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.stats.windows import pad_windows, temporal_iou, temporal_overlap

times = st.floats(-100, 100).map(lambda value: round(value, 2))
windows = st.tuples(times, times).map(sorted)


@pytest.mark.parametrize(
    ("first", "second", "iou"),
    [
        ([0, 10], [0, 10], 1.0),
        ([0, 10], [5, 15], 1 / 3),
        ([0, 10], [2, 4], 0.2),
        ([0, 10], [10, 20], 0.0),
        ([0, 10], [30, 40], 0.0),
        ([3, 3], [3, 3], 0.0),
        ([10, 5], [0, 20], 0.0),
        ([math.nan, math.nan], [0, 20], 0.0),
    ],
)
def test_iou_is_exact(first: list[float], second: list[float], iou: float) -> None:
    assert temporal_iou(first, second) == iou


@given(windows, windows)
def test_iou_is_symmetric_bounded_and_matches_a_sum_of_lengths(first: list[float], second: list[float]) -> None:
    iou = float(temporal_iou(first, second))
    assert iou == float(temporal_iou(second, first))
    assert 0 <= iou <= 1
    shared = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    union = first[1] - first[0] + second[1] - second[0] - shared
    assert iou == pytest.approx(shared / union if shared else 0.0)
    assert float(temporal_overlap(first, second)) == shared


def test_rows_are_padded_with_nan() -> None:
    padded = pad_windows([[[0, 1], [2, 3, 0.5]], [], [[4, math.inf]]], "predictions")
    np.testing.assert_array_equal(
        padded,
        [
            [[0, 1, math.nan], [2, 3, 0.5]],
            [[math.nan] * 3] * 2,
            [[4, math.nan, math.nan], [math.nan] * 3],
        ],
    )
    assert pad_windows([], "predictions").shape == (0, 1, 3)


@pytest.mark.parametrize("window", [[1], [1, 2, 3, 4], []])
def test_a_window_of_other_than_two_or_three_numbers_is_refused(window: list[float]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Got the window {window} in row 1 of references")):
        pad_windows([[], [[0, 1], window]], "references")
