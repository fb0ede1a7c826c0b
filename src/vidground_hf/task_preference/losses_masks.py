"""What mask heads are taught with: masks, or for a SAM the prompts of boxes.

The weights of the terms are in `losses`.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from vidground_hf.task_preference.losses_terms import Terms, average_counted, check_shapes, find_surprise
from vidground_hf.task_preference.mask_conv import MaskOutput

MaskLoss = Literal["bce", "focal"]

FOCAL_ALPHA, FOCAL_GAMMA = 0.25, 2.0
"""Of `mask_focal` (Lin et al. 2017, arXiv 1708.02002)."""


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
        `mask_bce` or `mask_focal` (mean over a frame's pixels), `mask_dice` and `mask_iou` (`find_surprise` at the
        IoU of the mask), means over frames that show the object; `mask_object`, cross-entropy of the object
        score, a mean over scored frames (as SAM 2 is trained).

    Raises:
        ValueError: for shapes that differ, or another pixel loss.

    Example:
        >>> ones = torch.ones(1, 1, 2, 2)
        >>> out = MaskOutput(20 * ones, 20 * ones[..., 0, 0], 20 * ones[..., 0, 0], ones > 0)
        >>> terms = grade_masks(out, ones, ones[..., 0, 0] > 0, ones[..., 0, 0] > 0)
        >>> {name: round(float(value), 3) for name, value in terms.items()}
        {'mask_bce': 0.0, 'mask_dice': 0.0, 'mask_iou': 0.0, 'mask_object': 0.0}
    """
    if pixel_loss not in get_args(MaskLoss):
        raise ValueError(f"Got {pixel_loss=}; allowed are 'bce' and 'focal'. Pass one.")
    check_shapes(logits=output.logits, targets=targets)
    check_shapes(object_logits=output.object_logits, has_object=has_object, is_scored=is_scored)
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
    scores = functional.binary_cross_entropy_with_logits(
        output.object_logits, has_object.to(output.object_logits.dtype), reduction="none"
    )
    return {
        f"mask_{pixel_loss}": average_counted(pixels, is_shown),
        "mask_dice": average_counted(dice, is_shown),
        "mask_iou": average_counted(find_surprise(output.iou_logits, _find_iou(output, targets)), is_shown),
        "mask_object": average_counted(scores, is_scored),
    }


@torch.no_grad()
def _find_iou(output: MaskOutput, targets: Tensor) -> Tensor:
    """IoU of each frame's mask with the target, `float32[N, T]`.

    Where neither fills a cell, 1 if there is no object at all, and 0 if it is smaller than a cell.
    """
    drawn, wanted = (output.logits > 0) & output.is_valid, targets > 0.5
    covered = (drawn | wanted).sum((2, 3))
    is_nothing = (targets.sum((2, 3)) == 0).float()
    return torch.where(covered > 0, (drawn & wanted).sum((2, 3)) / covered.clamp(min=1), is_nothing)


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
    check_shapes(prompts=prompts, targets=targets)
    difference = (prompts.float() - targets.float()).abs()
    return {"prompt_l1": average_counted(difference, torch.ones_like(difference))}
