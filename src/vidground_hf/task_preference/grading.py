"""From what the language model and the heads give, and what was asked of them, to named losses.

The terms themselves are in `losses.py`, how labels are brought to frames and cells in `heads_targets.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidground_hf.task_preference.features import VisionFeatures, stack_features
from vidground_hf.task_preference.heads_targets import SaliencyTargets, fit_masks, fit_saliency, mark_spans
from vidground_hf.task_preference.losses import (
    grade_boxes,
    grade_masks,
    grade_mismatched,
    grade_prompts,
    grade_saliency,
    grade_spans,
)
from vidground_hf.task_preference.targets import Targets

_RATINGS_SUM = 3.0  # a mean of three annotators in [0, 4] as their sum in [0, 12], which the levels are made for


def grade_text(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the next token, over the labelled tokens of a batch.

    Args:
        logits (`Tensor`): `float[B, T, V]`.
        labels (`Tensor`): `int64[B, T]`, -100 where nothing is to be learned.

    Returns:
        `float32[]`: the mean; 0 without a labelled token.

    Example:
        >>> grade_text(torch.zeros(1, 3, 4), torch.tensor([[-100, 2, -100]])).exp().round().item()
        4.0
    """
    is_labelled = labels[:, 1:] != -100
    chosen, wanted = logits[:, :-1][is_labelled], labels[:, 1:][is_labelled]
    total = functional.cross_entropy(chosen.float(), wanted, reduction="sum")
    return total / max(len(wanted), 1)


def grade_heads(
    heads: nn.ModuleDict,
    mask_loss: str,
    output: Any,
    targets: Targets,
    shown: Mapping[str, VisionFeatures | None],
) -> dict[str, Tensor]:
    """Grades what the heads found.

    Args:
        heads (`nn.ModuleDict`): of the model.
        mask_loss (`str`): `"bce"`, `"focal"` or `"prompts"`.
        output (`TaskPreferenceOutput`): of the batch, as far as it is filled.
        targets (`Targets`): one for each of its task tokens.
        shown (`Mapping[str, VisionFeatures]`): of each task, what its head looked at; B rows.

    Returns:
        `dict[str, Tensor]`: the terms of the tasks that the batch asks for.

    Raises:
        `ValueError`: where targets and task tokens are not of the same rows.
    """
    named = {"moment": targets.moment_rows, "box": targets.box_rows, "mask": targets.mask_rows}
    for task, rows in named.items():
        asked = output.rows[task] if task in output.rows else rows[:0]
        if asked.tolist() != rows.tolist():
            raise ValueError(
                f"targets name rows {rows.tolist()} for {task!r}, and its task token is in rows {asked.tolist()}; "
                "give one target for each task token, in order"
            )
    terms: dict[str, Tensor] = {}
    if output.moment is not None:
        terms |= _grade_moments(heads["moment"], output, targets, _select(shown["moment"], targets.moment_rows))
    if output.box is not None:
        terms |= grade_boxes(output.box, targets.boxes)
    if output.mask is not None:
        terms |= _grade_masks(heads["mask"], mask_loss, output, targets, _select(shown["mask"], targets.mask_rows))
    return terms


def _select(features: VisionFeatures | None, rows: Tensor) -> VisionFeatures:
    if features is None:
        raise ValueError(f"rows {rows.tolist()} have targets and nothing tells when their frames are; pass media")
    return features.select(rows)


def _grade_moments(head: Any, output: Any, targets: Targets, features: VisionFeatures) -> dict[str, Tensor]:
    found = output.moment
    wanted, is_scored = mark_spans(targets.spans, features)
    rated = [row for row, ratings in enumerate(targets.saliency) if ratings is not None]
    if rated:
        fitted = _fit_ratings(targets, rated, features)
        wanted = wanted.index_copy(0, fitted[0], fitted[1].targets)
        is_scored = is_scored.index_copy(0, fitted[0], fitted[1].is_scored)
    terms = grade_spans(found, targets.spans) | grade_saliency(found.saliency, wanted, is_scored)
    if len(features) > 1:
        other = head.score_saliency(output.states["moment"].roll(1, 0), features)
        terms |= grade_mismatched(other, features.frames_valid())
    return terms


def _fit_ratings(targets: Targets, rated: list[int], features: VisionFeatures) -> tuple[Tensor, SaliencyTargets]:
    rows = torch.tensor(rated, device=features.grid.device)
    ratings = [_RATINGS_SUM * targets.saliency[row] for row in rated]  # type: ignore[operator]
    seconds = [targets.saliency_seconds[row] for row in rated]
    return rows, fit_saliency(ratings, seconds, features.select(rows))  # type: ignore[arg-type]


def _grade_masks(
    head: Any, mask_loss: str, output: Any, targets: Targets, features: VisionFeatures
) -> dict[str, Tensor]:
    found = output.mask
    if hasattr(head, "sam"):  # draws the first frame that is shown
        seconds, durations = features.times_seconds[:, :1], features.duration_seconds.tolist()
        one = features.grid.new_zeros(1, 1, 1, 1)
        features = stack_features([one] * len(seconds), list(seconds), durations)
    wanted = fit_masks(targets.masks, targets.mask_seconds, features, found.is_valid)
    if mask_loss != "prompts":
        return grade_masks(found, wanted.targets, wanted.has_object, wanted.is_scored, pixel_loss=mask_loss)  # type: ignore[arg-type]
    is_shown = wanted.has_object[:, 0] & wanted.is_scored[:, 0]
    prompts = head.embed_states(output.states["mask"])[is_shown]
    return grade_prompts(prompts, head.embed_boxes(_box_masks(wanted.targets[:, 0][is_shown] > 0)))


def _box_masks(masks: Tensor) -> Tensor:
    """The boxes around masks (`bool[N, h, w]`, none empty): `float32[N, 4]` in [0, 1]."""
    sides = []
    for axis in (2, 1):  # columns, then rows
        is_used = masks.any(3 - axis).float()
        length = is_used.shape[1]
        sides.append((is_used.argmax(1) / length, 1 - is_used.flip(1).argmax(1) / length))
    return torch.stack([sides[0][0], sides[1][0], sides[0][1], sides[1][1]], dim=1)
