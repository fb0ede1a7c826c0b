"""What the region head is taught with: boxes, and what it expects of them.

The weights of the terms are in `losses`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vidground_hf.task_preference.losses_terms import Terms, average_counted, check_shapes, find_surprise


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
    shared, covered, hull = _measure_boxes(first.float(), second.float())
    tiny = torch.finfo(torch.float32).tiny
    return shared / covered.clamp(min=tiny) - (hull - covered) / hull.clamp(min=tiny)


def _measure_boxes(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What pairs of boxes share, what they cover together, and their hull, `float32[...]` each."""
    shared = (torch.minimum(first[..., 2:], second[..., 2:]) - torch.maximum(first[..., :2], second[..., :2])).clamp(0)
    areas = [(boxes[..., 2:] - boxes[..., :2]).clamp(0).prod(-1) for boxes in (first, second)]
    low = torch.minimum(torch.minimum(first[..., :2], first[..., 2:]), second[..., :2])
    high = torch.maximum(torch.maximum(first[..., :2], first[..., 2:]), second[..., 2:])
    return shared.prod(-1), areas[0] + areas[1] - shared.prod(-1), (high - low).prod(-1)


def grade_boxes(boxes: Tensor, targets: Tensor, iou_logits: Tensor | None = None) -> Terms:
    """Grades boxes.

    Args:
        boxes (`Tensor`): `float[N, 4]`, left, top, right, bottom, in [0, 1] of width and height.
        targets (`Tensor`): `float[N, 4]`, the same.
        iou_logits (`Tensor`, *optional*): `float[N]`, what the head expects of each box: the logit of its IoU.

    Returns:
        `box_l1` (mean over the four numbers), `box_giou` (1 - gIoU), and where there are expectations `box_iou`
        (`find_surprise` at the IoU); means over the boxes.

    Raises:
        ValueError: for shapes that differ.

    Example:
        >>> terms = grade_boxes(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.5, 1.0]]))
        >>> {name: float(value) for name, value in terms.items()}
        {'box_l1': 0.125, 'box_giou': 0.5}
    """
    check_shapes(boxes=boxes, targets=targets)
    counted = torch.ones(len(boxes), device=boxes.device)
    terms = {
        "box_l1": average_counted((boxes.float() - targets.float()).abs().mean(-1), counted),
        "box_giou": average_counted(1 - box_giou(boxes, targets), counted),
    }
    if iou_logits is not None:
        terms["box_iou"] = average_counted(find_surprise(iou_logits, _find_box_iou(boxes, targets)), counted)
    return terms


def _find_box_iou(first: Tensor, second: Tensor) -> Tensor:
    shared, covered, _ = _measure_boxes(first.float(), second.float())
    return shared / covered.clamp(min=torch.finfo(torch.float32).tiny)
