"""The region head: one box that a task state asks for.

Masks and losses are not here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from vidground_hf.task_preference.features import VisionFeatures, encode_waves
from vidground_hf.task_preference.heads_layers import (
    EncoderLayer,
    FeatureGate,
    OutputLinear,
    init_head_weights,
    make_mlp,
    softmax_valid,
)

RegionKind = Literal["vision", "state"]

_MAX_REACH = 6.0  # 400 cells, more than any picture has; our guess


@dataclass(frozen=True, slots=True)
class RegionOutput:
    """What the region head says of N images or clips.

    Attributes:
        boxes (`Tensor`): `float32[N, 4]`: left, top, right, bottom; of `"vision"` in [0, 1] and in order.
        iou_logits (`Tensor`, *optional*): `float32[N]`, how well the head thinks each box fits, the logit of its IoU;
            `None` of `"state"`, which as published has no such output.
    """

    boxes: Tensor
    iou_logits: Tensor | None


class RegionHead(nn.Module):
    """Finds the box that a task state asks for.

    `"vision"`: the cells of the grid, gated by the state, each say how far the box reaches from them to all four
    sides and how sure they are; the answer is the mean of their boxes, weighted by a softmax over all cells of all
    frames. So it is a box inside the picture whatever the weights are. In a clip the frame is the one the head has
    learned to look at (cells know their time): train it on boxes of one kind of frame, say the first.

    `"state"`: the published head, a two-layer perceptron with ReLU on the state alone. Its numbers may leave [0, 1]
    and their order; clamp them where a box is needed.

    Args:
        state_width (`int`): of the task state.
        feature_width (`int`): of the vision features; unused by `"state"`.
        kind (`str`, *optional*, defaults to `"vision"`): `"vision"` or `"state"`.
        width (`int`, *optional*, defaults to 128): of the vision head, a multiple of 4; our guess. The published one
            is half the state's width, and `"state"` takes that.

    Raises:
        ValueError: for another kind, or a width that is no multiple of 4.

    Example:
        >>> from vidground_hf.task_preference.features import stack_features
        >>> head = RegionHead(8, 4, width=16)
        >>> features = stack_features([torch.ones(1, 2, 2, 4)], [torch.zeros(1)], [0.0])
        >>> tuple(head(torch.ones(1, 8), features).boxes.shape)
        (1, 4)
    """

    def __init__(self, state_width: int, feature_width: int, *, kind: RegionKind = "vision", width: int = 128) -> None:
        super().__init__()
        if kind not in get_args(RegionKind) or width % 4:
            raise ValueError(
                f"Got {kind=} and {width=}; allowed are 'vision' (sees the features) and 'state' (the published head) "
                "and a width that is a multiple of 4. Pass those."
            )
        self.kind = kind
        if kind == "state":
            hidden = state_width // 2
            self.state_in, self.corners = nn.Linear(state_width, hidden), nn.Linear(hidden, 4)
        else:
            self.gate = FeatureGate(state_width, feature_width, width)
            self.mix = EncoderLayer(width, num_heads=4)
            self.norm = nn.LayerNorm(width)
            self.score = nn.Linear(width, 1, bias=False)
            self.reach = OutputLinear(width, 4)
            self.judge = make_mlp(2 * width, width, 1)
        self.width = width
        self.apply(init_head_weights)

    def forward(self, states: Tensor, features: VisionFeatures) -> RegionOutput:
        """Finds boxes.

        Args:
            states (`Tensor`): `float[N, state_width]`.
            features (`VisionFeatures`): N rows; `"state"` does not read them.

        Raises:
            ValueError: for states and features that do not fit the head or one another.
        """
        if self.kind == "state":
            boxes: Tensor = self.corners(self.state_in(states.to(self.state_in.weight.dtype)).relu())
            return RegionOutput(boxes.float(), None)
        cells, _ = self.gate(states, features)
        num_rows, num_frames = cells.shape[:2]
        cells = cells.flatten(2, 3).flatten(0, 1)
        is_valid = features.is_valid.flatten(2).flatten(0, 1)
        places = features.positions()[..., :2].flatten(2, 3)
        waves = encode_waves(places, self.width // 2).flatten(0, 1).to(cells.dtype)
        cells = self.norm(self.mix(cells, waves, is_valid)).unflatten(0, (num_rows, num_frames)).flatten(1, 2)
        weights = softmax_valid(self.score(cells)[..., 0], features.is_valid.flatten(1))
        corners = _find_corners(places.flatten(1, 2), self.reach(cells).float(), features.is_valid)
        boxes = (weights[..., None] * corners).sum(1)
        return RegionOutput(boxes, self._judge(boxes, cells, weights, features.is_valid))

    def _judge(self, boxes: Tensor, cells: Tensor, weights: Tensor, is_valid: Tensor) -> Tensor:
        """How well each box fits (its logit, `float32[N]`), by the cells that chose it and those that lie under it."""
        boxes, cells, weights = boxes.detach(), cells.detach(), weights.detach()  # what judges a box must not bend it
        frames = weights.unflatten(1, (is_valid.shape[1], -1)).sum(2, keepdim=True)
        under = (frames * _cover_cells(boxes, is_valid)).flatten(1)
        under = under / under.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        seen = [(share[..., None].to(cells.dtype) * cells).sum(1) for share in (weights, under)]
        judged: Tensor = self.judge(torch.cat(seen, dim=-1))[:, 0].float()
        return judged


def _cover_cells(boxes: Tensor, is_valid: Tensor) -> Tensor:
    """The area of each cell that lies under the box of its row, `float32[N, T, H * W]`, 0 where padded."""
    shares = []
    for axis, is_cell in enumerate((is_valid.any(2).any(1), is_valid.any(3).any(1))):  # across, down
        ends = is_cell.cumsum(1) / is_cell.sum(1, keepdim=True).clamp(min=1)
        starts = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], dim=1)
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        shares.append((torch.minimum(ends, high) - torch.maximum(starts, low)).clamp(min=0))
    across, down = shares
    return ((down[:, :, None] * across[:, None])[:, None] * is_valid).flatten(2)


def _find_corners(places: Tensor, reach: Tensor, is_valid: Tensor) -> Tensor:
    """The box that each cell sees, inside the picture: its sides are `exp(reach)` cells away, less near the edge.

    Counted in cells, as in FCOS (Tian et al. 2019, arXiv 1904.01355), a box is told alike wherever it is. As a share
    of the way to the edge it is not: on toy clips 0.77 instead of 0.38 of small boxes were right.
    """
    counts = torch.stack([is_valid.any(2).any(1).sum(1), is_valid.any(3).any(1).sum(1)], dim=-1)  # across, down
    away = reach.clamp(max=_MAX_REACH).exp() / counts.clamp(min=1).repeat(1, 2)[:, None]
    room = torch.cat([places, 1 - places], dim=-1).clamp(min=torch.finfo(torch.float32).eps)
    left = room * torch.exp(-away / room)
    return torch.cat([left[..., :2], 1 - left[..., 2:]], dim=-1)
