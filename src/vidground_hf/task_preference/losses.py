"""What the heads are taught with: named terms for moments, saliency, boxes, masks and prompts, in float32.

Every function returns a dictionary of scalars. Each term is a mean over its own targets in the batch, and 0 with a
gradient path where there are none; the sum of `WEIGHTS[name] * term` is the loss of the heads. The language model's
loss is not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from vidground_hf.task_preference.heads_temporal import TemporalOutput
from vidground_hf.task_preference.mask_conv import MaskOutput
from vidground_hf.task_preference.matching import find_centre_width, match_spans, span_giou

Terms = dict[str, Tensor]
MaskLoss = Literal["bce", "focal"]

WEIGHTS: dict[str, float] = {
    # Moments: CG-DETR's criterion, as the published code of task preference optimization uses it. That code then
    # multiplies all of it by 0.05, which we leave out: our guess, not compared.
    "moment_span": 10.0,
    "moment_giou": 1.0,
    "moment_label": 4.0,
    "saliency_margin": 4.0,
    "saliency_rank": 4.0,
    "saliency_mismatched": 4.0,
    # Boxes: the published code (the paper says MSE).
    "box_l1": 2.0,
    "box_giou": 0.2,
    # Masks: focal 20, dice 1, IoU 1, object score 1 as SAM 2 fine-tunes (its released training settings,
    # sam2.1_hiera_b+_MOSE_finetune.yaml); plain cross-entropy 2 as LISA trains (its train_ds.py, which has dice at
    # 0.5). Their papers were not read for these; the published code of task preference computes no mask loss.
    "mask_focal": 20.0,
    "mask_bce": 2.0,
    "mask_dice": 1.0,
    "mask_iou": 1.0,
    "mask_object": 1.0,
    # Prompt distillation: the published code adds it without a factor.
    "prompt_l1": 1.0,
}
"""The weight of each term in the sum, with its source beside it."""

BACKGROUND_WEIGHT = 0.1
"""Of queries that are no moment, in `moment_label` (CG-DETR's)."""
MARGIN = 0.2
"""Of `saliency_margin` (CG-DETR's)."""
TEMPERATURE = 0.5
"""Of `saliency_rank` (CG-DETR's)."""
LEVELS = tuple(range(1, 12))
"""Thresholds of `saliency_rank` on scores of 0 to 12, three annotators of 0 to 4 added up (CG-DETR's)."""
FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
"""Of `mask_focal` (Lin et al. 2017, arXiv 1708.02002)."""


def weigh_terms(own: Mapping[str, float]) -> dict[str, float]:
    """The weight of every term, the words' included.

    Args:
        own (`Mapping[str, float]`): of terms by name, where they differ from `WEIGHTS`.

    Returns:
        `dict[str, float]`: `"dialogue"` is 1 unless `own` has it.

    Raises:
        `ValueError`: for a term that there is not.

    Example:
        >>> weigh_terms({"box_l1": 7.0})["box_l1"], weigh_terms({})["dialogue"]
        (7.0, 1.0)
    """
    weights = {"dialogue": 1.0, **WEIGHTS}
    if unknown := [name for name in own if name not in weights]:
        raise ValueError(f"loss_weights = {dict(own)} has {unknown[0]!r}; pass some of {', '.join(weights)}")
    return weights | dict(own)


def _average(values: Tensor, is_counted: Tensor) -> Tensor:
    """The mean of what is counted; 0 if nothing is."""
    return (values * is_counted).sum() / is_counted.sum().clamp(min=1)


def grade_spans(output: TemporalOutput, targets: Sequence[Tensor]) -> Terms:
    """Grades the moments of every decoder layer against its own matching.

    Args:
        output (`TemporalOutput`): of N rows.
        targets (`Sequence[Tensor]`): N times `float[S, 2]`, start and end in [0, 1], S from 0 on.

    Returns:
        `moment_span` (mean L1 of centre and width) and `moment_giou` (1 - gIoU), means over the matched moments;
        `moment_label`, cross-entropy of being a moment, a mean over all queries. Each is added up over the layers.

    Raises:
        ValueError: for another number of targets than rows, or targets that are no spans.

    Example:
        >>> spans, logits = torch.tensor([[[[0.0, 0.5], [0.5, 1.0]]]]), torch.tensor([[[20.0, -20.0]]])
        >>> terms = grade_spans(TemporalOutput(spans, logits, torch.zeros(1, 4)), [torch.tensor([[0.0, 0.5]])])
        >>> {name: round(float(value), 3) for name, value in terms.items()}
        {'moment_span': 0.0, 'moment_giou': 0.0, 'moment_label': 0.0}
    """
    totals: dict[str, list[Tensor]] = {"moment_span": [], "moment_giou": [], "moment_label": []}
    for spans, logits in zip(output.spans, output.logits, strict=True):
        rows, queries, matched = match_spans(spans, logits, targets)
        starts = torch.tensor([0, *(len(row) for row in targets)], device=spans.device).cumsum(0)
        wanted = torch.cat([row.to(spans.device, torch.float32) for row in targets])[starts[rows] + matched]
        found = spans[rows, queries]
        counted = torch.ones(len(rows), device=spans.device)
        difference = (find_centre_width(found) - find_centre_width(wanted)).abs().mean(-1)
        totals["moment_span"].append(_average(difference, counted))
        totals["moment_giou"].append(_average(1 - span_giou(found, wanted), counted))
        labels = torch.zeros_like(logits).index_put((rows, queries), counted)
        weights = torch.where(labels > 0, 1.0, BACKGROUND_WEIGHT)
        totals["moment_label"].append(
            functional.binary_cross_entropy_with_logits(logits, labels, weight=weights, reduction="mean")
        )
    return {name: torch.stack(values).sum() for name, values in totals.items()}


def grade_saliency(saliency: Tensor, targets: Tensor, is_scored: Tensor) -> Terms:
    """Grades how frames are ranked.

    Args:
        saliency (`Tensor`): `float[N, T]`, of the head.
        targets (`Tensor`): `float[N, T]`, higher is better, on a scale of 0 to 12; frames in and out of a moment can
            be 1 and 0.
        is_scored (`Tensor`): `bool[N, T]`, frames that have a target.

    Returns:
        `saliency_margin`, the hinge of every pair of frames with different targets, a mean over the row's pairs and
        then over the rows that have one; `saliency_rank`, minus the mean log-probability of the frames at or above a
        level among all frames, a mean over the levels that part the row and then over the rows. (CG-DETR draws two
        pairs at random, and divides by 12 whatever the number of levels.)

    Raises:
        ValueError: for shapes that differ.

    Example:
        >>> scored = torch.ones(1, 2, dtype=torch.bool)
        >>> terms = grade_saliency(torch.tensor([[0.1, 0.0]]), torch.tensor([[1.0, 0.0]]), scored)
        >>> {name: round(float(value), 3) for name, value in terms.items()}
        {'saliency_margin': 0.1, 'saliency_rank': 0.598}
    """
    _check_shapes(saliency=saliency, targets=targets, is_scored=is_scored)
    saliency, targets = saliency.float(), targets.float()
    both = is_scored[:, :, None] & is_scored[:, None, :]
    is_pair = both & (targets[:, :, None] > targets[:, None, :])
    hinges = (MARGIN - saliency[:, :, None] + saliency[:, None, :]).clamp(min=0)
    margins = (hinges * is_pair).sum((1, 2)) / is_pair.sum((1, 2)).clamp(min=1)

    logs = (saliency / TEMPERATURE).masked_fill(~is_scored, torch.finfo(torch.float32).min).log_softmax(1)
    levels = torch.tensor(LEVELS, device=targets.device)[:, None, None]
    is_above = (targets >= levels) & is_scored
    parts_row = is_above.any(2) & (~is_above & is_scored).any(2)
    counts = is_above.sum(2).clamp(min=1)
    per_level = -torch.where(is_above, logs, 0.0).sum(2) / counts
    ranks = (per_level * parts_row).sum(0) / parts_row.sum(0).clamp(min=1)
    return {
        "saliency_margin": _average(margins, is_pair.any(2).any(1)),
        "saliency_rank": _average(ranks, parts_row.any(0)),
    }


def grade_mismatched(saliency: Tensor, is_valid: Tensor) -> Terms:
    """Grades the saliency of clips under the state of another row's request, where no frame should stand out.

    Args:
        saliency (`Tensor`): `float[N, T]`, of `TemporalHead.score_saliency` with the states moved on by a row.
        is_valid (`Tensor`): `bool[N, T]`.

    Returns:
        `saliency_mismatched`: -log(1 - sigmoid(saliency)), a mean over frames (CG-DETR's negative pairs).

    Raises:
        ValueError: for shapes that differ.

    Example:
        >>> terms = grade_mismatched(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool))
        >>> round(float(terms["saliency_mismatched"]), 3)
        0.693
    """
    _check_shapes(saliency=saliency, is_valid=is_valid)
    return {"saliency_mismatched": _average(functional.softplus(saliency.float()), is_valid)}


def box_giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of boxes, pair by pair; a box whose corners are swapped has no area but still a hull.

    So every prediction has a gradient, where the published code leaves such boxes out.

    Args:
        first (`Tensor`): `float[..., 4]`, left, top, right, bottom.
        second (`Tensor`): `float[..., 4]`, with an area.

    Returns:
        `float32[...]`: in [-1, 1].

    Example:
        >>> box_giou(torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 0.0, 0.5, 1.0])).item()
        0.5
    """
    first, second = first.float(), second.float()
    shared = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(0)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(0).prod(-1) for boxes in (first, second)]
    covered = areas[0] + areas[1] - shared.prod(-1)
    low = torch.minimum(torch.minimum(first[..., :2], first[..., 2:]), second[..., :2])
    high = torch.maximum(torch.maximum(first[..., :2], first[..., 2:]), second[..., 2:])
    hull = (high - low).prod(-1)
    tiny = torch.finfo(torch.float32).tiny
    return shared.prod(-1) / covered.clamp(min=tiny) - (hull - covered) / hull.clamp(min=tiny)


def grade_boxes(boxes: Tensor, targets: Tensor) -> Terms:
    """Grades boxes.

    Args:
        boxes (`Tensor`): `float[N, 4]`, left, top, right, bottom, in [0, 1] of width and height.
        targets (`Tensor`): `float[N, 4]`, the same.

    Returns:
        `box_l1` (mean over the four numbers) and `box_giou` (1 - gIoU), means over the boxes.

    Raises:
        ValueError: for shapes that differ.

    Example:
        >>> terms = grade_boxes(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.5, 1.0]]))
        >>> {name: float(value) for name, value in terms.items()}
        {'box_l1': 0.125, 'box_giou': 0.5}
    """
    _check_shapes(boxes=boxes, targets=targets)
    counted = torch.ones(len(boxes), device=boxes.device)
    return {
        "box_l1": _average((boxes.float() - targets.float()).abs().mean(-1), counted),
        "box_giou": _average(1 - box_giou(boxes, targets), counted),
    }


def grade_masks(
    output: MaskOutput, targets: Tensor, has_object: Tensor, is_scored: Tensor, *, pixel_loss: MaskLoss = "bce"
) -> Terms:
    """Grades masks where the object is to be seen, and everywhere whether it is.

    Args:
        output (`MaskOutput`): of N rows.
        targets (`Tensor`): `float[N, T, h, w]` in [0, 1], how much of each pixel is the object.
        has_object (`Tensor`): `bool[N, T]`, frames that show it.
        is_scored (`Tensor`): `bool[N, T]`, frames that have a target.
        pixel_loss (`str`, *optional*, defaults to `"bce"`): `"bce"` or `"focal"`.

    Returns:
        `mask_bce` or `mask_focal` (mean over a frame's pixels), `mask_dice` and `mask_iou` (how far `output.iou` is
        from the IoU of the mask), means over frames that show the object; `mask_object`, cross-entropy of the object
        score, a mean over scored frames (as SAM 2 is trained).

    Raises:
        ValueError: for shapes that differ, or another pixel loss.

    Example:
        >>> ones = torch.ones(1, 1, 2, 2)
        >>> out = MaskOutput(20 * ones, 20 * ones[..., 0, 0], ones[..., 0, 0], ones > 0)
        >>> terms = grade_masks(out, ones, ones[..., 0, 0] > 0, ones[..., 0, 0] > 0)
        >>> {name: round(float(value), 3) for name, value in terms.items()}
        {'mask_bce': 0.0, 'mask_dice': 0.0, 'mask_iou': 0.0, 'mask_object': 0.0}
    """
    if pixel_loss not in get_args(MaskLoss):
        raise ValueError(f"Got {pixel_loss=}; allowed are 'bce' and 'focal'. Pass one.")
    _check_shapes(logits=output.logits, targets=targets)
    _check_shapes(object_logits=output.object_logits, has_object=has_object, is_scored=is_scored)
    targets = targets.float()
    is_shown = has_object & is_scored
    num_pixels = output.is_valid.sum((2, 3)).clamp(min=1)
    pixels = functional.binary_cross_entropy_with_logits(output.logits, targets, reduction="none")
    shares = output.logits.sigmoid()
    if pixel_loss == "focal":
        missed = shares * (1 - targets) + (1 - shares) * targets
        alpha = FOCAL_ALPHA * targets + (1 - FOCAL_ALPHA) * (1 - targets)
        pixels = alpha * missed**FOCAL_GAMMA * pixels
    pixels = (pixels * output.is_valid).sum((2, 3)) / num_pixels
    shares, targets = shares * output.is_valid, targets * output.is_valid
    dice = 1 - (2 * (shares * targets).sum((2, 3)) + 1) / (shares.sum((2, 3)) + targets.sum((2, 3)) + 1)
    iou_error = (output.iou - _find_iou(output, targets)).abs()
    scores = functional.binary_cross_entropy_with_logits(
        output.object_logits, has_object.to(output.object_logits.dtype), reduction="none"
    )
    return {
        f"mask_{pixel_loss}": _average(pixels, is_shown),
        "mask_dice": _average(dice, is_shown),
        "mask_iou": _average(iou_error, is_shown),
        "mask_object": _average(scores, is_scored),
    }


@torch.no_grad()
def _find_iou(output: MaskOutput, targets: Tensor) -> Tensor:
    """IoU of each frame's mask with the target, `float32[N, T]`; 1 where both are empty."""
    drawn, wanted = (output.logits > 0) & output.is_valid, targets > 0.5
    covered = (drawn | wanted).sum((2, 3))
    return torch.where(covered > 0, (drawn & wanted).sum((2, 3)) / covered.clamp(min=1), 1.0)


def grade_prompts(prompts: Tensor, targets: Tensor) -> Terms:
    """Grades prompts against SAM's own of the box: distillation, all that the published code trains masks with.

    Args:
        prompts (`Tensor`): `float[N, 3, D]`, of `SamMaskHead.embed_states`.
        targets (`Tensor`): `float[N, 3, D]`, of `SamMaskHead.embed_boxes`. The third token is the same for all boxes.

    Returns:
        `prompt_l1`, a mean over all numbers.

    Raises:
        ValueError: for shapes that differ.

    Example:
        >>> grade_prompts(torch.zeros(1, 3, 2), torch.ones(1, 3, 2))["prompt_l1"].item()
        1.0
    """
    _check_shapes(prompts=prompts, targets=targets)
    difference = (prompts.float() - targets.float()).abs()
    return {"prompt_l1": _average(difference, torch.ones_like(difference))}


def _check_shapes(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"Got shapes {shapes}; allowed are equal shapes. Bring the targets to the head's rows, frames and size."
        )
