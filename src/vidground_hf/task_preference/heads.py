"""The heads that read a task state: moments, boxes and masks, by one import.

Matching and losses are in `matching` and `losses`.
"""

from __future__ import annotations

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
    "init_head_weights",
]
