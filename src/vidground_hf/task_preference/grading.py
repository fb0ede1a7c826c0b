"""From what the language model and the heads give, and what was asked of them, to named losses.

The terms themselves are in `losses.py`, how labels are brought to frames and cells in `heads_targets.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.heads_targets import (
    SaliencyTargets,
    fit_masks,
    fit_saliency,
    fit_sam_masks,
    mark_spans,
    pick_sam_masks,
)
from vidground_hf.task_preference.losses import (
    grade_boxes,
    grade_masks,
    grade_mismatched,
    grade_prompts,
    grade_saliency,
    grade_spans,
)
from vidground_hf.task_preference.media_facts import MediaFacts
from vidground_hf.task_preference.row_masks import find_box
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
    media: Sequence[MediaFacts | None],
) -> dict[str, Tensor]:
    """Grades what the heads found.

    Args:
        heads (`nn.ModuleDict`): of the model.
        mask_loss (`str`): `"bce"`, `"focal"` or `"prompts"`.
        output (`TaskPreferenceOutput`): of the batch, as far as it is filled.
        targets (`Targets`): one for each of its task tokens.
        shown (`Mapping[str, VisionFeatures]`): of each task, what its head looked at; B rows.
        media (`Sequence[MediaFacts | None]`): B; tells when the frame is that a SAM draws.

    Returns:
        `dict[str, Tensor]`: the terms of the tasks that the batch asks for.

    Raises:
        `ValueError`: where targets and task tokens are not of the same rows, and where nothing tells the times of
            their frames.
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
        terms |= grade_boxes(output.box, targets.boxes, output.box_iou_logits)
    if output.mask is not None:
        features = _select(shown["mask"], targets.mask_rows)
        if hasattr(heads["mask"], "sam"):  # draws one frame
            masks = pick_graded_masks(targets, media, mask_loss)
            terms |= _grade_sam_masks(heads["mask"], mask_loss, output, masks)
        else:
            wanted = fit_masks(targets.masks, targets.mask_seconds, features, output.mask.is_valid)
            terms |= grade_masks(output.mask, *wanted, pixel_loss=mask_loss)  # type: ignore[arg-type]
    return terms


def _select(features: VisionFeatures | None, rows: Tensor) -> VisionFeatures:
    if features is None or not features.frames_valid().any(1)[rows].all():
        raise ValueError(f"rows {rows.tolist()} have targets and nothing tells when their frames are; pass media")
    return features.select(rows)


def _grade_moments(head: Any, output: Any, targets: Targets, features: VisionFeatures) -> dict[str, Tensor]:
    found = output.moment
    terms = grade_spans(found, targets.spans)
    if found.saliency is None:
        return terms
    wanted, is_scored = mark_spans(targets.spans, features)
    rated = [row for row, ratings in enumerate(targets.saliency) if ratings is not None]
    if rated:
        fitted = _fit_ratings(targets, rated, features)
        wanted = wanted.index_copy(0, fitted[0], fitted[1].targets)
        is_scored = is_scored.index_copy(0, fitted[0], fitted[1].is_scored)
    terms |= grade_saliency(found.saliency, wanted, is_scored)
    if len(features) > 1 and head.kind == "vision":  # to another, all requests are the same
        other = head.score_saliency(output.states["moment"].roll(1, 0), features)
        terms |= grade_mismatched(other, features.frames_valid())
    return terms


def _fit_ratings(targets: Targets, rated: list[int], features: VisionFeatures) -> tuple[Tensor, SaliencyTargets]:
    rows = torch.tensor(rated, device=features.grid.device)
    ratings = [_RATINGS_SUM * targets.saliency[row] for row in rated]  # type: ignore[operator]
    seconds = [targets.saliency_seconds[row] for row in rated]
    return rows, fit_saliency(ratings, seconds, features.select(rows))  # type: ignore[arg-type]


def _grade_sam_masks(head: Any, mask_loss: str, output: Any, masks: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """Grades a SAM, which draws one frame: its mask, or its prompt against that of a box."""
    found = output.mask
    if mask_loss != "prompts":
        wanted = fit_sam_masks(masks, found.is_valid)
        return grade_masks(found, *wanted, pixel_loss=mask_loss)  # type: ignore[arg-type]
    boxes = {row: _norm_box(mask) for row, mask in enumerate(masks) if mask is not None}
    prompts = head.embed_states(output.states["mask"])[list(boxes)]
    wanted_boxes = torch.tensor(list(boxes.values()), device=prompts.device).reshape(-1, 4)
    return grade_prompts(prompts, head.embed_boxes(wanted_boxes))


def pick_graded_masks(targets: Targets, media: Sequence[MediaFacts | None], mask_loss: str) -> list[Tensor | None]:
    """The masks that a SAM is graded with: of the frame it draws, and for prompts of boxes not empty.

    Args:
        targets (`Targets`): with Nk mask rows.
        media (`Sequence[MediaFacts | None]`): of all rows of the batch.
        mask_loss (`str`): `"bce"`, `"focal"` or `"prompts"`.

    Returns:
        `list[Tensor | None]`: Nk times `bool[height, width]`, or `None` for a row that is not graded.

    Raises:
        `ValueError`: for a mask row without facts.
    """
    rows = targets.mask_rows.tolist()
    shown = [facts for row in rows if (facts := media[row]) is not None]
    if len(shown) < len(rows):
        raise ValueError(f"rows {rows} have masks and nothing tells when their frames are; pass media for all of them")
    masks = pick_sam_masks(targets.masks, targets.mask_seconds, shown)
    if mask_loss != "prompts":
        return masks
    return [mask if mask is not None and mask.any() else None for mask in masks]


def _norm_box(mask: Tensor) -> list[float]:
    """The box around a mask (`bool[H, W]`, not empty), sides in [0, 1]."""
    height, width = mask.shape
    sides: list[float] = (np.array(find_box(mask.cpu().numpy())) / [width, height, width, height]).tolist()
    return sides
