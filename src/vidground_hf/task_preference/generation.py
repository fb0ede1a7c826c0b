"""One generation for a mixed batch: text for all rows, and the heads' answers at the task tokens they wrote.

Training's forward is in `modeling.py`; heads get the states that it would have at the same tokens. How their answers
are put into seconds and pixels is in `answers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from vidground_hf.task_preference.answers import (
    TaskPreferenceAnswer,
    read_box,
    read_mask,
    read_moment,
    read_sam_mask,
    size_masks,
)
from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.heads import check_columns
from vidground_hf.task_preference.mask_video import MaskClip, MaskFollower
from vidground_hf.task_preference.media_facts import MediaFacts
from vidground_hf.task_preference.tokens import TaskTokenProcessor, find_states
from vidground_hf.task_preference.vision import lay_out, look

if TYPE_CHECKING:
    from vidground_hf.task_preference.modeling import TaskPreferenceModel


@torch.no_grad()
def write_answers(
    model: TaskPreferenceModel,
    *,
    tokenizer: Any,
    media: Sequence[MediaFacts | None] | None = None,
    features: VisionFeatures | None = None,
    sam_pixel_values: Tensor | None = None,
    sam_clips: Sequence[MaskClip | None] | None = None,
    mask_follower: MaskFollower | None = None,
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
        sam_pixel_values (`Tensor`, *optional*): `float[B, 3, S, S]`, where a SAM draws masks. Needed where a row shows
            something that is not followed, whatever it asks: which head will be called is not known beforehand.
        sam_clips (`Sequence[MaskClip | None]`, *optional*): B, the frames in which a SAM is to follow objects; `None`
            for a row without a video.
        mask_follower (`MaskFollower`, *optional*): follows objects through `sam_clips`; without it a SAM draws the
            first frame of a video alone.
        max_new_tokens (`int`, *optional*, defaults to 128): at most so many are written, at least 1.
        inputs: all that the processor gives for B prompts, padded on the left, and settings of `generate`.

    Returns:
        `list[TaskPreferenceAnswer]`: B, on the CPU.

    Raises:
        `ValueError`: for beams or several answers to a row (here or in the checkpoint's own settings), for a batch of
            training or one that is padded on the right, for a follower without a SAM or without clips, where a SAM has
            no pixels of what a row shows, and for columns of another number of rows.

    Example:
        >>> answers = model.generate(**inputs, media=media, tokenizer=processor.tokenizer)  # doctest: +SKIP
        >>> answers[0].spans[0].tolist()  # doctest: +SKIP
        [3.1, 7.9]
    """
    _check_inputs(model, inputs)
    config = model.config
    check_columns(len(inputs["input_ids"]), features=features, sam_pixel_values=sam_pixel_values, sam_clips=sam_clips)
    clips = {} if mask_follower is None else _list_clips(config, sam_clips)
    if config.sam_config is not None and sam_pixel_values is None:
        _check_sam_shown(media or [], clips)
    task_ids = config.task_token_ids or {}
    seen, rest = look(model.vlm, inputs)
    written = _write(model, rest, max_new_tokens)
    answers = _read_texts(written, tokenizer, task_ids)
    places = find_states(written.ids[:, : written.states.shape[1]], task_ids)
    if not any(len(rows) for rows, _ in places.values()):
        return answers
    vision = None if media is None else lay_out(config.vlm_config, inputs, seen, media)
    facts: Sequence[Any] = [None] * len(answers) if media is None else media
    shown: Mapping[str, Any] = model.choose_features(vision, features)
    places = {task: _keep_seeing(place, shown[task]) for task, place in places.items()}
    if mask_follower is not None:
        places["mask"], followed = _split_followed(places["mask"], clips)
        for row, columns in followed.items():
            head: Any = model.heads["mask"]
            found = mask_follower.follow(head, written.states[row, columns], clips[row])
            masks = size_masks(found, facts[row], is_sam=True) | {
                "mask_seconds": torch.tensor(clips[row].times_seconds).float()
            }
            answers[row] = replace(answers[row], **masks)
    rows = {task: place[0] for task, place in places.items()}
    states = {task: written.states[place] for task, place in places.items()}
    outputs = model.run_heads(states, rows, shown, sam_pixel_values)
    readers = {"moment": read_moment, "box": read_box, "mask": read_sam_mask if config.sam_config else read_mask}
    for task, asked in rows.items():
        for row in asked.unique().tolist():
            own = (asked == row).nonzero()[:, 0]
            answers[row] = replace(answers[row], **readers[task](outputs, own, shown[task], facts[row], row))
    return answers


class _Written(NamedTuple):
    """What the language model wrote.

    Attributes:
        ids (`Tensor`): `int64[B, T]`, new tokens.
        states (`Tensor`): `float[B, S, C]`, of those that were read.
        unforced (`Tensor`): `int64[B, T]`, what would have been written had nothing been forced.
        has_ended (`list[bool]`): which of B texts ended by themselves.
    """

    ids: Tensor
    states: Tensor
    unforced: Tensor
    has_ended: list[bool]


def _write(model: TaskPreferenceModel, inputs: Mapping[str, Any], max_new_tokens: int) -> _Written:
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
    stop_ids = torch.tensor([] if stops is None else stops, dtype=new.dtype, device=new.device)
    return _Written(
        ids=new[:, :max_new_tokens],
        states=ends[:, 1:],
        unforced=torch.stack(forced.unforced, dim=1)[:, :max_new_tokens],
        has_ended=torch.isin(new, stop_ids).any(1).tolist(),
    )


def _read_texts(written: _Written, tokenizer: Any, task_ids: Mapping[str, int]) -> list[TaskPreferenceAnswer]:
    """What was written, without what the heads make of it."""
    return [
        TaskPreferenceAnswer(
            text=tokenizer.decode(ids, skip_special_tokens=True),
            tasks=_list_tasks(ids, task_ids),
            unforced=_list_unforced(ids, unforced, task_ids),
            is_finished=has_ended,
        )
        for ids, unforced, has_ended in zip(written.ids, written.unforced, written.has_ended, strict=True)
    ]


def _check_inputs(model: TaskPreferenceModel, inputs: Mapping[str, Any]) -> None:
    """Refuses what would be answered, and wrongly: prompts that are none, and settings that heads do not go with."""
    settings = inputs.get("generation_config") or model.vlm.generation_config
    for name in ("num_beams", "num_return_sequences"):
        count = inputs.get(name) or getattr(settings, name, None) or 1
        if count != 1:
            raise ValueError(f"{name} = {count} is not supported: heads read the states of one text; pass 1")
    if given := [name for name in ("labels", "targets") if inputs.get(name) is not None]:
        raise ValueError(
            f"{given[0]} are of a batch for training, whose texts hold their answers; pass what collate_prompts of "
            "the collator makes"
        )
    mask = inputs.get("attention_mask")
    if mask is not None and not mask[:, -1].all():
        rows = (mask[:, -1] == 0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"rows {rows} are padded on the right, and would be written on behind their padding; pad on the left, as "
            "collate_prompts of the collator does"
        )


def _list_clips(config: Any, clips: Sequence[MaskClip | None] | None) -> dict[int, MaskClip]:
    """The clips in which objects are followed, by row."""
    if config.sam_config is None or clips is None:
        raise ValueError(
            "mask_follower follows what a SAM draws, in sam_clips; leave it out for a model without a SAM, and else "
            "pass the clips (collate_prompts of a collator with sam_processor makes them)"
        )
    return {row: clip for row, clip in enumerate(clips) if clip is not None}


def _check_sam_shown(media: Sequence[MediaFacts | None], clips: Mapping[int, MaskClip]) -> None:
    """Refuses rows that a SAM could be asked about and has no pixels of."""
    if rows := [row for row, facts in enumerate(media) if facts is not None and row not in clips]:
        raise ValueError(
            f"rows {rows} show something, and the SAM that draws masks has no pixels of it; pass sam_pixel_values "
            "(collate_prompts of a collator with sam_processor makes them), for videos sam_clips and a mask_follower, "
            "or no media where no head is to answer"
        )


def _keep_seeing(place: tuple[Tensor, Tensor], shown: VisionFeatures | None) -> tuple[Tensor, Tensor]:
    """The rows and columns of those task tokens whose row has something to look at."""
    rows, columns = place
    is_seeing = torch.zeros_like(rows, dtype=torch.bool) if shown is None else shown.frames_valid().any(1)[rows]
    return rows[is_seeing], columns[is_seeing]


def _split_followed(
    place: tuple[Tensor, Tensor], clips: Mapping[int, MaskClip]
) -> tuple[tuple[Tensor, Tensor], dict[int, Tensor]]:
    """The mask requests that are drawn in one frame, and the columns of those that are followed, by row."""
    rows, columns = place
    is_followed = torch.isin(rows, torch.tensor(list(clips), dtype=rows.dtype, device=rows.device))
    followed = {row: columns[rows == row] for row in rows[is_followed].unique().tolist()}
    return (rows[~is_followed], columns[~is_followed]), followed


def _list_tasks(ids: Tensor, task_ids: Mapping[str, int]) -> tuple[str, ...]:
    """The tasks of a text, in the order of their task tokens."""
    names = {index: task for task, index in task_ids.items()}
    return tuple(names[index] for index in ids.tolist() if index in names)


def _list_unforced(ids: Tensor, unforced: Tensor, task_ids: Mapping[str, int]) -> tuple[bool, ...]:
    """Of each task token of a text, whether it would have been written without force."""
    known = set(task_ids.values())
    return tuple(index == own for index, own in zip(ids.tolist(), unforced.tolist(), strict=True) if index in known)
