"""A mask head that prompts a frozen SAM with the task state instead of points and boxes.

Following an object through a clip is in `mask_video`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vidground_hf.task_preference.heads_layers import init_head_weights
from vidground_hf.task_preference.mask_conv import MaskOutput

if TYPE_CHECKING:
    from transformers import EdgeTamModel, Sam2Model, Sam3TrackerModel

_NUM_PROMPTS = 3  # SAM2 encodes a box as two corners and a token that says "no point"
_TINY_IOU = 1e-6  # SAM gives shares; at least so far from 0 and 1, for the logit to be finite; our guess


class SamMaskHead(nn.Module):
    """Turns a task state into the prompt of a frozen SAM, which draws the mask.

    The adapter is the published one (two linear layers with ReLU between them, three prompt embeddings) behind a layer
    norm, which is ours. SAM is frozen and stays in evaluation mode, and its switch to another mask where the first
    looks unstable is off: the mask that was trained is the one that is used. Gradients pass to the adapter.

    Args:
        state_width (`int`): of the task state.
        sam (`Sam2Model`): or an `EdgeTamModel` or a `Sam3TrackerModel`; its parameters stop requiring gradients.

    Example:
        >>> from transformers import Sam2Model
        >>> head = SamMaskHead(4096, Sam2Model.from_pretrained("facebook/sam2.1-hiera-small"))  # doctest: +SKIP
    """

    def __init__(self, state_width: int, sam: Sam2Model | EdgeTamModel | Sam3TrackerModel) -> None:
        super().__init__()
        self.prompt_width = sam.prompt_encoder.hidden_size
        self.image_size = sam.prompt_encoder.input_image_size
        self.adapter = nn.Sequential(
            nn.LayerNorm(state_width),
            nn.Linear(state_width, state_width),
            nn.ReLU(),
            nn.Linear(state_width, _NUM_PROMPTS * self.prompt_width),
        )
        self.adapter.apply(init_head_weights)
        self.sam = sam.requires_grad_(False).eval()
        self.sam.mask_decoder.dynamic_multimask_via_stability = False

    def train(self, mode: bool = True) -> SamMaskHead:
        """Sets the mode of the adapter; SAM stays in evaluation mode."""
        super().train(mode)
        self.sam.eval()
        return self

    def embed_states(self, states: Tensor) -> Tensor:
        """The prompts of task states.

        Args:
            states (`Tensor`): `float[N, state_width]`.

        Returns:
            `float[N, 3, prompt_width]`.
        """
        prompts: Tensor = self.adapter(states.to(next(self.adapter.parameters()).dtype))
        return prompts.unflatten(-1, (_NUM_PROMPTS, self.prompt_width))

    @torch.no_grad()
    def embed_boxes(self, boxes: Tensor) -> Tensor:
        """SAM's own prompts of boxes: what prompt distillation (`grade_prompts`) teaches the adapter.

        Args:
            boxes (`Tensor`): `float[N, 4]`, left, top, right, bottom in [0, 1].

        Returns:
            `float[N, 3, prompt_width]`.
        """
        pixels = (boxes.float() * self.image_size).to(self.sam.dtype)
        sparse: Tensor = self.sam.get_prompt_embeddings(input_boxes=pixels[:, None])[0]
        return sparse[:, 0]

    def forward(self, states: Tensor, pixel_values: Tensor) -> MaskOutput:
        """Draws the object that each state asks for in its image.

        Args:
            states (`Tensor`): `float[N, state_width]`.
            pixel_values (`Tensor`): `float[N, 3, S, S]` as SAM's own processor makes them.

        Returns:
            T = 1; a quarter of S high and wide for SAM2. The decoder's raw logits: a low object score does not blank
            them, as SAM2's video model does, where no gradient would be left.

        Raises:
            ValueError: for images of another size or number.
        """
        return self.draw(self.embed_states(states), pixel_values)

    def draw(self, prompts: Tensor, pixel_values: Tensor) -> MaskOutput:
        """Draws what prompts ask for, whether they are of states or of boxes.

        Args:
            prompts (`Tensor`): `float[N, 3, prompt_width]`.
            pixel_values (`Tensor`): `float[N, 3, S, S]`.

        Raises:
            ValueError: for images of another size or number.
        """
        wanted = (len(prompts), 3, self.image_size, self.image_size)
        if tuple(pixel_values.shape) != wanted:
            raise ValueError(
                f"Got pixel_values of shape {tuple(pixel_values.shape)}; allowed is {wanted}, one image for each "
                "state. Make them with SAM's processor, at its own size."
            )
        *fine, coarse = self.sam.get_image_embeddings(pixel_values.to(self.sam.dtype))
        nowhere = coarse.new_zeros(len(prompts), 1, 4)
        masks, iou, _, object_logits = self.sam.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=self.sam.get_image_wide_positional_embeddings().expand(
                len(prompts), -1, -1, -1
            ),
            sparse_prompt_embeddings=prompts.to(self.sam.dtype)[:, None],
            dense_prompt_embeddings=self.sam.get_prompt_embeddings(input_boxes=nowhere)[1],
            multimask_output=False,
            high_resolution_features=fine,
        )
        logits = masks[:, 0].float()
        iou_logits = iou[:, 0].float().logit(_TINY_IOU)
        return MaskOutput(logits, object_logits[:, 0].float(), iou_logits, torch.ones_like(logits, dtype=torch.bool))
