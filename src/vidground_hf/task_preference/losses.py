"""What the heads are taught with: named terms for moments, saliency, boxes, masks and prompts, and their weights.

Every function returns a dictionary of scalars in float32. Each term is a mean over its own targets in the batch, and 0
with a gradient path where there are none; the sum of `WEIGHTS[name] * term` is the loss of the heads. The language
model's loss is not here.
"""

from __future__ import annotations

from collections.abc import Mapping

from vidground_hf.task_preference.losses_boxes import box_giou, grade_boxes
from vidground_hf.task_preference.losses_masks import FOCAL_ALPHA, FOCAL_GAMMA, MaskLoss, grade_masks, grade_prompts
from vidground_hf.task_preference.losses_moments import (
    BACKGROUND_WEIGHT,
    LEVELS,
    MARGIN,
    TEMPERATURE,
    grade_mismatched,
    grade_saliency,
    grade_spans,
)
from vidground_hf.task_preference.losses_terms import Terms

__all__ = [
    "BACKGROUND_WEIGHT",
    "FOCAL_ALPHA",
    "FOCAL_GAMMA",
    "LEVELS",
    "MARGIN",
    "TEMPERATURE",
    "WEIGHTS",
    "MaskLoss",
    "Terms",
    "box_giou",
    "grade_boxes",
    "grade_masks",
    "grade_mismatched",
    "grade_prompts",
    "grade_saliency",
    "grade_spans",
    "weigh_terms",
]

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
    "box_iou": 1.0,  # as of masks; the published head does not judge its boxes
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
