"""What a model keeps of a clip it has seen, and how prompts behind it are run: each computes only its own text.

Frames and tokens are prepared in `transformers_clips.py`; which clips are kept says `transformers_visual.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from vidground_hf.answerers.transformers_clips import Clip, ClipError
from vidground_hf.answerers.transformers_forward import MAX_RELATIVE_ERROR, pad_left
from vidground_hf.answerers.transformers_loading import LoadedModel
from vidground_hf.answerers.transformers_tokens import Ids
from vidground_hf.model_files import ModelError

# The rule that `generate` asks for positions; families with several positions a token have their own.
_POSITIONS = "_prepare_position_ids_for_generation"

Layers = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of the beginning of prompts.

    Attributes:
        ids (`int64[T]`), types (`int64[T]`): its tokens; 1 and 2 at placeholders of images and videos.
        layout (`Mapping[str, Any]`): the processor's tensors beside the pixels; positions are derived from them.
        features (`Mapping[str, Any]`): what the vision tower made of the pixels, under `"image"` or `"video"`.
        num_frames (`int`), num_visual_tokens (`int`): how many reached the model.
        decoder (`str`): which library decoded the frames.
        layers (`list`, *optional*): keys and values (`[1, H, T, D]` each) of every layer; `None` where a model keeps
            something else, so that prompts are computed whole.
    """

    ids: Ids
    types: Ids
    layout: Mapping[str, Any]
    features: Mapping[str, Any]
    num_frames: int
    num_visual_tokens: int
    decoder: str
    layers: Layers | None = None

    @property
    def num_bytes(self) -> int:
        """What it takes in the model's memory."""
        kept = [tensor for pair in self.layers or [] for tensor in pair] or _list_tensors(self.features)
        return sum(tensor.nbytes for tensor in kept)


@torch.inference_mode()
def look(loaded: LoadedModel, clip: Clip, *, keep_layers: bool) -> Seen:
    """Runs the vision tower, and the model over all tokens before the text.

    Args:
        loaded (`LoadedModel`): the model.
        clip (`Clip`): what the processor made of the frames.
        keep_layers (`bool`): whether prompts may share what is computed; see `can_keep`.

    Raises:
        `ClipError`: when the vision tower gives another number of features than there are placeholders.
    """
    model = loaded.model
    # `second_per_grid_ts` and its like stay in full precision: positions are counted from them.
    tensors = {
        key: value.to(model.device, model.dtype if key.startswith("pixel_values") else None)
        if isinstance(value, torch.Tensor)
        else value
        for key, value in clip.tensors.items()
    }
    kind = "video" if "pixel_values_videos" in tensors else "image"
    read = getattr(model.base_model, f"get_{kind}_features")
    taken = inspect.signature(read).parameters
    features = read(**{key: value for key, value in tensors.items() if key in taken})
    pooled = features.pooler_output
    pooled = [pooled] if isinstance(pooled, torch.Tensor) else list(pooled)
    num_features = sum(part.numel() // part.shape[-1] for part in pooled)
    num_visual_tokens = int((clip.ids == getattr(model.config, f"{kind}_token_id", None)).sum())
    if num_features != num_visual_tokens or not num_features:
        raise ClipError(
            f"the vision tower gave {num_features} features for {num_visual_tokens} placeholders; nothing was asked"
        )
    seen = Seen(
        ids=clip.ids,
        types=clip.types,
        layout={key: value for key, value in tensors.items() if not key.startswith("pixel")},
        features={kind: features},
        num_frames=clip.num_frames,
        num_visual_tokens=num_visual_tokens,
        decoder=clip.decoder,
    )
    if not keep_layers:
        return seen
    cache = DynamicCache(config=model.config)
    whole = prepare_rows(loaded, [seen], [np.zeros(0, np.int64)])
    model.base_model(**whole, past_key_values=cache, use_cache=True)
    return replace(seen, features={}, layers=_read_layers(cache))


@torch.inference_mode()
def extend(loaded: LoadedModel, seen: Seen, ids: Ids) -> Seen:
    """Reads on: what is kept of a beginning and some more tokens of text."""
    inputs = _prepare_behind(loaded, [seen], [ids])
    cache = inputs["past_key_values"]
    loaded.model.base_model(**_cut_columns(inputs, len(ids)), use_cache=True)
    more = replace(seen, ids=np.concatenate([seen.ids, ids]), types=np.append(seen.types, np.zeros_like(ids)))
    return replace(more, layers=_read_layers(cache))


@torch.inference_mode()
def read_seen_logits(loaded: LoadedModel, seen: Sequence[Seen], rows: Sequence[Ids]) -> torch.Tensor:
    """The logits of what follows each row of text behind what its prompt has seen (`Tensor[R, V]`)."""
    inputs = prepare_rows(loaded, seen, rows)
    if "past_key_values" in inputs:
        inputs = _cut_columns(inputs, max(map(len, rows)))
    if "logits_to_keep" in loaded.arguments:
        inputs["logits_to_keep"] = 1
    logits: torch.Tensor = loaded.model(**inputs).logits
    return logits[:, -1]


def prepare_rows(loaded: LoadedModel, seen: Sequence[Seen], rows: Sequence[Ids]) -> dict[str, Any]:
    """The model's inputs for rows of text behind what they have seen, as `generate` takes them.

    Args:
        loaded (`LoadedModel`): the model.
        seen (`Sequence[Seen]`): one per row; without kept layers there is one row only.
        rows (`Sequence[int64[T]]`): the texts.
    """
    if seen[0].layers is not None:
        return _prepare_behind(loaded, seen, rows)
    ((one, ids),) = zip(seen, rows, strict=True)
    types = torch.from_numpy(np.append(one.types, np.zeros_like(ids)))[None].to(loaded.model.device)
    whole = torch.from_numpy(np.append(one.ids, ids))[None].to(loaded.model.device)
    inputs = {
        "input_ids": whole,
        "attention_mask": torch.ones_like(whole),
        "position_ids": _find_positions(loaded, one, ids),
        "mm_token_type_ids": types,
        "mm_encoder_outputs": dict(one.features),
    }
    return {key: value for key, value in inputs.items() if key in loaded.arguments}


def _prepare_behind(loaded: LoadedModel, seen: Sequence[Seen], rows: Sequence[Ids]) -> dict[str, Any]:
    device = loaded.model.device
    own, own_mask = pad_left(rows)
    before, before_mask = pad_left([one.ids for one in seen])
    positions = [_find_positions(loaded, one, ids) for one, ids in zip(seen, rows, strict=True)]
    widths = [len(one.ids) for one in seen]
    # The columns of a row: padding, what it has seen, padding, its own text.
    shape = (*positions[0].shape[:-2], len(rows), before.shape[1] + own.shape[1])
    columns = positions[0].new_zeros(shape)
    for row, (found, width) in enumerate(zip(positions, widths, strict=True)):
        columns[..., row, before.shape[1] - width : before.shape[1]] = found[..., 0, :width]
        if found.shape[-1] > width:
            columns[..., row, width - found.shape[-1] :] = found[..., 0, width:]
    return {
        "input_ids": torch.cat([before, own], dim=1).to(device),
        "attention_mask": torch.cat([before_mask, own_mask], dim=1).to(device),
        "position_ids": columns,
        "past_key_values": _stack_layers(seen, before.shape[1]),
    }


def _cut_columns(inputs: dict[str, Any], num_own: int) -> dict[str, Any]:
    """Keeps the columns that are not in the cache; the mask goes over all."""
    cut = {key: inputs[key][..., -num_own:] for key in ("input_ids", "position_ids")}
    return {**inputs, **cut}


def _find_positions(loaded: LoadedModel, seen: Seen, ids: Ids) -> torch.Tensor:
    """Positions of a whole prompt (`int64[..., 1, T]`), by the model's own rule, which `generate` asks as well."""
    device = loaded.model.device
    whole = torch.from_numpy(np.append(seen.ids, ids))[None].to(device)
    types = torch.from_numpy(np.append(seen.types, np.zeros_like(ids)))[None].to(device)
    settings = {"attention_mask": torch.ones_like(whole), "mm_token_type_ids": types, **seen.layout}
    positions: torch.Tensor = getattr(loaded.model, _POSITIONS)(whole, settings)
    return positions


def _stack_layers(seen: Sequence[Seen], length: int) -> DynamicCache:
    """Puts what rows have seen under one another, their ends aligned."""

    def stack(layer: int, place: int) -> torch.Tensor:
        tensors = [one.layers[layer][place] for one in seen if one.layers is not None]
        pads = [(0, 0, length - tensor.shape[-2], 0) for tensor in tensors]
        return torch.cat([torch.nn.functional.pad(*pair) for pair in zip(tensors, pads, strict=True)])

    return DynamicCache([(stack(layer, 0), stack(layer, 1)) for layer in range(len(seen[0].layers or []))])


def _read_layers(cache: DynamicCache) -> Layers:
    return [(layer.keys, layer.values) for layer in cache.layers]


def check_sight(loaded: LoadedModel, clips: Sequence[Clip], text: Ids) -> None:
    """Makes sure that frames reach a model: its logits behind two clips that differ in their pixels only.

    Args:
        loaded (`LoadedModel`): the model.
        clips (`Sequence[Clip]`): the two.
        text (`int64[T]`): tokens that it may read.

    Raises:
        `ModelError`: when they are the same, or it has no way to be given features.
    """
    if "mm_encoder_outputs" not in loaded.arguments or not hasattr(loaded.model, _POSITIONS):
        raise ModelError(
            f"{type(loaded.model).__name__} cannot be given the features of frames; update transformers, or ask it "
            "with a blind view"
        )
    first, other = (read_seen_logits(loaded, [look(loaded, clip, keep_layers=False)], [text]) for clip in clips)
    if torch.equal(first, other):
        raise ModelError(
            f"{type(loaded.model).__name__} answers the same whatever the frames; ask it with a blind view"
        )


def can_keep(loaded: LoadedModel, clip: Clip, text: Ids) -> bool:
    """Whether a model gives the same logits behind what it keeps of a clip as when it computes all; tried on one.

    Args:
        loaded (`LoadedModel`): the model.
        clip (`Clip`): any.
        text (`int64[T]`): at least four tokens that it may read.
    """
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=loaded.model.config).layers):
        return False
    rows = [text, text[1:]]
    alone = look(loaded, clip, keep_layers=False)
    kept = look(loaded, clip, keep_layers=True)
    more = extend(loaded, kept, text[:2])
    whole = torch.cat([read_seen_logits(loaded, [alone], [row]) for row in rows]).float()
    shared = torch.cat(
        [read_seen_logits(loaded, [kept, kept], rows), read_seen_logits(loaded, [more], [text[2:]])]
    ).float()
    error = (shared - whole[[0, 1, 0]]).square().mean().sqrt()
    return bool(error <= MAX_RELATIVE_ERROR * whole.std())


def _list_tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in nested outputs of a model."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in _list_tensors(part)]
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in _list_tensors(part)]
    return []
