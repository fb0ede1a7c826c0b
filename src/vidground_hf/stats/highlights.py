"""Highlight detection: how well predicted saliency ranks the clips that annotators found worth watching.

Predicted windows are scored in `temporal`; this module only reports their mAP beside the highlights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidground_hf.stats.checks import Mode, check_mode, check_rows
from vidground_hf.stats.temporal import score_temporal_grounding
from vidground_hf.stats.windows import Windows

# The least rating, of 0 to 4, that makes a clip positive at each level; from the public QVHighlights evaluator
# (https://github.com/jayleicn/moment_detr, standalone_eval).
SALIENCY_LEVELS = {"fair": 2, "good": 3, "very_good": 4}


def fill_saliency(
    duration_seconds: float,
    relevant_clip_ids: Sequence[int],
    saliency_scores: Sequence[Sequence[float]],
    *,
    clip_seconds: float = 2.0,
) -> list[list[float]]:
    """Turns the ratings of the relevant clips, as QVHighlights stores them, into ratings of every clip.

    Args:
        duration_seconds (`float`): length of the video; a last part shorter than a clip has no rating.
        relevant_clip_ids (`Sequence[int]`): positions of the rated clips.
        saliency_scores (`Sequence[Sequence[float]]`): one rating per annotator for each of them.
        clip_seconds (`float`, *optional*, defaults to 2.0): length of a clip, 2 s in QVHighlights.

    Returns:
        `list[list[float]]`: a rating per clip and annotator, 0 for clips that are not relevant.

    Raises:
        ValueError: when the ids and scores differ in number, are empty, or an id lies beyond the video.

    Example:
        >>> fill_saliency(6, [1], [[4, 3, 2]])
        [[0.0, 0.0, 0.0], [4.0, 3.0, 2.0], [0.0, 0.0, 0.0]]
    """
    num_clips = int(duration_seconds / clip_seconds)
    if not relevant_clip_ids or len(relevant_clip_ids) != len(saliency_scores):
        raise ValueError(
            f"Got {len(relevant_clip_ids)} relevant clips and {len(saliency_scores)} ratings; there must be one "
            "rating per clip, and at least one. Pass both as the annotation file gives them."
        )
    if not 0 <= min(relevant_clip_ids) <= max(relevant_clip_ids) < num_clips:
        raise ValueError(
            f"Got clip ids from {min(relevant_clip_ids)} to {max(relevant_clip_ids)} for a video of {num_clips} "
            f"clips; allowed are 0 to {num_clips - 1}. Check duration_seconds and clip_seconds."
        )
    filled = np.zeros((num_clips, len(saliency_scores[0])))
    filled[list(relevant_clip_ids)] = saliency_scores
    return filled.tolist()


def clip_average_precision(scores: ArrayLike, labels: ArrayLike, *, mode: Mode = "strict") -> NDArray[np.float64]:
    """Averages the interpolated precision of a ranking of clips over the positives it finds.

    Args:
        scores (`float64[L]`): a score per clip, higher is better; clips with equal scores share a rank.
        labels (`bool[L, C]`): which clips are positive, in C columns that are scored apart.
        mode (`str`, *optional*, defaults to `"strict"`): `"strict"` averages over the positive clips; `"official"`
            over the ranks that find any, so that several found in one tie count once.

    Returns:
        `float64[C]`: in [0, 1]; 0 for a column without a positive.

    Example:
        >>> clip_average_precision([0.9, 0.5, 0.1], [[1, 0], [0, 0], [1, 1]]).round(3).tolist()
        [0.833, 0.333]
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
    found = labels[order].cumsum(axis=0)[last_of_tie]
    precision = found / (last_of_tie + 1)[:, None]
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    weight = np.diff(found, axis=0, prepend=0)
    if mode == "official":
        weight = weight > 0
    total = weight.sum(axis=0)
    return np.divide((envelope * weight).sum(axis=0), total, out=np.zeros(labels.shape[1]), where=total > 0)


def score_highlights(
    predictions: Sequence[Sequence[float]],
    references: Sequence[Sequence[Sequence[float]]],
    *,
    windows: Sequence[Windows] | None = None,
    reference_windows: Sequence[Windows] | None = None,
    mode: Mode = "strict",
) -> dict[str, Any]:
    """Scores predicted saliency with mAP and Hit@1 at each level of `SALIENCY_LEVELS`.

    Args:
        predictions (`Sequence[Sequence[float]]`): per query, one score per clip of the video, higher is better; nan
            is a clip without one, and an empty list or nothing but nan a missing prediction.
        references (`Sequence` of `Sequence` of `Sequence[float]`): per query and clip, one rating of 0 to 4 per
            annotator; see `fill_saliency`. The number of annotators is the same everywhere.
        windows (`Sequence[Windows]`, *optional*): predicted windows of the same queries, for moment mAP.
        reference_windows (`Sequence[Windows]`, *optional*): their references; goes with `windows`.
        mode (`str`, *optional*, defaults to `"strict"`): `"strict"` counts a missing prediction as wrong and ranks
            clips without a score last; `"official"` leaves out queries without a prediction, scores such clips 0,
            and takes the best clip before the surplus is cut, as the QVHighlights evaluator does.

    Returns:
        `dict`: `map@<level>` (mean over queries and annotators) and `hit1@<level>` (the best clip has that rating
        from any annotator) as fractions in [0, 1], `None` when no row could be scored; with `windows` also `map` and
        `map@0.5` ... `map@0.95`; `num_examples`, `num_missing`, `num_unscored` as in `score_temporal_grounding`.

    Raises:
        ValueError: for columns of different length, windows without their references, differing numbers of
            annotators, or a mode that is not allowed.

    Example:
        >>> scores = score_highlights([[0.1, 0.9]], [[[0, 1, 0], [4, 4, 3]]])
        >>> scores["hit1@very_good"], round(scores["map@very_good"], 3), scores["map@good"]
        (1.0, 0.667, 1.0)
    """
    check_mode(mode)
    check_rows(predictions=predictions, references=references)
    if (windows is None) != (reference_windows is None):
        raise ValueError("Got only one of windows and reference_windows; pass both for moment mAP, or neither.")
    num_annotators = _count_annotators(references)
    has_prediction = np.array([not np.isnan(np.asarray(row, dtype=float)).all() for row in predictions], dtype=bool)
    scored = np.array([len(row) > 0 for row in references], dtype=bool)
    if mode == "official":
        scored &= has_prediction
    precision = np.zeros((len(predictions), len(SALIENCY_LEVELS)))
    hit = np.zeros_like(precision)
    for index in np.flatnonzero(scored & has_prediction).tolist():
        ratings = np.asarray(references[index], dtype=np.float64)
        positive = ratings[:, :, None] >= np.array([*SALIENCY_LEVELS.values()])
        scores, best = _align(np.asarray(predictions[index], dtype=np.float64), len(ratings), mode)
        columns = clip_average_precision(scores, positive.reshape(len(ratings), -1), mode=mode)
        precision[index] = columns.reshape(num_annotators, -1).mean(axis=0)
        hit[index] = positive[best].any(axis=0) if best < len(ratings) else False
    result: dict[str, Any] = {}
    for column, level in enumerate(SALIENCY_LEVELS):
        result[f"map@{level}"] = float(precision[scored, column].mean()) if scored.any() else None
        result[f"hit1@{level}"] = float(hit[scored, column].mean()) if scored.any() else None
    if windows is not None and reference_windows is not None:
        check_rows(predictions=predictions, windows=windows)
        moments = score_temporal_grounding(windows, reference_windows, mode=mode)
        result |= {key: value for key, value in moments.items() if key.startswith("map")}
    return result | {
        "num_examples": len(scored),
        "num_missing": int((~has_prediction).sum()),
        "num_unscored": int((~scored).sum()),
    }


def _count_annotators(references: Sequence[Sequence[Sequence[float]]]) -> int:
    counts = {len(clip): index for index, row in enumerate(references) for clip in row}
    if len(counts) > 1:
        raise ValueError(
            f"Got references with {' and '.join(f'{n} annotators (row {row})' for n, row in counts.items())}; the "
            "mean over annotators needs the same number for every clip. Score such sets apart."
        )
    return next(iter(counts), 1)


def _align(scores: NDArray[np.float64], num_clips: int, mode: Mode) -> tuple[NDArray[np.float64], int]:
    """Brings the scores to one per clip, and says which clip the prediction puts first."""
    scores = np.nan_to_num(scores, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    aligned = np.full(num_clips, 0.0 if mode == "official" else -np.inf)
    aligned[: len(scores)] = scores[:num_clips]
    return aligned, int((scores if mode == "official" else aligned).argmax())
