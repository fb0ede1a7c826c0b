"""Rows of one group show one clip: the vision tower runs once for it, and its features go to all of them.

Which rows show what is `grpo_prompts.py`'s; the hooks are set by `grpo_sight.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vidground_hf.grpo_prompts import ShownPrompt


class SharedClips:
    """Cuts what a vision tower is given to the different clips, and spreads what it gives to the rows again.

    Towers take patches or frames of all rows one behind another, and give features in that order, so nothing of a
    family is written down here. Gradients of all rows add up in the shared features.

    Args:
        prompts (`Sequence[ShownPrompt]`): of the rows of a call, in order.

    Example:
        >>> pixels = [torch.full((2, 1, 1, 1), number) for number in (3.0, 4.0)]
        >>> clips = [ShownPrompt([1], [0], {"pixel_values": part}, {"video": []}) for part in pixels]
        >>> shared = SharedClips([clips[0], clips[1], clips[0]])
        >>> cut, _ = shared.cut(None, (torch.cat([pixels[0], pixels[1], pixels[0]]),), {})
        >>> cut[0].flatten().tolist(), shared.spread(None, cut, {}, cut[0]).flatten().tolist()
        ([3.0, 3.0, 4.0, 4.0], [3.0, 3.0, 4.0, 4.0, 3.0, 3.0])
    """

    def __init__(self, prompts: Sequence[ShownPrompt]) -> None:
        shown = [prompt for prompt in prompts if prompt.tensors]
        self.num_rows = len(shown)
        clips = list(dict.fromkeys(shown))
        self.first = [shown.index(clip) for clip in clips]
        self.order = [clips.index(prompt) for prompt in shown]
        self.sizes = [_count_units(clip) for clip in clips]
        # Images may come to the tower in a call of their own.
        self.is_useful = len(clips) < len(shown) and all("video" in clip.vllm_media for clip in clips)

    def cut(self, tower: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the tower is given, of each clip once; as a hook before `forward`."""
        sizes = [self.sizes[place] for place in self.order]

        def pick(tensor: torch.Tensor) -> torch.Tensor:
            if len(tensor) == sum(sizes):
                parts = tensor.split(sizes)
                return torch.cat([parts[row] for row in self.first])
            return tensor[self.first] if len(tensor) == self.num_rows else tensor

        return _change(args, pick), _change(kwargs, pick)

    def spread(self, tower: Any, args: Any, kwargs: Any, output: Any) -> Any:
        """What the tower gave, of each row; as a hook behind `forward`."""

        def repeat(tensor: torch.Tensor) -> torch.Tensor:
            # Patches may have been merged since.
            parts = tensor.split([size * len(tensor) // sum(self.sizes) for size in self.sizes])
            return torch.cat([parts[place] for place in self.order])

        return _change(output, repeat)


def _count_units(clip: ShownPrompt) -> int:
    """How many patches or frames of a clip the tower is given."""
    pixels = next(value for key, value in clip.tensors.items() if key.startswith("pixel_values"))
    return pixels.shape[0] * (pixels.shape[1] if pixels.ndim == 5 else 1)


def _change(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Nested arguments or outputs with every tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value) if value.ndim else value
    if isinstance(value, Mapping):
        changed = {key: _change(part, change) for key, part in value.items()}
        return changed if type(value) is dict else type(value)(**changed)
    if isinstance(value, (list, tuple)):
        return type(value)(_change(part, change) for part in value)
    return value
