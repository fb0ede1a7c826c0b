"""Video segmentation: how well predicted masks match the annotated ones, by region (J) and by boundary (F).

Boxes are scored in `boxes` and `tracking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from vidground_hf.stats.checks import check_rows
from vidground_hf.stats.masks import Mask, decode_mask

# The share of the image diagonal within which two boundaries match; from the public DAVIS evaluator
# (https://github.com/davisvideochallenge/davis2017-evaluation).
BOUNDARY_TOLERANCE = 0.008


def region_similarity(predicted: Mask, annotated: Mask) -> float:
    """Divides the pixels that two masks share by the pixels that they cover: J.

    Args:
        predicted (`bool[H, W]`): one frame.
        annotated (`bool[H, W]`): the same frame.

    Returns:
        `float`: in [0, 1]; 1 when both are empty.

    Example:
        >>> region_similarity(np.array([[True, True]]), np.array([[True, False]]))
        0.5
    """
    union = int(np.count_nonzero(predicted | annotated))
    return int(np.count_nonzero(predicted & annotated)) / union if union else 1.0


def boundary_similarity(predicted: Mask, annotated: Mask) -> float:
    """Takes the harmonic mean of how much of each boundary lies close to the other: F.

    A pixel is on the boundary when it differs from its neighbour to the right, below, or both. Close means within
    0.008 of the image diagonal, rounded up to whole pixels.

    Args:
        predicted (`bool[H, W]`): one frame.
        annotated (`bool[H, W]`): the same frame.

    Returns:
        `float`: in [0, 1]; 1 when neither mask has a boundary, 0 when one has none.

    Example:
        >>> square = np.zeros((100, 100), dtype=bool)
        >>> square[20:60, 20:60] = True
        >>> boundary_similarity(np.roll(square, 2, axis=1), square), boundary_similarity(~square, square)
        (1.0, 1.0)
    """
    radius = np.ceil(BOUNDARY_TOLERANCE * np.hypot(*predicted.shape))
    found, wanted = map(_boundary_points, _crop_to_objects(predicted, annotated))
    if len(found) == 0 or len(wanted) == 0:
        return float(len(found) == len(wanted))
    precision, recall = _share_near(found, wanted, radius), _share_near(wanted, found, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def score_video_segmentation(
    predictions: Sequence[Sequence[str | None]], references: Sequence[Sequence[str | None]]
) -> dict[str, Any]:
    """Scores the masks of objects followed through videos with J, F and J&F.

    Frames are read one at a time, so that memory does not grow with the length of a video.

    Args:
        predictions (`Sequence[Sequence[str | None]]`): per object, one mask per frame as `decode_mask` reads it; an
            empty list is a missing prediction and scores 0 in every frame, also where the object is not to be seen.
        references (`Sequence[Sequence[str | None]]`): the annotated masks of the same frames.

    Returns:
        `dict`: `j`, `f` and their mean `j&f`, means over frames and then over objects, as fractions in [0, 1], `None`
        when no object could be scored; `per_object`, the same three for each row, `None` for an unscored one;
        `num_examples` objects given, `num_missing` without a prediction, `num_unscored` left out because they have no
        reference, `num_frames` scored, `num_empty_frames` of these with both masks empty, which score 1.

    Raises:
        ValueError: when the numbers of objects or frames or the sizes of two masks differ, or a mask cannot be read;
            names the row and frame.

    Example:
        >>> left, both = '{"size": [1, 2], "counts": [0, 1, 1]}', '{"size": [1, 2], "counts": [0, 2]}'
        >>> scores = score_video_segmentation([[left, ""]], [[both, ""]])
        >>> scores["j"], scores["num_empty_frames"]
        (0.75, 1)
    """
    check_rows(predictions=predictions, references=references)
    per_object: list[dict[str, float] | None] = []
    num_frames = num_empty_frames = 0
    for row, (predicted, annotated) in enumerate(zip(predictions, references, strict=True)):
        if not annotated:
            per_object.append(None)
            continue
        if predicted and len(predicted) != len(annotated):
            raise ValueError(
                f"Got {len(predicted)} predicted and {len(annotated)} annotated masks in row {row}; allowed is one "
                "per frame. Put an empty string where the object is not found."
            )
        frames = [
            _score_frame(*pair, row, frame) for frame, pair in enumerate(zip(predicted, annotated, strict=False))
        ]
        num_frames += len(annotated)
        num_empty_frames += frames.count(None)
        region, boundary = np.array([frame or (1.0, 1.0) for frame in frames] or [(0.0, 0.0)]).mean(axis=0).tolist()
        per_object.append({"j": region, "f": boundary, "j&f": (region + boundary) / 2})
    scored = [scores for scores in per_object if scores is not None]
    means = {key: float(np.mean([scores[key] for scores in scored])) if scored else None for key in ("j", "f", "j&f")}
    return means | {
        "per_object": per_object,
        "num_examples": len(per_object),
        "num_missing": sum(len(masks) == 0 for masks in predictions),
        "num_unscored": len(per_object) - len(scored),
        "num_frames": num_frames,
        "num_empty_frames": num_empty_frames,
    }


def _score_frame(
    predicted_text: str | None, annotated_text: str | None, row: int, frame: int
) -> tuple[float, float] | None:
    """Returns J and F, or `None` when both masks are empty."""
    try:
        predicted, annotated = decode_mask(predicted_text), decode_mask(annotated_text)
    except (ValueError, OSError) as error:
        raise ValueError(f"Got a mask that cannot be read in frame {frame} of row {row}: {error}") from error
    if predicted is None and annotated is None:
        return None
    predicted = np.zeros_like(annotated) if predicted is None else predicted
    annotated = np.zeros_like(predicted) if annotated is None else annotated
    if predicted.shape != annotated.shape:
        raise ValueError(
            f"Got a predicted mask of {predicted.shape} and an annotated one of {annotated.shape} (height, width) in "
            f"frame {frame} of row {row}; they must be the same. Resize the prediction to the annotation."
        )
    if not predicted.any() and not annotated.any():
        return None
    return region_similarity(predicted, annotated), boundary_similarity(predicted, annotated)


def _crop_to_objects(first: Mask, second: Mask) -> tuple[Mask, Mask]:
    """Cuts away what is empty in both masks, but for one pixel on each side."""
    either = first | second
    rows, columns = np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))
    if len(rows) == 0:
        return first, second
    window = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    return first[window], second[window]


def _boundary_points(mask: Mask) -> NDArray[np.int64]:
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    is_boundary = (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])
    return np.argwhere(is_boundary)


def _share_near(points: NDArray[np.int64], others: NDArray[np.int64], radius: float) -> float:
    # Squared distances are whole numbers, so half of one more keeps the radius itself and nothing beyond it.
    distances, _ = KDTree(others).query(points, distance_upper_bound=np.sqrt(radius**2 + 0.5))
    return float(np.isfinite(distances).mean())
