"""What the temporal head is taught with: spans of every decoder layer, and how frames are ranked.

Matching is in `matching`, the weights of the terms in `losses`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vidground_hf.task_preference.heads_temporal import TemporalOutput
from vidground_hf.task_preference.losses_terms import Terms, average_counted, check_shapes
from vidground_hf.task_preference.matching import find_centre_width, match_spans, span_giou

BACKGROUND_WEIGHT = 0.1
"""Of queries that are no moment, in `moment_label` (CG-DETR's)."""
MARGIN = 0.2
"""Of `saliency_margin` (CG-DETR's)."""
TEMPERATURE = 0.5
"""Of `saliency_rank` (CG-DETR's)."""
LEVELS = tuple(range(1, 12))
"""Thresholds of `saliency_rank` on scores of 0 to 12, three annotators of 0 to 4 added up (CG-DETR's)."""


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
        totals["moment_span"].append(average_counted(difference, counted))
        totals["moment_giou"].append(average_counted(1 - span_giou(found, wanted), counted))
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
    check_shapes(saliency=saliency, targets=targets, is_scored=is_scored)
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
        "saliency_margin": average_counted(margins, is_pair.any(2).any(1)),
        "saliency_rank": average_counted(ranks, parts_row.any(0)),
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
    check_shapes(saliency=saliency, is_valid=is_valid)
    return {"saliency_mismatched": average_counted(functional.softplus(saliency.float()), is_valid)}
