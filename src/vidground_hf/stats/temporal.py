"""Temporal grounding: how well predicted time windows match the annotated ones (R@1, mIoU, mAP).

Answers to questions are not scored here; see `grounded_qa`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidground_hf.stats.checks import Mode, check_mode, check_rows, check_thresholds
from vidground_hf.stats.windows import Windows, pad_windows, temporal_iou

# QVHighlights (https://huggingface.co/papers/2107.09609): the ten thresholds of its experiments and the three lengths,
# in seconds (shortest excluded, longest included), of its public evaluator.
AP_IOU_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
QVHIGHLIGHTS_LENGTH_RANGES = {"short": (0.0, 10.0), "middle": (10.0, 30.0), "long": (30.0, 150.0)}
MAX_PREDICTED_WINDOWS = 10

_ROWS_PER_CHUNK = 1024


class WindowScores(NamedTuple):
    """What is known of each row.

    Attributes:
        top_iou (`float64[N]`): best IoU of the first predicted window with a reference window, in [0, 1].
        average_precision (`float64[N, 10]`): one column per `AP_IOU_THRESHOLDS`, in [0, 1].
        has_prediction (`bool[N]`): the row has a predicted window.
        has_reference (`bool[N]`): the row has a reference window that is longer than 0.
    """

    top_iou: NDArray[np.float64]
    average_precision: NDArray[np.float64]
    has_prediction: NDArray[np.bool_]
    has_reference: NDArray[np.bool_]


def score_temporal_grounding(
    predictions: Sequence[Windows],
    references: Sequence[Windows],
    *,
    iou_thresholds: Sequence[float] = (0.3, 0.5, 0.7),
    length_ranges: Mapping[str, tuple[float, float]] | None = None,
    mode: Mode = "strict",
) -> dict[str, Any]:
    """Scores predicted windows with R@1 at each threshold, mIoU, and mAP over IoU 0.5 to 0.95.

    Args:
        predictions (`Sequence[Windows]`): per query, windows `[start, end]` or `[start, end, score]` in seconds, best
            first; an empty list is a missing prediction.
        references (`Sequence[Windows]`): per query, the windows `[start, end]` that answer it.
        iou_thresholds (`Sequence[float]`, *optional*, defaults to `(0.3, 0.5, 0.7)`): for R@1, the three of
            Charades-STA (https://huggingface.co/papers/1705.02101); each in (0, 1].
        length_ranges (`Mapping[str, tuple[float, float]]`, *optional*): adds `by_length`, the same figures on the
            reference windows longer than the first and at most as long as the second number of seconds.
            `QVHIGHLIGHTS_LENGTH_RANGES` are the usual ones.
        mode (`str`, *optional*, defaults to `"strict"`): `"strict"` counts a missing prediction as wrong and ranks by
            score; `"official"` leaves out queries without a prediction and takes the windows as listed for R@1 and
            for the cut to ten, as the QVHighlights evaluator does.

    Returns:
        `dict`: `r1@<t>`, `miou`, `map`, `map@0.5` ... `map@0.95` as fractions in [0, 1], `None` when no row could be
        scored; `num_examples` rows given, `num_missing` without a prediction, `num_unscored` left out of the
        figures; `by_length` when asked for.

    Raises:
        ValueError: for columns of different length, a malformed window, a threshold or mode that is not allowed.

    Example:
        >>> scores = score_temporal_grounding([[[0, 10]], []], [[[0, 8]], [[3, 5]]])
        >>> scores["r1@0.7"], scores["miou"], scores["num_missing"]
        (0.5, 0.4, 1)
    """
    check_mode(mode)
    check_rows(predictions=predictions, references=references)
    check_thresholds(iou_thresholds)
    result = _summarize(_score_rows(predictions, references, mode), iou_thresholds, mode)
    if length_ranges is not None:
        result["by_length"] = {}
        for name, (low, high) in length_ranges.items():
            in_range = [[window for window in row if low < window[1] - window[0] <= high] for row in references]
            result["by_length"][name] = _summarize(_score_rows(predictions, in_range, mode), iou_thresholds, mode)
    return result


def _score_rows(predictions: Sequence[Windows], references: Sequence[Windows], mode: Mode) -> WindowScores:
    chunks = [
        _score_chunk(predictions[start : start + _ROWS_PER_CHUNK], references[start : start + _ROWS_PER_CHUNK], mode)
        for start in range(0, max(1, len(predictions)), _ROWS_PER_CHUNK)
    ]
    return WindowScores(*(np.concatenate(column) for column in zip(*chunks, strict=True)))


def _score_chunk(predictions: Sequence[Windows], references: Sequence[Windows], mode: Mode) -> WindowScores:
    predicted = pad_windows(predictions, "predictions")
    if mode == "strict":
        predicted = _sort_by_score(predicted)
    predicted = predicted[:, :MAX_PREDICTED_WINDOWS]
    annotated = pad_windows(references, "references")
    num_annotated = (annotated[..., 1] > annotated[..., 0]).sum(axis=1)
    top_iou = temporal_iou(predicted[:, :1, :2], annotated[..., :2]).max(axis=1)
    # Of equally good reference windows the public evaluator matches the last one listed, hence the reversal.
    ranked = _sort_by_score(predicted)[:, :, None, :2]
    iou = temporal_iou(ranked, annotated[:, None, ::-1, :2])
    return WindowScores(
        top_iou=top_iou,
        average_precision=_average_precision(iou, num_annotated),
        has_prediction=np.array([len(row) > 0 for row in predictions], dtype=bool),
        has_reference=num_annotated > 0,
    )


def _sort_by_score(windows: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(-windows[..., 2], axis=1, kind="stable")
    return np.take_along_axis(windows, order[..., None], axis=1)


def _average_precision(iou: NDArray[np.float64], num_references: NDArray[np.int64]) -> NDArray[np.float64]:
    """Matches each predicted window in turn to the best free reference; `iou` is [N, predictions, references]."""
    num_rows, num_predictions, num_columns = iou.shape
    thresholds = np.asarray(AP_IOU_THRESHOLDS)
    free = np.ones((num_rows, len(thresholds), num_columns), dtype=bool)
    hits = np.zeros((num_rows, len(thresholds), num_predictions), dtype=bool)
    for rank in range(num_predictions):
        candidates = np.where(free, iou[:, None, rank], -1.0)
        best = candidates.argmax(axis=2)[..., None]
        hits[..., rank] = np.take_along_axis(candidates, best, axis=2)[..., 0] >= thresholds
        still_free = np.take_along_axis(free, best, axis=2) & ~hits[..., rank, None]
        np.put_along_axis(free, best, still_free, axis=2)
    precision = hits.cumsum(axis=2) / np.arange(1, num_predictions + 1)
    # Recall rises by the same step at every hit, so the interpolated area is a mean over the references.
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=2)[..., ::-1]
    return (envelope * hits).sum(axis=2) / np.maximum(num_references, 1)[:, None]


def _summarize(rows: WindowScores, iou_thresholds: Sequence[float], mode: Mode) -> dict[str, Any]:
    scored = rows.has_reference if mode == "strict" else rows.has_reference & rows.has_prediction
    top_iou, precision = rows.top_iou[scored], rows.average_precision[scored]
    figures: dict[str, NDArray[Any]] = {f"r1@{t:g}": top_iou >= t for t in iou_thresholds}
    figures |= {"miou": top_iou, "map": precision.mean(axis=1)}
    figures |= {f"map@{threshold:g}": precision[:, i] for i, threshold in enumerate(AP_IOU_THRESHOLDS)}
    result: dict[str, Any] = {key: float(values.mean()) if scored.any() else None for key, values in figures.items()}
    return result | {
        "num_examples": len(scored),
        "num_missing": int((~rows.has_prediction).sum()),
        "num_unscored": int((~scored).sum()),
    }
