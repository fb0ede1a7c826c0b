"""The parts that the heads share: attention, the gate that shows them the features, and how weights start.

No head is here.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import initialization as init

from vidground_hf.task_preference.features import VisionFeatures, encode_waves

_WAVES = 16  # numbers per coordinate of a cell's position; our guess


class OutputLinear(nn.Linear):
    """A linear layer that starts near zero, so that what a head says first is its middle answer."""


def init_head_weights(module: nn.Module) -> None:
    """Fills the weights of one module of a head; children have their own call, as in `nn.Module.apply`.

    A `PreTrainedModel` calls it from `_init_weights`: parameters that came from a checkpoint are left as they are.
    Linear layers and convolutions keep the variance of their input, output layers start at a tenth of it (our guess).

    Args:
        module (`nn.Module`): modules that the heads do not use are left alone.

    Example:
        >>> layer = nn.Linear(4, 2)
        >>> init_head_weights(layer)
        >>> layer.bias.tolist()
        [0.0, 0.0]
    """
    if isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        init.normal_(module.weight)
    elif isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
        # A transposed convolution whose kernel is its stride reads one cell per output: its fan is its first axis.
        shape = module.weight.shape
        fan_in = shape[0] if isinstance(module, nn.ConvTranspose2d) else shape[1:].numel()
        init.normal_(module.weight, std=(0.1 if isinstance(module, OutputLinear) else 1.0) * fan_in**-0.5)
        if module.bias is not None:
            init.zeros_(module.bias)


def make_mlp(*widths: int) -> nn.Sequential:
    """Linear layers with GELU between them.

    Example:
        >>> make_mlp(8, 16, 2)[2].out_features
        2
    """
    layers: list[nn.Module] = []
    for index, (inner, outer) in enumerate(itertools.pairwise(widths)):
        layers += [nn.GELU()] * (index > 0) + [nn.Linear(inner, outer)]
    return nn.Sequential(*layers)


class Attention(nn.Module):
    """Scaled dot-product attention with several heads over keys of which some are padding."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"Got {width=} and {num_heads=}; allowed is a width that the heads divide. Change one.")
        self.num_heads = num_heads
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias would shift all scores of a query alike

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, is_valid: Tensor | None = None) -> Tensor:
        """Attends.

        Args:
            queries (`Tensor`): `float[N, Q, width]`.
            keys, values (`Tensor`): `float[N, K, width]`.
            is_valid (`Tensor`, *optional*): `bool[N, K]`; a row without a valid key attends to all of them.

        Returns:
            `float[N, Q, width]`.
        """
        query, key = self._split(self.query(queries)), self._split(self.key(keys))
        mask = None if is_valid is None else (is_valid | ~is_valid.any(1, keepdim=True))[:, None, None]
        mixed = functional.scaled_dot_product_attention(query, key, self._split(self.value(values)), attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, values: Tensor) -> Tensor:
        return values.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part, each behind a layer norm and added to its input."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention = Attention(width, num_heads)
        self.feed_forward = make_mlp(width, 4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, tokens: Tensor, positions: Tensor, is_valid: Tensor) -> Tensor:
        """Mixes tokens.

        Args:
            tokens (`Tensor`): `float[N, K, width]`.
            positions (`Tensor`): `float[N, K, width]`, added to queries and keys.
            is_valid (`Tensor`): `bool[N, K]`.
        """
        normed = self.norms[0](tokens)
        placed = normed + positions
        tokens = tokens + self.attention(placed, placed, normed, is_valid)
        mixed: Tensor = tokens + self.feed_forward(self.norms[1](tokens))
        return mixed


class FeatureGate(nn.Module):
    """Shows a head the features in the light of the task state: each channel is scaled and shifted by it (FiLM).

    The gate comes before anything is pooled, so that a small object is not averaged away before the state has named
    it. FiLM: Perez et al. 2018, arXiv 1709.07871.
    """

    def __init__(self, state_width: int, feature_width: int, width: int) -> None:
        super().__init__()
        self.state_norm = nn.LayerNorm(state_width)
        self.feature_norm = nn.LayerNorm(feature_width)
        self.feature_in = nn.Linear(feature_width, width)
        self.position_in = nn.Linear(3 * _WAVES, width)
        self.film = nn.Linear(state_width, 2 * width)
        self.mlp = make_mlp(width, 2 * width, width)
        self.out_norm = nn.LayerNorm(width)

    def forward(self, states: Tensor, features: VisionFeatures) -> tuple[Tensor, Tensor]:
        """Gates.

        Args:
            states (`Tensor`): `float[N, state_width]`.
            features (`VisionFeatures`): N rows.

        Returns:
            The cells, `float[N, T, H, W, width]`, zero where padded, and the normalised state,
            `float[N, state_width]`.

        Raises:
            ValueError: for states or features that do not fit the head or one another.
        """
        self._check(states, features)
        dtype = self.feature_in.weight.dtype
        state = self.state_norm(states.to(dtype))
        waves = encode_waves(features.positions(), _WAVES).to(dtype)
        cells = self.feature_in(self.feature_norm(features.grid.to(dtype))) + self.position_in(waves)
        scale, shift = self.film(state)[:, None, None, None].chunk(2, dim=-1)
        cells = functional.gelu(cells * (1 + scale) + shift)
        cells = self.out_norm(cells + self.mlp(cells))
        return cells * features.is_valid[..., None], state

    def _check(self, states: Tensor, features: VisionFeatures) -> None:
        wanted = (len(features), self.state_norm.normalized_shape[0], self.feature_norm.normalized_shape[0])
        got = (*states.shape, features.grid.shape[-1])
        if got != wanted:
            raise ValueError(
                f"Got states of shape {tuple(states.shape)} and features of shape {tuple(features.grid.shape)}; "
                f"allowed are states [N, {wanted[1]}] and features [N, T, H, W, {wanted[2]}] of the same N. "
                "Select the rows that a state stands for, or make the head with these widths."
            )


def softmax_valid(scores: Tensor, is_valid: Tensor) -> Tensor:
    """Softmax over the last axis of what is valid, in float32; zeros where nothing is.

    Args:
        scores (`Tensor`): `float[..., K]`.
        is_valid (`Tensor`): `bool[..., K]`.

    Example:
        >>> softmax_valid(torch.zeros(2, 3), torch.tensor([[True, True, False], [False] * 3])).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    lowest = torch.finfo(torch.float32).min
    return scores.float().masked_fill(~is_valid, lowest).softmax(-1) * is_valid
