"""Box grounding: how well one predicted box per expression matches the annotated one (accuracy by IoU).

Boxes that follow an object through a video are scored in `tracking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidground_hf.stats.checks import check_rows, check_thresholds

BoxFormat = Literal["xyxy", "xywh"]


def box_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Divides the area that two boxes share by the area they cover; 0 where either is no box.

    Args:
        first (`float64[..., 4]`): left, top, right, bottom, in any one unit.
        second (`float64[..., 4]`): the same, of a shape that broadcasts with `first`.

    Returns:
        `float64[...]`: in [0, 1].

    Example:
        >>> box_iou([0, 0, 2, 2], [[1, 0, 3, 2], [2, 2, 3, 3]]).round(3).tolist()
        [0.333, 0.0]
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    size = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.where((size > 0).all(axis=-1), size.prod(axis=-1), 0.0)
    covered = (first[..., 2:] - first[..., :2]).prod(axis=-1) + (second[..., 2:] - second[..., :2]).prod(axis=-1)
    return np.divide(shared, covered - shared, out=np.zeros_like(shared), where=shared > 0)


def is_box(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tells which boxes are finite and wider and higher than 0.

    Args:
        boxes (`float64[N, 4]`): left, top, right, bottom.

    Returns:
        `bool[N]`.

    Example:
        >>> is_box(np.array([[0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 1.0, 1.0]])).tolist()
        [True, False]
    """
    return np.logical_and(np.isfinite(boxes).all(axis=-1), (boxes[..., 2:] > boxes[..., :2]).all(axis=-1))


def stack_boxes(rows: Sequence[Sequence[float]], box_format: BoxFormat, name: str) -> NDArray[np.float64]:
    """Lays out boxes as one array.

    Args:
        rows (`Sequence[Sequence[float]]`): four numbers per row, or none for a missing box.
        box_format (`str`): `"xyxy"` (left, top, right, bottom) or `"xywh"` (left, top, width, height).
        name (`str`): what the rows are, for the error.

    Returns:
        `float64[N, 4]`: left, top, right, bottom; nan for a missing box and for numbers that are not finite.

    Raises:
        ValueError: for another format, or a row that has neither four numbers nor none.

    Example:
        >>> stack_boxes([[1, 2, 3, 4], []], "xywh", "predictions").tolist()
        [[1.0, 2.0, 4.0, 6.0], [nan, nan, nan, nan]]
    """
    if box_format not in get_args(BoxFormat):
        raise ValueError(f"Got {box_format=}; allowed are 'xyxy' (corners) and 'xywh' (corner and size). Pass one.")
    boxes = np.full((len(rows), 4), np.nan)
    for index, row in enumerate(rows):
        if row is None or len(row) not in (0, 4):
            raise ValueError(
                f"Got {row} in row {index} of {name}; allowed are four numbers, or an empty list for a missing box. "
                "Give one box per row."
            )
        if len(row) == 4:
            boxes[index] = row
    boxes[~np.isfinite(boxes)] = np.nan
    if box_format == "xywh":
        boxes[:, 2:] += boxes[:, :2]
    return boxes


def score_box_grounding(
    predictions: Sequence[Sequence[float]],
    references: Sequence[Sequence[float]],
    *,
    box_format: BoxFormat = "xyxy",
    iou_thresholds: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
) -> dict[str, float | int | None]:
    """Scores one predicted box per expression with the share of boxes at each IoU threshold, and mIoU.

    Args:
        predictions (`Sequence[Sequence[float]]`): four numbers per expression, in the unit of the references; an
            empty list is a missing prediction and counts as wrong, as does a box without area.
        references (`Sequence[Sequence[float]]`): the annotated boxes, in the same format and unit.
        box_format (`str`, *optional*, defaults to `"xyxy"`): `"xyxy"` or `"xywh"`.
        iou_thresholds (`Sequence[float]`, *optional*, defaults to 0.1 to 0.9 by 0.1): the points of the curve; each
            in (0, 1]. A box counts from the threshold on (`>=`).

    Returns:
        `dict`: `acc@<t>` and `miou` as fractions in [0, 1], `None` when no row could be scored; `num_examples` rows
        given, `num_missing` without a predicted box, `num_invalid` predicted boxes without area, `num_unscored` left
        out because the reference is no box.

    Raises:
        ValueError: for columns of different length, a malformed box, a format or threshold that is not allowed.

    Example:
        >>> scores = score_box_grounding([[0, 0, 4, 4], []], [[0, 0, 4, 2], [1, 1, 2, 2]])
        >>> scores["acc@0.5"], scores["acc@0.6"], scores["miou"], scores["num_missing"]
        (0.5, 0.0, 0.25, 1)
    """
    check_rows(predictions=predictions, references=references)
    check_thresholds(iou_thresholds)
    predicted = stack_boxes(predictions, box_format, "predictions")
    annotated = stack_boxes(references, box_format, "references")
    scored = is_box(annotated)
    iou = box_iou(predicted, annotated)[scored]
    figures = {f"acc@{threshold:g}": iou >= threshold for threshold in iou_thresholds} | {"miou": iou}
    result: dict[str, float | int | None] = {
        key: float(values.mean()) if len(iou) else None for key, values in figures.items()
    }
    is_missing = np.array([len(row) == 0 for row in predictions], dtype=bool)
    return result | {
        "num_examples": len(scored),
        "num_missing": int(is_missing.sum()),
        "num_invalid": int((~is_box(predicted) & ~is_missing).sum()),
        "num_unscored": int((~scored).sum()),
    }
