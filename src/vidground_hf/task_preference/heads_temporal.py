"""The temporal head: moments of a clip and the saliency of its frames, by a small detection transformer over time.

Matching and losses are not here. References are refined layer by layer as in DAB-DETR (Liu et al. 2022, arXiv
2201.12329), which the published head (CG-DETR) builds on; its dummy tokens, prompts and distillation are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidground_hf.task_preference.features import VisionFeatures, encode_waves
from vidground_hf.task_preference.heads_layers import (
    Attention,
    EncoderLayer,
    FeatureGate,
    OutputLinear,
    init_head_weights,
    make_mlp,
    softmax_valid,
)

_MAX_LOGIT = 9.0  # of references, or a sigmoid near 0 or 1 would hold them there; our guess


@dataclass(frozen=True, slots=True)
class TemporalOutput:
    """What the temporal head says of N clips.

    Attributes:
        spans (`Tensor`): `float32[L, N, Q, 2]`, start <= end in [0, 1], of each decoder layer; the last is the answer.
        logits (`Tensor`): `float32[L, N, Q]`, whether a query is a moment.
        saliency (`Tensor`): `float32[N, T]`, higher where a frame fits the request; 0 where padded.
    """

    spans: Tensor
    logits: Tensor
    saliency: Tensor


class TemporalHead(nn.Module):
    """Finds the moments of a clip that a task state asks for.

    Args:
        state_width (`int`): of the task state.
        feature_width (`int`): of the vision features.
        width (`int`, *optional*, defaults to 128): of the head, even; our guess (published 256).
        num_layers (`int`, *optional*, defaults to 2): of the encoder and of the decoder (published 3 and 3).
        num_queries (`int`, *optional*, defaults to 10): moments at most (published).
        num_heads (`int`, *optional*, defaults to 4): of each attention (published 8); divides `width`.

    Raises:
        ValueError: for a width that is odd or that the heads do not divide, or fewer than one layer or query.

    Example:
        >>> from vidground_hf.task_preference.features import stack_features
        >>> head = TemporalHead(8, 4, width=16)
        >>> out = head(torch.ones(1, 8), stack_features([torch.ones(6, 2, 2, 4)], [torch.arange(6.0)], [6.0]))
        >>> tuple(out.spans.shape), tuple(out.saliency.shape)
        ((2, 1, 10, 2), (1, 6))
    """

    def __init__(
        self,
        state_width: int,
        feature_width: int,
        *,
        width: int = 128,
        num_layers: int = 2,
        num_queries: int = 10,
        num_heads: int = 4,
    ) -> None:
        super().__init__()
        if width % 2 or min(num_layers, num_queries) < 1:
            raise ValueError(
                f"Got {width=}, {num_layers=}, {num_queries=}; allowed are an even width and at least one layer and "
                "query. Change them."
            )
        self.num_queries = num_queries
        self.gate = FeatureGate(state_width, feature_width, width)
        self.state_in = nn.Linear(state_width, width)
        self.pool_score = nn.Linear(width, 1, bias=False)
        self.encoder = nn.ModuleList(EncoderLayer(width, num_heads) for _ in range(num_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.saliency_frames, self.saliency_state = nn.Linear(width, width), nn.Linear(width, width)
        self.queries = nn.Embedding(num_queries, width)
        self.references = nn.Embedding(num_queries, 2)
        self.decoder = nn.ModuleList(_DecoderLayer(width, num_heads) for _ in range(num_layers))
        self.apply(init_head_weights)

    def forward(self, states: Tensor, features: VisionFeatures) -> TemporalOutput:
        """Detects.

        Args:
            states (`Tensor`): `float[N, state_width]`.
            features (`VisionFeatures`): N rows.

        Raises:
            ValueError: for states and features that do not fit the head or one another.
        """
        frames, state = self._encode(states, features)
        is_valid = features.frames_valid()
        waves = self._place(features).to(frames.dtype)
        queries = self.queries.weight + state[:, None]
        logits, spans = [], []
        references = self._start_references().expand(len(frames), -1, -1)
        for layer in self.decoder:
            queries, moves, logit = layer(queries, references.sigmoid(), frames, waves, is_valid)
            moved = references + moves.float()
            spans.append(_find_edges(moved.sigmoid()))
            logits.append(logit.float())
            references = moved.detach().clamp(-_MAX_LOGIT, _MAX_LOGIT)
        return TemporalOutput(torch.stack(spans), torch.stack(logits), self._score(frames, state, is_valid))

    def score_saliency(self, states: Tensor, features: VisionFeatures) -> Tensor:
        """The saliency alone, without detection: of clips under the state of another request, for `grade_mismatched`.

        Returns:
            `float32[N, T]`.
        """
        frames, state = self._encode(states, features)
        return self._score(frames, state, features.frames_valid())

    def _encode(self, states: Tensor, features: VisionFeatures) -> tuple[Tensor, Tensor]:
        """Pools the gated cells of each frame and mixes frames and state; `float[N, T, width]`, `float[N, width]`."""
        cells, state = self.gate(states, features)
        cells, is_valid = cells.flatten(2, 3), features.is_valid.flatten(2)
        weights = softmax_valid(self.pool_score(cells)[..., 0], is_valid).to(cells.dtype)
        frames = (weights[..., None] * cells).sum(2)
        tokens = torch.cat([self.state_in(state)[:, None], frames], dim=1)
        waves = self._place(features).to(tokens.dtype)
        positions = torch.cat([torch.zeros_like(waves[:, :1]), waves], dim=1)
        frames_valid = features.frames_valid()
        token_valid = torch.cat([torch.ones_like(frames_valid[:, :1]), frames_valid], dim=1)
        for layer in self.encoder:
            tokens = layer(tokens, positions, token_valid)
        tokens = self.encoder_norm(tokens)
        return tokens[:, 1:], tokens[:, 0]

    def _score(self, frames: Tensor, state: Tensor, is_valid: Tensor) -> Tensor:
        scores = (self.saliency_frames(frames) * self.saliency_state(state)[:, None]).sum(-1)
        return (scores.float() / frames.shape[-1] ** 0.5).masked_fill(~is_valid, 0.0)

    def _place(self, features: VisionFeatures) -> Tensor:
        return encode_waves(features.time_fractions()[..., None], self.queries.embedding_dim)

    def _start_references(self) -> Tensor:
        """Logits of centre and width, `float32[Q, 2]`: spread evenly, a quarter of the clip wide (our guess)."""
        centres = (torch.arange(self.num_queries, device=self.references.weight.device) + 0.5) / self.num_queries
        start = torch.logit(torch.stack([centres, torch.full_like(centres, 0.25)], dim=-1))
        return start + 0.1 * self.references.weight.float()


class _DecoderLayer(nn.Module):
    """Lets queries look at one another and at the frames, then says how far their spans move and if they are one."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.place = make_mlp(2 * width, width, width)
        self.self_attention = Attention(width, num_heads)
        self.cross_attention = Attention(width, num_heads)
        self.feed_forward = make_mlp(width, 4 * width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.move = nn.Sequential(nn.Linear(width, width), nn.GELU(), OutputLinear(width, 2))
        self.label = OutputLinear(width, 1)

    def forward(
        self, queries: Tensor, references: Tensor, frames: Tensor, waves: Tensor, is_valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        places = self.place(encode_waves(references, queries.shape[-1]).to(queries.dtype))
        normed = self.norms[0](queries)
        queries = queries + self.self_attention(normed + places, normed + places, normed)
        normed = self.norms[1](queries)
        queries = queries + self.cross_attention(normed + places, frames + waves, frames, is_valid)
        queries = queries + self.feed_forward(self.norms[2](queries))
        normed = self.norms[3](queries)
        return queries, self.move(normed), self.label(normed)[..., 0]


def _find_edges(spans: Tensor) -> Tensor:
    """Starts and ends in [0, 1] of `float[..., 2]` centres and widths."""
    centre, half = spans[..., 0], spans[..., 1] / 2
    return torch.stack([centre - half, centre + half], dim=-1).clamp(0, 1)
