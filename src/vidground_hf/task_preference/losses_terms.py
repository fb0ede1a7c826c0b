"""What all losses of the heads share: means over what is counted, and the grading of a head's own judgement.

The terms of each head are in `losses_moments`, `losses_boxes` and `losses_masks`, their weights in `losses`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

Terms = dict[str, Tensor]


def average_counted(values: Tensor, is_counted: Tensor) -> Tensor:
    """The mean of what is counted; 0 with a gradient path if nothing is.

    Example:
        >>> average_counted(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False])).item()
        2.0
    """
    return (values * is_counted).sum() / is_counted.sum().clamp(min=1)


def find_surprise(iou_logits: Tensor, iou: Tensor) -> Tensor:
    """How far what a head expects of its answers is from how they fit: cross-entropy, less what is left when right.

    Cross-entropy of the logit with the measured IoU as its soft target, as PAA trains its IoU head (Kim and Lee 2020,
    arXiv 2007.08103; `iou_bce_loss` of its published code). The entropy of the target, which has no gradient, is taken
    off: so it is the Kullback-Leibler divergence, and 0 when right. Its slope is the error itself, where L1 behind a
    sigmoid has next to none once the head is sure of 0 or 1, and stays wrong.

    Args:
        iou_logits (`Tensor`): `float[...]`, of the head.
        iou (`Tensor`): `float[...]` in [0, 1], as measured; takes no gradient.

    Returns:
        `float32[...]`: 0 where the sigmoid of the logit is the IoU.

    Example:
        >>> find_surprise(torch.tensor([0.0, 0.0, -9.0]), torch.tensor([0.5, 1.0, 1.0])).round(decimals=3).tolist()
        [0.0, 0.6930000185966492, 9.0]
    """
    iou = iou.detach().float().clamp(0, 1)  # a ratio may round to more than 1
    left = torch.special.entr(iou) + torch.special.entr(1 - iou)
    return functional.binary_cross_entropy_with_logits(iou_logits.float(), iou, reduction="none") - left


def check_shapes(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"Got shapes {shapes}; allowed are equal shapes. Bring the targets to the head's rows, frames and size."
        )
