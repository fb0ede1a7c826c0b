"""What a row was answered, and how what its heads found is put into seconds and pixels.

Asking the model is in `generation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.heads import MaskOutput, TemporalOutput
from vidground_hf.task_preference.media_facts import MediaFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPreferenceAnswer:
    """What one row was answered. What its heads were not asked for, or could not look at, is `None`.

    Attributes:
        text (`str`): what was written, without special tokens.
        tasks (`tuple[str, ...]`): of each task token, in the order written; empty for dialogue.
        unforced (`tuple[bool, ...]`): of each of these tokens, whether the model would have written it behind its
            trigger by itself.
        is_finished (`bool`): whether the text ended by itself, before `max_new_tokens`.
        spans (`Tensor`, *optional*): `float32[S, 2]`, start and end in seconds, best first; of several moment requests
            in one answer, all. `None` for an image, as the three below.
        scores (`Tensor`, *optional*): `float32[S]`, how sure the head is of each span, in [0, 1].
        saliency (`Tensor`, *optional*): `float32[T]`, how well each temporal patch fits, on no scale; of several
            requests, the one it fits best. `None`, as the times below, of a head that has none.
        times_seconds (`Tensor`, *optional*): `float32[T]`, the middle of each temporal patch that `saliency` tells of.
        boxes (`Tensor`, *optional*): `float32[K, 4]`, left, top, right and bottom in pixels, one for each box request.
        box_scores (`Tensor`, *optional*): `float32[K]` in [0, 1], the IoU that the head itself expects of each box, as
            it was trained to. `None` of a head that has none (`kind="state"`).
        masks (`Tensor`, *optional*): `bool[K, T, height, width]`, one for each mask request, in pixels.
        mask_scores (`Tensor`, *optional*): `float32[K, T]` in [0, 1], how sure the head is that the object is in the
            frame.
        mask_ious (`Tensor`, *optional*): `float32[K, T]`, the IoU that the head itself expects of each mask, as it was
            trained to; where an object was followed, that of its key frame for all frames. A frozen SAM was trained to
            by its makers, for prompts of theirs.
        mask_seconds (`Tensor`, *optional*): `float32[T]`, when the frames of the masks are; of a SAM, its one frame
            unless it follows the object.
    """

    text: str
    tasks: tuple[str, ...] = ()
    unforced: tuple[bool, ...] = ()
    is_finished: bool = True
    spans: Tensor | None = None
    scores: Tensor | None = None
    saliency: Tensor | None = None
    times_seconds: Tensor | None = None
    boxes: Tensor | None = None
    box_scores: Tensor | None = None
    masks: Tensor | None = None
    mask_scores: Tensor | None = None
    mask_ious: Tensor | None = None
    mask_seconds: Tensor | None = None


def read_moment(
    outputs: Mapping[str, Any], own: Tensor, shown: VisionFeatures, facts: MediaFacts | None, row: int
) -> dict[str, Any]:
    """The moments of one row.

    Args:
        outputs (`Mapping[str, Any]`): what `TaskPreferenceModel.run_heads` gave.
        own (`Tensor`): `int64[K]`, which of the task's requests are the row's.
        shown (`VisionFeatures`): B rows, what the head looked at.
        facts (`MediaFacts`, *optional*): of the row; moments do without.
        row (`int`): which it is.

    Returns:
        `dict[str, Tensor]`: attributes of `TaskPreferenceAnswer`.
    """
    found: TemporalOutput = outputs["moment"]
    if shown.duration_seconds[row] == 0:  # an image has no moments
        return {}
    is_valid = shown.frames_valid()[row]
    scores, order = found.logits[-1][own].sigmoid().flatten().sort(descending=True)
    spans = found.spans[-1][own].flatten(0, 1)[order] * shown.duration_seconds[row]
    answer = {"spans": spans.float().cpu(), "scores": scores.float().cpu()}
    if found.saliency is None:
        return answer
    return answer | {
        "saliency": found.saliency[own][:, is_valid].amax(0).float().cpu(),
        "times_seconds": shown.times_seconds[row, is_valid].float().cpu(),
    }


def read_box(
    outputs: Mapping[str, Any], own: Tensor, shown: VisionFeatures, facts: MediaFacts, row: int
) -> dict[str, Any]:
    """The boxes of one row; arguments as of `read_moment`."""
    size = torch.tensor([facts.width, facts.height] * 2, dtype=torch.float32)
    answer = {"boxes": outputs["box"][own].float().cpu().clamp(0, 1) * size}
    logits = outputs["box_iou_logits"]
    return answer if logits is None else answer | {"box_scores": logits[own].sigmoid().cpu()}


def read_mask(
    outputs: Mapping[str, Any], own: Tensor, shown: VisionFeatures, facts: MediaFacts, row: int
) -> dict[str, Any]:
    """The masks of one row; arguments as of `read_moment`."""
    masks = size_masks(_select_masks(outputs["mask"], own), facts, is_sam=False)
    return masks | {"mask_seconds": shown.times_seconds[row, : masks["masks"].shape[1]].float().cpu()}


def read_sam_mask(
    outputs: Mapping[str, Any], own: Tensor, shown: VisionFeatures, facts: MediaFacts, row: int
) -> dict[str, Any]:
    """The same of a SAM, which draws one frame alone, whatever the model's own patches are of."""
    masks = size_masks(_select_masks(outputs["mask"], own), facts, is_sam=True)
    return masks | {"mask_seconds": torch.tensor([facts.times_seconds[facts.sam_frame]])}


def _select_masks(found: MaskOutput, own: Tensor) -> MaskOutput:
    return MaskOutput(found.logits[own], found.object_logits[own], found.iou_logits[own], found.is_valid[own])


def size_masks(found: MaskOutput, facts: MediaFacts, *, is_sam: bool) -> dict[str, Any]:
    """The masks of the requests of one row in pixels, and what the head thinks of them.

    The light head is taught how much of each cell is the object (`heads_targets.fit_masks`), and such shares are what
    lies on a line between two cells; of logits, the surer cell would take pixels that are its neighbour's. A SAM was
    trained on interpolated logits by its makers, and is read as they do.

    Args:
        found (`MaskOutput`): of the requests of one row.
        facts (`MediaFacts`): of the row.
        is_sam (`bool`): whether a SAM drew them.

    Returns:
        `dict[str, Tensor]`: attributes of `TaskPreferenceAnswer`, without times.
    """
    is_valid = found.is_valid[0]
    frames = is_valid.flatten(1).any(1)
    height, width = int(is_valid.any(2).any(0).sum()), int(is_valid.any(1).any(0).sum())
    logits = found.logits[:, frames, :height, :width]
    drawn, least = (logits, 0.0) if is_sam else (logits.sigmoid(), 0.5)
    large = functional.interpolate(drawn, (facts.height, facts.width), mode="bilinear", align_corners=False)
    objects = found.object_logits[:, frames]
    return {
        "masks": ((large > least) & (objects > 0)[..., None, None]).cpu(),
        "mask_scores": objects.sigmoid().float().cpu(),
        "mask_ious": found.iou[:, frames].float().cpu(),
    }
