"""Object tracking: how well one box per frame follows an object (LaSOT's and GOT-10k's figures).

Single boxes are scored in `boxes`, masks in `segmentation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidground_hf.stats.boxes import box_iou, is_box, stack_boxes
from vidground_hf.stats.checks import Mode, check_mode, check_rows

# LaSOT (https://huggingface.co/papers/1809.07845) takes success over 21 overlaps and precision at 20 pixels;
# TrackingNet (https://huggingface.co/papers/1803.10794) adds precision over the box size. Thresholds as in
# https://github.com/HengLan/LaSOT_Evaluation_Toolkit.
SUCCESS_OVERLAPS = np.arange(21) / 20
PRECISION_PIXELS = np.arange(51)
PRECISION_RATIOS = np.arange(51) / 100
KEYS = ("success_auc", "precision_20px", "norm_precision_0.2", "norm_precision_auc", "ao", "sr@0.5", "sr@0.75")

Boxes = Sequence[Sequence[float]]
Array = NDArray[np.float64]


class VideoErrors(NamedTuple):
    """What is known of the scored frames of one video.

    Attributes:
        iou (`float64[T]`): overlap, in [0, 1]; -1 in a frame that counts as missed whatever the box.
        pixels (`float64[T]`): distance of the centres in pixels; -1 in a frame that counts as hit whatever the box.
        ratios (`float64[T]`): the same, each axis divided by the size of the annotated box.
        num_frames (`int`): number that the shares of these frames are divided by.
        all_ratios (`float64[U]`): `ratios` of the frames that `norm_precision_auc` averages over.
        pooled_iou (`float64[V]`): `iou` of the frames that `ao` averages over.
        num_missing (`int`): how many of the T frames have no valid predicted box.
    """

    iou: Array
    pixels: Array
    ratios: Array
    num_frames: int
    all_ratios: Array
    pooled_iou: Array
    num_missing: int


def score_object_tracking(
    predictions: Sequence[Boxes],
    references: Sequence[Boxes],
    *,
    absent: Sequence[Sequence[int]] | None = None,
    image_sizes: Sequence[Sequence[int]] | None = None,
    mode: Mode = "strict",
) -> dict[str, float | int | None]:
    """Scores the boxes of a tracker that was given the box of the first frame.

    Args:
        predictions (`Sequence[Boxes]`): per video, one box `[left, top, width, height]` in pixels per frame, the
            first frame included; an empty list is a missing box or, for a video, a missing video.
        references (`Sequence[Boxes]`): the annotated boxes, in the same format.
        absent (`Sequence[Sequence[int]]`, *optional*): per video and frame, 1 where the object is not to be seen.
        image_sizes (`Sequence[Sequence[int]]`, *optional*): per video, width and height in pixels; for `ao` and `sr`
            boxes are clipped to the image.
        mode (`str`, *optional*, defaults to `"strict"`): `"strict"` scores every frame but the first in which the
            object can be seen, with overlap 0 where the predicted box is missing; `"official"` counts as the LaSOT
            toolkit does for the first three figures and the GOT-10k toolkit for the others
            (`docs/design/metric_quirks.md` says how).

    Returns:
        `dict`: fractions in [0, 1], `None` when no video could be scored. Means over videos: `success_auc`, over 21
        thresholds of the share of frames with a larger IoU (20/21 at best); `precision_20px`, share of frames with
        the centre at most 20 pixels off; `norm_precision_0.2`, share with the centre at most 0.2 of the box size
        off; `norm_precision_auc`, mean of that share over 0 to 0.5 by 0.01. Over the frames of all videos: `ao`, mean
        IoU; `sr@0.5` and `sr@0.75`, share with a larger IoU. Counts: `num_examples` videos given, `num_missing`
        without predictions, `num_unscored` left out of the figures, `num_frames` scored for `success_auc`,
        `num_unscored_frames` the other frames of those videos, `num_missing_frames` scored frames without a valid
        predicted box.

    Raises:
        ValueError: for columns or videos of different length, a malformed box or image size, or a mode that is not
            allowed.

    Example:
        >>> reference = [[0, 0, 10, 10], [5, 0, 10, 10], [9, 0, 10, 10]]
        >>> scores = score_object_tracking([[[0, 0, 10, 10], [5, 0, 10, 10], []]], [reference])
        >>> scores["ao"], scores["sr@0.5"], scores["precision_20px"], scores["num_missing_frames"]
        (0.5, 0.5, 0.5, 1)
    """
    check_mode(mode)
    optional = {"absent": absent, "image_sizes": image_sizes}
    given = {name: column for name, column in optional.items() if column is not None}
    check_rows(predictions=predictions, references=references, **given)
    videos, num_frames = [], 0
    for index, annotated in enumerate(references):
        flags = np.zeros(len(annotated), dtype=bool) if absent is None else np.asarray(absent[index], dtype=bool)
        size = None if image_sizes is None else _read_size(index, image_sizes[index])
        boxes = _read_video(index, predictions[index], annotated, flags, mode)
        if boxes is not None:
            video = (_compare_strictly if mode == "strict" else _compare_officially)(*boxes, flags, size)
            if len(video.iou):
                videos.append(video)
                num_frames += len(annotated)
    num_scored_frames = sum(len(video.iou) for video in videos)
    return _summarize(videos, mode) | {
        "num_examples": len(predictions),
        "num_missing": sum(len(boxes) == 0 for boxes in predictions),
        "num_unscored": len(predictions) - len(videos),
        "num_frames": num_scored_frames,
        "num_unscored_frames": num_frames - num_scored_frames,
        "num_missing_frames": sum(video.num_missing for video in videos),
    }


def _read_size(index: int, size: Sequence[int]) -> Array:
    if len(size) != 2:
        raise ValueError(f"Got the image size {size} of video {index}; allowed are [width, height] in pixels.")
    return np.asarray(size, dtype=np.float64)


def _read_video(
    index: int, predicted: Boxes, annotated: Boxes, absent: NDArray[np.bool_], mode: Mode
) -> tuple[Array, Array] | None:
    """Returns predicted and annotated corners, or `None` for a video that the official count leaves out."""
    if len(absent) != len(annotated):
        raise ValueError(
            f"Got {len(absent)} absent flags for the {len(annotated)} frames of video {index}; give one per frame."
        )
    if len(predicted) == 0 and mode == "official":
        return None
    if len(predicted) == 0:
        predicted = [[]] * len(annotated)
    if mode == "official":
        predicted = predicted[: len(annotated)]
    if len(predicted) != len(annotated):
        raise ValueError(
            f"Got {len(predicted)} predicted boxes for the {len(annotated)} frames of video {index}; allowed is one "
            "per frame, first frame included. Put an empty list where a box is missing."
        )
    return (
        stack_boxes(predicted, "xywh", f"predictions of video {index}"),
        stack_boxes(annotated, "xywh", f"references of video {index}"),
    )


def _compare_strictly(
    predicted: Array, annotated: Array, absent: NDArray[np.bool_], size: Array | None
) -> VideoErrors:
    scored = ~absent & is_box(annotated)
    scored[:1] = False
    predicted, annotated = predicted[scored], annotated[scored]
    is_valid = is_box(predicted)
    iou = box_iou(predicted, annotated)
    pixels, ratios = (np.where(is_valid, errors, np.inf) for errors in _center_errors(predicted, annotated))
    pooled_iou = iou
    if size is not None:
        pooled_iou = box_iou(np.clip(predicted, 0, np.tile(size, 2)), np.clip(annotated, 0, np.tile(size, 2)))
    return VideoErrors(iou, pixels, ratios, len(iou), ratios, pooled_iou, int((~is_valid).sum()))


def _compare_officially(
    predicted: Array, annotated: Array, absent: NDArray[np.bool_], size: Array | None
) -> VideoErrors:
    is_valid = is_box(predicted)
    started = np.concatenate([annotated[:1], predicted[1:]])
    last_valid = np.maximum.accumulate(np.where(is_valid, np.arange(len(predicted)), 0))
    filled = np.concatenate([annotated[:1], predicted[last_valid][1:]])
    iou = box_iou(filled, annotated)
    pixels, ratios = _center_errors(filled, annotated)
    is_positive = (annotated[:, :2] > 0).all(axis=1) & is_box(annotated)
    iou, pixels, ratios = (np.where(is_positive, values, -1.0)[~absent] for values in (iou, pixels, ratios))
    return VideoErrors(
        iou=iou,
        pixels=pixels,
        ratios=ratios,
        num_frames=len(absent),
        all_ratios=_center_errors(started, annotated, smallest_size=1.0)[1],
        pooled_iou=box_iou(_clip_officially(predicted, size), _clip_officially(annotated, size))[1:][~absent[1:]],
        num_missing=int((~is_valid[~absent]).sum()),
    )


def _clip_officially(boxes: Array, size: Array | None) -> Array:
    """Moves corners that lie outside into the image and keeps the size that fits, as the GOT-10k toolkit does."""
    if size is None:
        return boxes
    corner = np.clip(boxes[:, :2], 0, size)
    return np.hstack([corner, corner + np.clip(boxes[:, 2:] - boxes[:, :2], 0, size - corner)])


def _center_errors(predicted: Array, annotated: Array, smallest_size: float = 0.0) -> tuple[Array, Array]:
    """Returns the distance of the centres in pixels, and with each axis divided by the size of the annotated box."""
    shift = (predicted[:, :2] + predicted[:, 2:] - annotated[:, :2] - annotated[:, 2:]) / 2
    size = np.maximum(annotated[:, 2:] - annotated[:, :2], smallest_size)
    scaled = np.divide(shift, size, out=np.full_like(shift, np.inf), where=size > 0)
    return np.hypot(shift[:, 0], shift[:, 1]), np.hypot(scaled[:, 0], scaled[:, 1])


def _summarize(videos: list[VideoErrors], mode: Mode) -> dict[str, float | int | None]:
    if not videos:
        return dict.fromkeys(KEYS)
    success = np.stack([(v.iou[:, None] > SUCCESS_OVERLAPS).sum(axis=0) / v.num_frames for v in videos])
    precision = np.stack([(v.pixels[:, None] <= PRECISION_PIXELS).sum(axis=0) / v.num_frames for v in videos])
    norm_precision = np.stack([(v.ratios[:, None] <= PRECISION_RATIOS).sum(axis=0) / v.num_frames for v in videos])
    if mode == "official":
        success, precision, norm_precision = (
            curves[curves.any(axis=1)] if curves.any() else curves for curves in (success, precision, norm_precision)
        )
    pooled_iou = np.concatenate([video.pooled_iou for video in videos])
    values = (
        success.mean(),
        precision[:, PRECISION_PIXELS == 20].mean(),
        norm_precision[:, PRECISION_RATIOS == 0.2].mean(),
        np.mean([(video.all_ratios[:, None] <= PRECISION_RATIOS).mean() for video in videos]),
    )
    pooled = (pooled_iou.mean(), (pooled_iou > 0.5).mean(), (pooled_iou > 0.75).mean()) if len(pooled_iou) else ()
    return dict.fromkeys(KEYS) | {key: float(value) for key, value in zip(KEYS, values + pooled, strict=False)}
