"""The heads of a model: made from its config, and asked about task states.

What each of them does is in a module of its own; losses and matching are in `losses` and `matching`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from transformers import AutoModelForMaskGeneration

from vidground_hf.task_preference.configuration import TaskPreferenceConfig
from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.heads_layers import init_head_weights
from vidground_hf.task_preference.heads_region import RegionHead, RegionKind, RegionOutput
from vidground_hf.task_preference.heads_temporal import TemporalHead, TemporalKind, TemporalOutput
from vidground_hf.task_preference.mask_conv import ConvMaskHead, MaskOutput
from vidground_hf.task_preference.mask_sam import SamMaskHead

__all__ = [
    "ConvMaskHead",
    "MaskOutput",
    "RegionHead",
    "RegionKind",
    "RegionOutput",
    "SamMaskHead",
    "TemporalHead",
    "TemporalKind",
    "TemporalOutput",
    "VisionFeatures",
    "check_columns",
    "init_head_weights",
    "make_heads",
    "run_heads",
]


def make_heads(config: TaskPreferenceConfig, width: int, sam: Any = None) -> nn.ModuleDict:
    """Makes the heads of a model, with fresh weights.

    Args:
        config (`TaskPreferenceConfig`): of the model.
        width (`int`): of its states and vision features.
        sam (`PreTrainedModel`, *optional*): made from `config.sam_config`, if any, when left out.

    Returns:
        `nn.ModuleDict`: by task.
    """
    heads: dict[str, nn.Module] = {}
    if "moment" in config.tasks:
        heads["moment"] = TemporalHead(width, config.moment_feature_width or width, **config.moment_head or {})
    if "box" in config.tasks:
        heads["box"] = RegionHead(width, width, **config.box_head or {})
    if config.sam_config is not None:
        heads["mask"] = SamMaskHead(width, sam or AutoModelForMaskGeneration.from_config(config.sam_config))
    elif "mask" in config.tasks:
        heads["mask"] = ConvMaskHead(width, width, **config.mask_head or {})
    return nn.ModuleDict(heads)


def check_columns(num_rows: int, **columns: Any) -> None:
    """Refuses what is given beside a batch and is of another number of rows.

    Args:
        num_rows (`int`): of the batch.
        columns: by name; `None` is left alone.

    Raises:
        `ValueError`: for one of another length.

    Example:
        >>> check_columns(2, features=None, sam_pixel_values=[0])
        Traceback (most recent call last):
        ValueError: sam_pixel_values has 1 rows and the batch 2; pass one for each row of the batch, in order
    """
    for name, column in columns.items():
        if column is not None and len(column) != num_rows:
            raise ValueError(
                f"{name} has {len(column)} rows and the batch {num_rows}; pass one for each row of the batch, in order"
            )


def run_heads(
    heads: nn.ModuleDict,
    states: Mapping[str, Tensor],
    rows: Mapping[str, Tensor],
    shown: Mapping[str, VisionFeatures | None],
    sam_pixel_values: Tensor | None,
) -> dict[str, Any]:
    """Has the heads answer; arguments, results and errors as of `TaskPreferenceModel.run_heads`."""
    found: dict[str, Any] = {}
    for task, own in rows.items():
        if not len(own):
            continue
        head = heads[task]
        if isinstance(head, SamMaskHead):
            if sam_pixel_values is None:
                raise ValueError(
                    f"rows {own.tolist()} ask for masks of a SAM; pass sam_pixel_values (a collator with "
                    "sam_processor makes them)"
                )
            found[task] = head(states[task], sam_pixel_values[own])
        else:
            found[task] = head(states[task], _select_shown(task, own, shown[task]))
    if "box" in found:
        found["box"], found["box_iou_logits"] = found["box"].boxes, found["box"].iou_logits
    return found


def _select_shown(task: str, rows: Tensor, shown: VisionFeatures | None) -> VisionFeatures:
    if shown is None:
        raise ValueError(
            f"rows {rows.tolist()} ask for a {task}, and there is nothing to look at; pass media for them and their "
            "pixels, or features where the head was made for precomputed ones"
        )
    is_blind = ~shown.frames_valid().any(1)[rows]
    if is_blind.any():
        raise ValueError(
            f"rows {rows[is_blind].tolist()} ask for a {task} and show no video or image; pass its facts in media, or "
            "leave these rows out"
        )
    return shown.select(rows)
