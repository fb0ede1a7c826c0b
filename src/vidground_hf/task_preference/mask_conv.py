"""A light mask head on the vision features themselves, for use without SAM.

The head that drives SAM is in `mask_sam`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.heads_layers import FeatureGate, init_head_weights, make_mlp, softmax_valid


@dataclass(frozen=True, slots=True)
class MaskOutput:
    """What a mask head says of N images or clips.

    Attributes:
        logits (`Tensor`): `float32[N, T, h, w]`, the object above 0; 0 where padded.
        object_logits (`Tensor`): `float32[N, T]`, whether the object is in the frame.
        iou_logits (`Tensor`): `float32[N, T]`, how well the head thinks each mask fits.
        is_valid (`Tensor`): `bool[N, T, h, w]`.
    """

    logits: Tensor
    object_logits: Tensor
    iou_logits: Tensor
    is_valid: Tensor

    @property
    def iou(self) -> Tensor:
        """The IoU that the head expects of each mask, `float32[N, T]` in [0, 1]."""
        return self.iou_logits.sigmoid()


class ConvMaskHead(nn.Module):
    """Draws the object that a task state asks for in every frame, on a finer grid than the features'.

    Frames are drawn one by one; what happens over time it knows from the state and the features.

    Args:
        state_width (`int`): of the task state.
        feature_width (`int`): of the vision features.
        width (`int`, *optional*, defaults to 64): of the head; our guess.
        upsampling (`int`, *optional*, defaults to 4): pixels of the mask to a cell and side, a power of 2; our guess.

    Raises:
        ValueError: for an upsampling that is no power of 2.

    Example:
        >>> from vidground_hf.task_preference.features import stack_features
        >>> head = ConvMaskHead(8, 4, width=16)
        >>> out = head(torch.ones(1, 8), stack_features([torch.ones(2, 3, 3, 4)], [torch.arange(2.0)], [2.0]))
        >>> tuple(out.logits.shape), tuple(out.object_logits.shape)
        ((1, 2, 12, 12), (1, 2))
    """

    def __init__(self, state_width: int, feature_width: int, *, width: int = 64, upsampling: int = 4) -> None:
        super().__init__()
        if upsampling < 1 or upsampling & (upsampling - 1):
            raise ValueError(f"Got {upsampling=}; allowed are powers of 2 (1, 2, 4, 8, ...). Pass one.")
        self.gate = FeatureGate(state_width, feature_width, width)
        self.state_in = nn.Linear(state_width, width)
        self.mixes = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.grows = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 2, stride=2) for _ in range(upsampling.bit_length() - 1)
        )
        self.draw = nn.Conv2d(width, 1, 1)
        self.pool_score = nn.Linear(width, 1, bias=False)
        self.judge = make_mlp(2 * width, width, 2)
        self.apply(init_head_weights)

    def forward(self, states: Tensor, features: VisionFeatures) -> MaskOutput:
        """Draws.

        Args:
            states (`Tensor`): `float[N, state_width]`.
            features (`VisionFeatures`): N rows.

        Raises:
            ValueError: for states and features that do not fit the head or one another.
        """
        cells, state = self.gate(states, features)
        shape = cells.shape[:2]
        is_valid = features.is_valid.flatten(0, 1)
        picture = cells.flatten(0, 1).movedim(-1, 1)
        for mix in self.mixes:
            picture = picture + functional.gelu(mix(picture)) * is_valid[:, None]
        object_logits, iou_logits = self._judge(picture.movedim(1, -1).unflatten(0, shape), state, features)
        for grow in self.grows:
            picture = functional.gelu(grow(picture))
            is_valid = is_valid.repeat_interleave(2, 1).repeat_interleave(2, 2)
        logits = self.draw(picture)[:, 0].float().masked_fill(~is_valid, 0.0)
        return MaskOutput(logits.unflatten(0, shape), object_logits, iou_logits, is_valid.unflatten(0, shape))

    def _judge(self, cells: Tensor, state: Tensor, features: VisionFeatures) -> tuple[Tensor, Tensor]:
        """Whether each frame has the object, and how well it is drawn (its logit): two `float32[N, T]`."""
        cells = cells.flatten(2, 3)
        weights = softmax_valid(self.pool_score(cells)[..., 0], features.is_valid.flatten(2)).to(cells.dtype)
        frames = (weights[..., None] * cells).sum(2)
        both = torch.cat([frames, self.state_in(state)[:, None].expand_as(frames)], dim=-1)
        object_logits, iou_logits = self.judge(both).float().unbind(-1)
        return object_logits, iou_logits
