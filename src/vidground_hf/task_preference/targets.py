"""What the heads of a batch are taught: spans, boxes and masks, and which row of the batch each belongs to.

Rows are turned into targets by the collator; nothing is compared with a prediction here, that is the losses' work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor


def _make_rows() -> Tensor:
    return torch.zeros(0, dtype=torch.long)


def _make_boxes() -> Tensor:
    return torch.zeros(0, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Labels of the task rows of a batch; dialogue rows have none, and a task without rows is empty.

    Spans and boxes are normalised, in float32 whatever the model's type; times are in seconds from the start of the
    clip that is shown, as `VisionFeatures.times_seconds` are.

    Attributes:
        moment_rows (`int64[Nm]`): rows of the batch, growing.
        spans (`list` of Nm `float32[S, 2]`): start and end in [0, 1] of the clip's true duration, S at least 1.
        saliency (`list` of Nm `float32[C]` or `None`): rating of each clip of the video, the mean of its annotators,
            in [0, 4] for QVHighlights; `None` for a set without ratings.
        saliency_seconds (`list` of Nm `float32[C]` or `None`): the middle of each of these clips.
        box_rows (`int64[Nb]`): rows of the batch, growing.
        boxes (`float32[Nb, 4]`): left, top, right, bottom in [0, 1] of width and height.
        mask_rows (`int64[Nk]`): rows of the batch, growing.
        masks (`list` of Nk `bool[T, h, w]`): of the annotated frames that are near a shown one, in the size they were
            annotated in; nothing is set in a frame without the object.
        mask_seconds (`list` of Nk `float32[T]`): when each of these frames is shown; an image has 0.

    Raises:
        `ValueError`: when the lists do not go with their rows.

    Example:
        >>> targets = Targets(box_rows=torch.tensor([2]), boxes=torch.tensor([[0.0, 0.0, 0.5, 1.0]]))
        >>> targets.counts
        {'moment': 0, 'box': 1, 'mask': 0}
    """

    moment_rows: Tensor = field(default_factory=_make_rows)
    spans: list[Tensor] = field(default_factory=list)
    saliency: list[Tensor | None] = field(default_factory=list)
    saliency_seconds: list[Tensor | None] = field(default_factory=list)
    box_rows: Tensor = field(default_factory=_make_rows)
    boxes: Tensor = field(default_factory=_make_boxes)
    mask_rows: Tensor = field(default_factory=_make_rows)
    masks: list[Tensor] = field(default_factory=list)
    mask_seconds: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        for rows, names in _GROUPS.items():
            wanted = len(getattr(self, rows))
            for name in names:
                if len(getattr(self, name)) != wanted:
                    raise ValueError(
                        f"{rows} names {wanted} rows and {name} has {len(getattr(self, name))}; give one for each"
                    )

    @property
    def counts(self) -> dict[str, int]:
        """How many rows each task has (`dict[str, int]`)."""
        return {"moment": len(self.moment_rows), "box": len(self.box_rows), "mask": len(self.mask_rows)}

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Targets:
        """The same on a device; types are kept.

        Args:
            device (`torch.device` or `str`): where to.
            non_blocking (`bool`, *optional*, defaults to `False`): as in `Tensor.to`.

        Returns:
            `Targets`: new.
        """
        return Targets(**{part.name: _move(getattr(self, part.name), device, non_blocking) for part in fields(self)})

    def pin_memory(self) -> Targets:
        """The same in page-locked memory, as a data loader asks for."""
        return Targets(**{part.name: _pin(getattr(self, part.name)) for part in fields(self)})


_GROUPS: Mapping[str, tuple[str, ...]] = {
    "moment_rows": ("spans", "saliency", "saliency_seconds"),
    "box_rows": ("boxes",),
    "mask_rows": ("masks", "mask_seconds"),
}


def _move(value: Any, device: torch.device | str, non_blocking: bool) -> Any:
    if isinstance(value, list):
        return [_move(one, device, non_blocking) for one in value]
    return value if value is None else value.to(device, non_blocking=non_blocking)


def _pin(value: Any) -> Any:
    if isinstance(value, list):
        return [_pin(one) for one in value]
    return value if value is None else value.pin_memory()
