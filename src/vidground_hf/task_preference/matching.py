"""Which query answers for which moment: the cheapest one-to-one assignment, and overlaps of spans.

Losses are in `losses`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

MATCH_COSTS = {"span": 10.0, "giou": 1.0, "label": 4.0}
"""Weights of the costs: L1 of centre and width, minus gIoU, minus the probability of being a moment (CG-DETR's, as in
the published code of task preference optimization)."""


class SpanMatches(NamedTuple):
    """K pairs of a query and a moment, by row and then by query.

    Attributes:
        rows (`Tensor`): `long[K]`, of the batch.
        queries (`Tensor`): `long[K]`, of the row's predictions.
        targets (`Tensor`): `long[K]`, of the row's moments.
    """

    rows: Tensor
    queries: Tensor
    targets: Tensor


def find_centre_width(spans: Tensor) -> Tensor:
    """Centres and widths of spans.

    Args:
        spans (`Tensor`): `float[..., 2]`, start and end.

    Example:
        >>> find_centre_width(torch.tensor([0.25, 0.75])).tolist()
        [0.5, 0.5]
    """
    start, end = spans.unbind(-1)
    return torch.stack([(start + end) / 2, end - start], dim=-1)


def span_giou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised IoU of spans: what they share of what they cover, less what of their hull they leave empty.

    Args:
        first (`Tensor`): `float[..., 2]`, start <= end, in any one unit.
        second (`Tensor`): the same, of a shape that broadcasts with `first`.

    Returns:
        `float32[...]`: in [-1, 1]; of two spans without length 0 at one place and -1 at two.

    Example:
        >>> span_giou(torch.tensor([0.0, 0.5]), torch.tensor([[0.0, 0.25], [0.75, 1.0]])).tolist()
        [0.5, -0.25]
    """
    first, second = first.float(), second.float()
    shared = (torch.minimum(first[..., 1], second[..., 1]) - torch.maximum(first[..., 0], second[..., 0])).clamp(min=0)
    covered = (first[..., 1] - first[..., 0]) + (second[..., 1] - second[..., 0]) - shared
    hull = torch.maximum(first[..., 1], second[..., 1]) - torch.minimum(first[..., 0], second[..., 0])
    tiny = torch.finfo(torch.float32).tiny
    return shared / covered.clamp(min=tiny) - (hull - covered) / hull.clamp(min=tiny)


@torch.no_grad()
def match_spans(spans: Tensor, logits: Tensor, targets: Sequence[Tensor]) -> SpanMatches:
    """Assigns each moment of each row to a query of its own, at the lowest total cost (`MATCH_COSTS`).

    Args:
        spans (`Tensor`): `float[N, Q, 2]`, start and end in [0, 1].
        logits (`Tensor`): `float[N, Q]`.
        targets (`Sequence[Tensor]`): N times `float[S, 2]`, S from 0 on. Of a row with more moments than queries, the
            Q that fit best are matched.

    Raises:
        ValueError: for another number of targets than rows, or targets that are no spans.

    Example:
        >>> spans = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]])
        >>> match_spans(spans, torch.zeros(1, 2), [torch.tensor([[0.6, 1.0]])]).queries.tolist()
        [1]
    """
    shapes = [tuple(rows.shape) for rows in targets]
    if len(targets) != len(spans) or any(len(shape) != 2 or shape[1] != 2 for shape in shapes):
        raise ValueError(
            f"Got {len(spans)} rows of predictions and targets of shapes {shapes}; allowed is one [S, 2] a row, S "
            "from 0 on. Give an empty [0, 2] for a row without a moment."
        )
    counts = [len(rows) for rows in targets]
    together = torch.cat([rows.to(spans.device, torch.float32) for rows in targets])
    # Every query against every moment of the batch, so that the device is waited for once.
    costs = MATCH_COSTS["span"] * torch.cdist(
        find_centre_width(spans.float()).flatten(0, 1), find_centre_width(together), p=1
    )
    costs = costs - MATCH_COSTS["giou"] * span_giou(spans.flatten(0, 1)[:, None], together)
    costs = costs - MATCH_COSTS["label"] * logits.float().sigmoid().flatten()[:, None]
    by_row = costs.unflatten(0, spans.shape[:2]).cpu().split(counts, dim=2)
    pairs = [linear_sum_assignment(block[row].numpy()) for row, block in enumerate(by_row)]
    rows = torch.tensor([row for row, (queries, _) in enumerate(pairs) for _ in queries], dtype=torch.long)
    queries, matched = (
        torch.tensor([int(index) for pair in pairs for index in pair[side]], dtype=torch.long) for side in (0, 1)
    )
    return SpanMatches(rows.to(spans.device), queries.to(spans.device), matched.to(spans.device))
