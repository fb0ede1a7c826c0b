"""One generation for a mixed batch: text for all rows, and the heads' answers at the task tokens they wrote.

Training's forward is in `modeling.py`; heads get the states that it would have at the same tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import LogitsProcessorList

from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.heads import MaskOutput, TemporalOutput
from vidground_hf.task_preference.media_facts import MediaFacts
from vidground_hf.task_preference.tokens import TaskTokenProcessor, find_states
from vidground_hf.task_preference.vision import lay_out, look

if TYPE_CHECKING:
    from vidground_hf.task_preference.modeling import TaskPreferenceModel


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPreferenceAnswer:
    """What one row was answered. What its heads were not asked for, or could not look at, is `None`.

    Attributes:
        text (`str`): what was written, without special tokens.
        tasks (`tuple[str, ...]`): of each task token, in the order written; empty for dialogue.
        is_finished (`bool`): whether the text ended by itself, before `max_new_tokens`.
        spans (`Tensor`, *optional*): `float32[S, 2]`, start and end in seconds, best first; of several moment requests
            in one answer, all. `None` for an image, as the three below.
        scores (`Tensor`, *optional*): `float32[S]`, how sure the head is of each span, in [0, 1].
        saliency (`Tensor`, *optional*): `float32[T]`, how well each temporal patch fits, on no scale; of several
            requests, the one it fits best.
        times_seconds (`Tensor`, *optional*): `float32[T]`, the middle of each temporal patch that `saliency` tells of.
        boxes (`Tensor`, *optional*): `float32[K, 4]`, left, top, right and bottom in pixels, one for each box request.
        masks (`Tensor`, *optional*): `bool[K, T, height, width]`, one for each mask request, in pixels.
        mask_scores (`Tensor`, *optional*): `float32[K, T]`, how sure the head is that the object is in the frame.
        mask_seconds (`Tensor`, *optional*): `float32[T]`, when the frames of the masks are; of a SAM, its one frame.
    """

    text: str
    tasks: tuple[str, ...] = ()
    is_finished: bool = True
    spans: Tensor | None = None
    scores: Tensor | None = None
    saliency: Tensor | None = None
    times_seconds: Tensor | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None
    mask_scores: Tensor | None = None
    mask_seconds: Tensor | None = None


@torch.no_grad()
def write_answers(
    model: TaskPreferenceModel,
    *,
    tokenizer: Any,
    media: Sequence[MediaFacts | None] | None = None,
    features: VisionFeatures | None = None,
    sam_pixel_values: Tensor | None = None,
    max_new_tokens: int = 128,
    **inputs: Any,
) -> list[TaskPreferenceAnswer]:
    """Answers a batch of requests, whatever they ask for, by one generation of the language model.

    A task token follows its trigger, by force; writing goes on behind it. One more token than asked for is computed,
    so that the last one has a state too; a trigger at the very end stays without an answer of its head, like any text
    that is cut off.

    Args:
        model (`TaskPreferenceModel`): set to `eval()` beforehand.
        tokenizer (`PreTrainedTokenizerBase`): of its processor.
        media (`Sequence[MediaFacts | None]`, *optional*): B; a row without has `None` for boxes, masks and spans.
        features (`VisionFeatures`, *optional*): B rows for the temporal head, where it reads precomputed ones.
        sam_pixel_values (`Tensor`, *optional*): `float[B, 3, S, S]`, where a SAM draws masks.
        max_new_tokens (`int`, *optional*, defaults to 128): at most so many are written, at least 1.
        inputs: all that the processor gives for B prompts, padded on the left, and settings of `generate`.

    Returns:
        `list[TaskPreferenceAnswer]`: B, on the CPU.

    Raises:
        `ValueError`: for beams or several answers to a row.

    Example:
        >>> answers = model.generate(**inputs, media=media, tokenizer=processor.tokenizer)  # doctest: +SKIP
        >>> answers[0].spans[0].tolist()  # doctest: +SKIP
        [3.1, 7.9]
    """
    for name in ("num_beams", "num_return_sequences"):
        if inputs.get(name, 1) != 1:
            raise ValueError(f"{name} = {inputs[name]} is not supported: heads read the states of one text; pass 1")
    config = model.config
    task_ids = config.task_token_ids or {}
    seen, rest = look(model.vlm, inputs)
    ids, states, has_ended = _write(model, rest, max_new_tokens)
    places = find_states(ids[:, : states.shape[1]], task_ids)
    vision = None
    if media is not None and any(len(rows) for rows, _ in places.values()):
        vision = lay_out(config.vlm_config, inputs, seen, media)
    can_draw = config.sam_config is None or sam_pixel_values is not None
    shown = model.choose_features(vision, features) | ({} if can_draw else {"mask": None})
    places = {task: _keep_seeing(place, shown[task]) for task, place in places.items()}
    rows = {task: place[0] for task, place in places.items()}
    asking = {task: states[place] for task, place in places.items()}
    found = model.run_heads(asking, rows, shown, sam_pixel_values)
    answers = [
        TaskPreferenceAnswer(
            text=tokenizer.decode(row, skip_special_tokens=True),
            tasks=_list_tasks(row, task_ids),
            is_finished=is_finished,
        )
        for row, is_finished in zip(ids, has_ended, strict=True)
    ]
    looked_at = {task: features for task, features in shown.items() if features is not None}
    read_mask = _read_mask if config.sam_config is None else _read_first_mask
    for task, read in (("moment", _read_moment), ("box", _read_box), ("mask", read_mask)):
        for row in rows[task].unique().tolist() if task in found else []:
            own = (rows[task] == row).nonzero()[:, 0]
            facts = None if media is None else media[row]
            answers[row] = replace(answers[row], **read(found[task], own, looked_at[task], facts, row))
    return answers


def _write(
    model: TaskPreferenceModel, inputs: Mapping[str, Any], max_new_tokens: int
) -> tuple[Tensor, Tensor, list[bool]]:
    """New tokens, `int64[B, T]`; the states of those that were read, `float[B, S, C]`; which of B texts ended."""
    config = model.config
    forced = TaskTokenProcessor(config.trigger_token_ids or {}, config.task_token_ids or {})
    processors = LogitsProcessorList([forced, *inputs.get("logits_processor", [])])
    written = model.vlm.generate(
        **{**inputs, "logits_processor": processors},
        max_new_tokens=max_new_tokens + 1,
        return_dict_in_generate=True,
        output_hidden_states=-1,
    )
    new = written.sequences[:, inputs["input_ids"].shape[1] :]
    # A step reads the token of the step before, and the first one the prompt; the last token was never read.
    ends = torch.stack([step[-1][:, -1] for step in written.hidden_states], dim=1)
    stops = inputs.get("eos_token_id", model.vlm.generation_config.eos_token_id)
    has_ended = torch.isin(new, torch.tensor([] if stops is None else stops, dtype=new.dtype, device=new.device)).any(
        1
    )
    return new[:, :max_new_tokens], ends[:, 1:], has_ended.tolist()


def _keep_seeing(place: tuple[Tensor, Tensor], shown: VisionFeatures | None) -> tuple[Tensor, Tensor]:
    """The rows and columns of those task tokens whose row has something to look at."""
    rows, columns = place
    is_seeing = torch.zeros_like(rows, dtype=torch.bool) if shown is None else shown.frames_valid().any(1)[rows]
    return rows[is_seeing], columns[is_seeing]


def _list_tasks(ids: Tensor, task_ids: Mapping[str, int]) -> tuple[str, ...]:
    """The tasks of a text, in the order of their task tokens."""
    names = {index: task for task, index in task_ids.items()}
    return tuple(names[index] for index in ids.tolist() if index in names)


def _read_moment(
    found: TemporalOutput, own: Tensor, shown: VisionFeatures, facts: MediaFacts | None, row: int
) -> dict[str, Tensor]:
    if shown.duration_seconds[row] == 0:  # an image has no moments
        return {}
    is_valid = shown.frames_valid()[row]
    scores, order = found.logits[-1][own].sigmoid().flatten().sort(descending=True)
    spans = found.spans[-1][own].flatten(0, 1)[order] * shown.duration_seconds[row]
    return {
        "spans": spans.float().cpu(),
        "scores": scores.float().cpu(),
        "saliency": found.saliency[own][:, is_valid].amax(0).float().cpu(),
        "times_seconds": shown.times_seconds[row, is_valid].float().cpu(),
    }


def _read_box(found: Tensor, own: Tensor, shown: VisionFeatures, facts: Any, row: int) -> dict[str, Tensor]:
    size = torch.tensor([facts.width, facts.height] * 2, dtype=torch.float32)
    return {"boxes": found[own].float().cpu().clamp(0, 1) * size}


def _read_mask(found: MaskOutput, own: Tensor, shown: VisionFeatures, facts: Any, row: int) -> dict[str, Tensor]:
    is_valid = found.is_valid[own[0]]
    frames = is_valid.flatten(1).any(1)
    height, width = int(is_valid.any(2).any(0).sum()), int(is_valid.any(1).any(0).sum())
    logits = found.logits[own][:, frames, :height, :width]
    large = functional.interpolate(logits, (facts.height, facts.width), mode="bilinear")
    objects = found.object_logits[own][:, frames]
    return {
        "masks": ((large > 0) & (objects > 0)[..., None, None]).cpu(),
        "mask_scores": objects.sigmoid().float().cpu(),
        "mask_seconds": shown.times_seconds[row, : int(frames.sum())].float().cpu(),
    }


def _read_first_mask(found: MaskOutput, own: Tensor, shown: VisionFeatures, facts: Any, row: int) -> dict[str, Tensor]:
    """Of a SAM, which draws the first frame alone, whatever the model's own patches are of."""
    return _read_mask(found, own, shown, facts, row) | {"mask_seconds": torch.tensor(facts.times_seconds[:1])}
