"""Runs a model's vision tower once for a batch, and lays what it gives out as grids that the heads can read.

The heads are elsewhere, and so is everything that the language model does with the same features.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vidground_hf.task_preference.features import VisionFeatures, stack_features
from vidground_hf.task_preference.media_facts import MediaFacts


class VisionLayoutError(ValueError):
    """The features of a row cannot be laid out as a grid."""


def look(vlm: Any, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Runs the vision tower over the pixels of a batch.

    Args:
        vlm (`PreTrainedModel`): takes `mm_encoder_outputs`, as vision-language models of transformers 5.23 do.
        inputs (`Mapping[str, Any]`): of its processor.

    Returns:
        `tuple[dict, dict]`: what the tower gave for `"image"` and `"video"` (a kind without pixels is left out), and
        the inputs without the pixels and with it, as the model's `forward` and `generate` take them.
    """
    outputs: dict[str, Any] = {}
    taken: set[str] = set()
    for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if inputs.get(pixels) is None:
            continue
        read = getattr(vlm.base_model, f"get_{kind}_features")
        arguments = {name: inputs[name] for name in inspect.signature(read).parameters if inputs.get(name) is not None}
        outputs[kind] = read(**arguments, return_dict=True)
        taken |= {name for name in arguments if name.startswith("pixel")}
    rest = {name: value for name, value in inputs.items() if name not in taken}
    # Models write what they lack into the dictionary they are given.
    return outputs, rest | ({"mm_encoder_outputs": dict(outputs)} if outputs else {})


def lay_out(
    vlm_config: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any], media: Sequence[MediaFacts | None]
) -> VisionFeatures | None:
    """Gives each row of a batch its grid.

    A row's features are those at its placeholder tokens: models put them there in order, whatever their layout.

    Args:
        vlm_config (`PreTrainedConfig`): of the model.
        inputs (`Mapping[str, Any]`): of its processor, B rows.
        outputs (`Mapping[str, Any]`): what `look` gave for them.
        media (`Sequence[MediaFacts | None]`): B; rows with `None` get an empty grid.

    Returns:
        `VisionFeatures` of B rows, or `None` where no row has a video or image.

    Raises:
        `VisionLayoutError`: for a row whose features do not fit what it is said to show, or a family whose layout is
            not known.
    """
    if len(media) != len(inputs["input_ids"]):
        raise VisionLayoutError(
            f"media tells of {len(media)} rows and the batch has {len(inputs['input_ids'])}; pass one for each row, "
            "None for one without a video or image"
        )
    grids: list[Tensor | None] = [None] * len(media)
    for kind, output in outputs.items():
        flat = _flatten(output.pooler_output)
        counts = (inputs["input_ids"] == getattr(vlm_config, f"{kind}_token_id")).sum(1).tolist()
        blocks = _list_blocks(vlm_config, kind, inputs, output)
        for row, (part, facts) in enumerate(zip(flat.split(counts), media, strict=True)):
            own = _take_blocks(blocks, len(part), row)
            if facts is not None and own:
                if grids[row] is not None:
                    raise VisionLayoutError(f"row {row} shows a video and an image; a task is asked of one of them")
                grids[row] = _cut_grid(part, own, facts, row)
    shown = [grid for grid in grids if grid is not None]
    if not shown:
        return None
    empty = shown[0].new_zeros(0, 0, 0, shown[0].shape[-1])
    filled = [empty if grid is None else grid for grid in grids]
    times = [_find_middles(facts, len(grid), row) for row, (grid, facts) in enumerate(zip(filled, media, strict=True))]
    return stack_features(filled, times, [facts.duration_seconds if facts else 0.0 for facts in media])


class _Block(NamedTuple):
    """A video, an image, or a tile or frame of one, as the model's features have it.

    Attributes:
        num_tokens (`int`): its features, one behind the other; the first of them are its grid, row by row.
        shape (`tuple[int, int, int]`): frames, height and width of the grid.
        is_part (`bool`): whether several of them are one video, or the tiles of one image with the whole behind them.
    """

    num_tokens: int
    shape: tuple[int, int, int]
    is_part: bool = False


def _list_blocks(vlm_config: Any, kind: str, inputs: Mapping[str, Any], output: Any) -> deque[_Block]:
    """What a batch shows, in order, by the layout of its family."""
    pooled = output.pooler_output
    vision = vlm_config.vision_config
    if (grids := inputs.get(f"{kind}_grid_thw")) is not None:
        merge = vision.spatial_merge_size
        shapes = [(frames, height // merge, width // merge) for frames, height, width in grids.tolist()]
        return deque(_Block(math.prod(shape), shape) for shape in shapes)
    if vlm_config.model_type == "llava_onevision":
        side = vision.image_size // vision.patch_size
        if kind == "image":  # the whole image, then its tiles
            return deque(_Block(len(part), (1, side, side)) for part in pooled)
        num_videos, num_frames = inputs["pixel_values_videos"].shape[:2]
        shape = (num_frames, -(-side // 2), -(-side // 2))
        return deque([_Block(math.prod(shape) + 1, shape)] * num_videos)  # a new line behind each
    if vlm_config.model_type not in _SQUARE_FAMILIES:
        raise VisionLayoutError(
            f"the layout of the features of {vlm_config.model_type!r} is not known; use a family with *_grid_thw "
            f"inputs (Qwen-VL and its like), llava_onevision or {' or '.join(_SQUARE_FAMILIES)}"
        )
    num_tokens = _SQUARE_FAMILIES[vlm_config.model_type](vlm_config)
    side = math.isqrt(num_tokens)
    num_pictures = len(_flatten(pooled)) // num_tokens
    return deque([_Block(num_tokens, (1, side, side), is_part=True)] * num_pictures)


def _count_smolvlm(config: Any) -> int:
    vision = config.vision_config
    side: int = vision.image_size // vision.patch_size // config.scale_factor
    return side * side


# Families that show every frame, and every tile of an image, as one square picture, and how many features it has.
_SQUARE_FAMILIES: Mapping[str, Callable[[Any], int]] = {
    "smolvlm": _count_smolvlm,
    "internvl": lambda config: config.image_seq_length,
}


def _take_blocks(blocks: deque[_Block], num_tokens: int, row: int) -> list[_Block]:
    """Takes the blocks of a row from those of the batch."""
    own: list[_Block] = []
    missing = num_tokens
    while missing > 0 and blocks:
        own.append(blocks.popleft())
        missing -= own[-1].num_tokens
    if missing:
        raise VisionLayoutError(
            f"row {row} has {num_tokens} placeholder tokens, and what it shows does not fill them exactly; pass the "
            "processor's own inputs, unchanged"
        )
    return own


def _cut_grid(part: Tensor, blocks: Sequence[_Block], facts: MediaFacts, row: int) -> Tensor:
    """The grid of a row, `float[T, H, W, D]`."""
    if blocks[0].is_part and len(facts.times_seconds) == 1:
        blocks = blocks[-1:]  # the whole image is behind its tiles
        part = part[-blocks[0].num_tokens :]
    if len(blocks) != (len(facts.times_seconds) if blocks[0].is_part else 1):
        raise VisionLayoutError(
            f"row {row} shows {len(blocks)} pictures and has {len(facts.times_seconds)} times; a task is asked of one "
            "video or image: give one time for each frame, or None for a row that shows several"
        )
    parts = part.split([block.num_tokens for block in blocks])
    return torch.cat(
        [own[: math.prod(block.shape)].unflatten(0, block.shape) for own, block in zip(parts, blocks, strict=True)]
    )


def _find_middles(facts: MediaFacts | None, num_patches: int, row: int) -> Tensor:
    """When the middle of each temporal patch is, `float[T]`; the last frame is repeated where a patch is not full."""
    if facts is None or not num_patches:
        return torch.zeros(num_patches)
    times = torch.tensor(facts.times_seconds)
    num_frames = -(-len(times) // num_patches)
    if -(-len(times) // num_frames) != num_patches:
        raise VisionLayoutError(
            f"row {row} has {len(times)} times and its features {num_patches} temporal patches, which does not come "
            "out even; pass the time of each frame that the processor was given"
        )
    missing = num_frames * num_patches - len(times)
    return torch.cat([times, times[-1:].expand(missing)]).unflatten(0, (num_patches, num_frames)).mean(1)


def _flatten(pooled: Any) -> Tensor:
    """All features one behind the other, `float[K, D]`."""
    parts = [pooled] if isinstance(pooled, Tensor) else list(pooled)
    return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])
