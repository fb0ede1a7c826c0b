"""Overlap of boxes: exact values, counted pixels, torchvision, and every refusal."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.stats.boxes import box_iou, is_box, score_box_grounding, stack_boxes

corners = st.tuples(*[st.integers(0, 12)] * 4).map(
    lambda c: [min(c[0], c[2]), min(c[1], c[3]), max(c[0], c[2]) + 1, max(c[1], c[3]) + 1]
)


def count_pixels(box: list[int]) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}


@given(corners, corners)
def test_iou_matches_counted_pixels_and_is_symmetric(first: list[int], second: list[int]) -> None:
    one, other = count_pixels(first), count_pixels(second)
    assert float(box_iou(first, second)) == len(one & other) / len(one | other)
    assert float(box_iou(first, second)) == float(box_iou(second, first))
    moved = [value + 7 for value in first], [value + 7 for value in second]
    assert float(box_iou(*moved)) == float(box_iou(first, second))


def test_iou_matches_torchvision() -> None:
    torch = pytest.importorskip("torch", reason="torchvision's box IoU needs torch, which is not installed")
    ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")
    rng = np.random.default_rng(0)
    start, size = rng.uniform(0, 50, (2, 40, 2)), rng.uniform(1, 40, (2, 40, 2))
    first, second = np.concatenate([start, start + size], axis=2)
    expected = ops.box_iou(torch.from_numpy(first), torch.from_numpy(second)).numpy()
    np.testing.assert_allclose(box_iou(first[:, None], second[None]), expected, rtol=1e-12)


@pytest.mark.parametrize("bad", [[4, 4, 0, 0], [0, 0, 0, 4], [2, 0, 1, 4], [math.nan] * 4])
def test_what_is_no_box_overlaps_with_nothing(bad: list[float]) -> None:
    assert float(box_iou(bad, [0, 0, 4, 4])) == 0.0
    assert float(box_iou(bad, bad)) == 0.0
    assert not is_box(np.array([bad], dtype=float))[0]


def test_accuracy_counts_from_the_threshold_on() -> None:
    scores = score_box_grounding(
        [[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 1, 1]], [[0, 0, 4, 2], [0, 0, 4, 4], [5, 5, 6, 6]]
    )
    assert [scores[f"acc@{t / 10:g}"] for t in range(1, 10)] == pytest.approx([2 / 3] * 5 + [1 / 3] * 4)
    assert scores["miou"] == 0.5
    assert score_box_grounding([[0, 0, 4, 4]], [[0, 0, 4, 2]], iou_thresholds=[0.5])["acc@0.5"] == 1.0


def test_missing_and_invalid_boxes_are_wrong_and_counted() -> None:
    scores = score_box_grounding([[0, 0, 4, 4], [], [3, 3, 1, 1], [0, 0, math.inf, 4]], [[0, 0, 4, 4]] * 4)
    assert (scores["acc@0.5"], scores["num_missing"], scores["num_invalid"]) == (0.25, 1, 2)


def test_bad_references_are_left_out_and_nothing_to_score_is_none() -> None:
    scores = score_box_grounding([[0, 0, 4, 4]] * 3, [[0, 0, 4, 4], [], [1, 1, 1, 5]])
    assert (scores["miou"], scores["num_examples"], scores["num_unscored"]) == (1.0, 3, 2)
    assert score_box_grounding([[0, 0, 4, 4]], [[]])["acc@0.5"] is None


@given(st.lists(st.tuples(corners, corners), min_size=1, max_size=5))
def test_both_formats_give_the_same_and_the_curve_falls(pairs: list[tuple[list[int], list[int]]]) -> None:
    predictions, references = [list(column) for column in zip(*pairs, strict=True)]
    sized = [[[x, y, right - x, low - y] for x, y, right, low in column] for column in (predictions, references)]
    scores = score_box_grounding(predictions, references)
    assert scores == score_box_grounding(*sized, box_format="xywh")
    curve = [scores[f"acc@{t / 10:g}"] for t in range(1, 10)]
    assert curve == sorted(curve, reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box_format": "cxcywh"}, "Got box_format='cxcywh'; allowed are 'xyxy' (corners) and 'xywh'"),
        ({"iou_thresholds": [50]}, "Got the threshold 50"),
        ({"references": []}, "references has 0 rows and predictions has 1: row 0"),
        ({"predictions": [[1, 2, 3]]}, "Got [1, 2, 3] in row 0 of predictions; allowed are four numbers"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {"predictions": [[0, 0, 4, 4]], "references": [[0, 0, 4, 4]]} | changes
    with pytest.raises(ValueError, match=re.escape(message)):
        score_box_grounding(**inputs)


def test_none_is_refused_as_a_box() -> None:
    with pytest.raises(
        ValueError, match=re.escape("Got None in row 1 of boxes; allowed are four numbers, or an empty")
    ):
        stack_boxes([[], None], "xyxy", "boxes")  # type: ignore[list-item]
