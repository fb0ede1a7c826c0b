"""Labels brought to the frames and the grid that a head speaks of.

Reading labels from rows is not done here, nor grading (`losses`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.media_facts import MediaFacts

_SLACK_SECONDS = 1e-3  # times of labels are in float32; our guess


class SaliencyTargets(NamedTuple):
    """What `grade_saliency` takes.

    Attributes:
        targets (`Tensor`): `float32[N, T]`.
        is_scored (`Tensor`): `bool[N, T]`.
    """

    targets: Tensor
    is_scored: Tensor


class MaskTargets(NamedTuple):
    """What `grade_masks` takes.

    Attributes:
        targets (`Tensor`): `float32[N, T, h, w]` in [0, 1].
        has_object (`Tensor`): `bool[N, T]`.
        is_scored (`Tensor`): `bool[N, T]`.
    """

    targets: Tensor
    has_object: Tensor
    is_scored: Tensor


def mark_spans(spans: Sequence[Tensor], features: VisionFeatures) -> SaliencyTargets:
    """Saliency from moments: 1 for frames whose middle is in one, 0 for the others.

    Args:
        spans (`Sequence[Tensor]`): N times `float[S, 2]`, start and end in [0, 1].
        features (`VisionFeatures`): N rows.

    Raises:
        ValueError: for another number of rows.

    Example:
        >>> from vidground_hf.task_preference.features import stack_features
        >>> features = stack_features([torch.ones(3, 1, 1, 4)], [torch.tensor([1.0, 3.0, 5.0])], [6.0])
        >>> mark_spans([torch.tensor([[0.4, 1.0]])], features).targets.tolist()
        [[0.0, 1.0, 1.0]]
    """
    _check_rows(features, spans=spans)
    fractions = features.time_fractions()
    marked = [
        ((row[:, :1].to(times) <= times) & (times < row[:, 1:].to(times))).any(0)
        for row, times in zip(spans, fractions, strict=True)
    ]
    is_valid = features.frames_valid()
    return SaliencyTargets((torch.stack(marked) & is_valid).float(), is_valid)


def fit_saliency(
    scores: Sequence[Tensor], times_seconds: Sequence[Tensor], features: VisionFeatures
) -> SaliencyTargets:
    """Brings labelled saliency to the frames of the features.

    Args:
        scores (`Sequence[Tensor]`): N times `float[F]`, 0 to 12, F from 1 on.
        times_seconds (`Sequence[Tensor]`): N times `float[F]`, of the middle of each labelled clip, rising.
        features (`VisionFeatures`): N rows.

    Returns:
        The score nearest in time, for frames to which one of the labels is nearest.

    Raises:
        ValueError: for columns of different lengths.

    Example:
        >>> from vidground_hf.task_preference.features import stack_features
        >>> features = stack_features([torch.ones(3, 1, 1, 4)], [torch.tensor([1.0, 3.0, 5.0])], [6.0])
        >>> fit_saliency([torch.tensor([2.0, 9.0])], [torch.tensor([0.0, 2.9])], features)
        SaliencyTargets(targets=tensor([[2., 9., 0.]]), is_scored=tensor([[ True,  True, False]]))
    """
    _check_rows(features, scores=scores, times_seconds=times_seconds)
    targets = torch.zeros_like(features.times_seconds, dtype=torch.float32)
    is_scored = torch.zeros_like(features.frames_valid())
    for row, (values, times) in enumerate(zip(scores, times_seconds, strict=True)):
        frames, labels = _pair_times(row, times, len(values), features)
        targets[row, frames] = values.to(targets)[labels]
        is_scored[row, frames] = True
    return SaliencyTargets(targets, is_scored)


def fit_masks(
    masks: Sequence[Tensor], times_seconds: Sequence[Tensor], features: VisionFeatures, is_valid: Tensor
) -> MaskTargets:
    """Brings labelled masks to the frames and pixels of a mask head.

    Args:
        masks (`Sequence[Tensor]`): N times `bool[F, height, width]`, of any F from 1 on and any size.
        times_seconds (`Sequence[Tensor]`): N times `float[F]`, rising.
        features (`VisionFeatures`): N rows, whose frames the head drew.
        is_valid (`Tensor`): `bool[N, T, h, w]`, of the head's output.

    Returns:
        The mask nearest in time, areas averaged, for frames to which one of the labels is nearest.

    Raises:
        ValueError: for columns of different lengths.

    Example:
        >>> from vidground_hf.task_preference.features import stack_features
        >>> features = stack_features([torch.ones(1, 1, 1, 4)], [torch.zeros(1)], [0.0])
        >>> picture = torch.tensor([[[True, True], [False, False]]])
        >>> fit_masks([picture], [torch.zeros(1)], features, torch.ones(1, 1, 1, 1, dtype=torch.bool)).targets.item()
        0.5
    """
    _check_rows(features, masks=masks, times_seconds=times_seconds, is_valid=is_valid)
    targets = torch.zeros(is_valid.shape, dtype=torch.float32, device=is_valid.device)
    has_object, is_scored = torch.zeros_like(is_valid[..., 0, 0]), torch.zeros_like(is_valid[..., 0, 0])
    for row, (pictures, times) in enumerate(zip(masks, times_seconds, strict=True)):
        frames, labels = _pair_times(row, times, len(pictures), features)
        picked = pictures.to(targets.device)[labels].float()
        height, width = int(is_valid[row].any(2).any(0).sum()), int(is_valid[row].any(1).any(0).sum())
        targets[row, frames, :height, :width] = average_areas(picked, height, width)
        has_object[row, frames] = picked.flatten(1).any(1)
        is_scored[row, frames] = True
    return MaskTargets(targets, has_object, is_scored)


def pick_sam_masks(
    masks: Sequence[Tensor], times_seconds: Sequence[Tensor], media: Sequence[MediaFacts]
) -> list[Tensor | None]:
    """Picks the labelled mask of the one frame that a SAM draws.

    Args:
        masks (`Sequence[Tensor]`): N times `bool[F, height, width]`, of any F from 1 on and any size.
        times_seconds (`Sequence[Tensor]`): N times `float[F]`, rising.
        media (`Sequence[MediaFacts]`): N, what each row shows, and which frame of it to a SAM.

    Returns:
        `list[Tensor | None]`: N times the mask nearest in time, `bool[height, width]`; `None` where that is nearer to
        another frame, or more than half the mean gap between frames away.

    Example:
        >>> facts = MediaFacts(times_seconds=(0.5, 1.5), duration_seconds=2.0, height=1, width=1)
        >>> pick_sam_masks([torch.ones(1, 1, 1)] * 2, [torch.tensor([0.7]), torch.tensor([1.2])], [facts] * 2)
        [tensor([[1.]]), None]
    """
    picked: list[Tensor | None] = []
    for pictures, times, facts in zip(masks, times_seconds, media, strict=True):
        shown = torch.tensor(facts.times_seconds)
        distances = (shown[:, None] - times.cpu()).abs()
        own = distances[facts.sam_frame]
        label = int(own.argmin())
        half_gap = facts.duration_seconds / len(shown.unique()) / 2
        is_own = own[label] <= min(float(distances[:, label].min()), half_gap) + _SLACK_SECONDS
        picked.append(pictures[label] if is_own else None)
    return picked


def fit_sam_masks(masks: Sequence[Tensor | None], is_valid: Tensor) -> MaskTargets:
    """Brings masks of one frame each to the pixels of a SAM.

    Args:
        masks (`Sequence[Tensor | None]`): N, as `pick_sam_masks` gives them.
        is_valid (`Tensor`): `bool[N, 1, h, w]`, of the head's output.

    Returns:
        Areas averaged; rows with `None` are not scored.

    Example:
        >>> fitted = fit_sam_masks([torch.tensor([[True, False]]), None], torch.ones(2, 1, 1, 1, dtype=torch.bool))
        >>> fitted.targets.flatten().tolist(), fitted.is_scored.flatten().tolist()
        ([0.5, 0.0], [True, False])
    """
    targets = torch.zeros(is_valid.shape, dtype=torch.float32, device=is_valid.device)
    has_object, is_scored = torch.zeros_like(is_valid[..., 0, 0]), torch.zeros_like(is_valid[..., 0, 0])
    height, width = is_valid.shape[2:]
    for row, mask in enumerate(masks):
        if mask is not None:
            targets[row] = average_areas(mask.to(targets)[None], height, width)
            has_object[row], is_scored[row] = bool(mask.any()), True
    return MaskTargets(targets, has_object, is_scored)


def average_areas(pictures: Tensor, height: int, width: int) -> Tensor:
    """Brings pictures to a coarser or finer grid by means over its areas; pixels on a line count by share.

    Pooling would take such pixels whole into the cells on both sides, and so blur and move what is drawn.

    Args:
        pictures (`Tensor`): `float[F, H, W]`.
        height (`int`), width (`int`): of the grid.

    Returns:
        `float32[F, height, width]`: with the mean of the pictures.

    Example:
        >>> average_areas(torch.tensor([[[0.0, 1.0, 1.0]]]), 1, 2).tolist()
        [[[0.3333333432674408, 1.0]]]
    """
    down, across = (
        _share_parts(length, parts, pictures.device)
        for length, parts in zip(pictures.shape[1:], (height, width), strict=True)
    )
    return down @ pictures @ across.T


def _share_parts(length: int, num_parts: int, device: torch.device) -> Tensor:
    """The mean over each of equal parts of a line as a sum over its equal pixels, `float32[num_parts, length]`."""
    parts = torch.arange(num_parts + 1, dtype=torch.float64) * length / num_parts
    pixels = torch.arange(length + 1, dtype=torch.float64)
    ends = torch.minimum(parts[1:, None], pixels[1:]) - torch.maximum(parts[:-1, None], pixels[:-1])
    return (ends.clamp(min=0) * num_parts / length).to(device, torch.float32)


def _pair_times(row: int, times: Tensor, num_labels: int, features: VisionFeatures) -> tuple[Tensor, Tensor]:
    """The frames of a row that some label is nearest to, and the label nearest to each of them: two `long[K]`."""
    if len(times) != num_labels or num_labels == 0:
        raise ValueError(
            f"Got {num_labels} labels and {len(times)} times in row {row}; allowed is one time for each label, one "
            "label or more. Leave out a row without labels."
        )
    shown = features.times_seconds[row][features.frames_valid()[row]]
    distances = (shown[:, None] - times.to(shown)).abs()
    frames = distances.argmin(0).unique()
    return frames, distances[frames].argmin(1)


def _check_rows(features: VisionFeatures, **columns: Sequence[Tensor] | Tensor) -> None:
    got = {name: len(column) for name, column in columns.items()}
    if set(got.values()) != {len(features)}:
        raise ValueError(f"Got {got} rows for {len(features)} rows of features; allowed is one each. Select the rows.")
