"""From a row to what the model takes, tokens and pixels as its own processor makes them, and the batch of several.

Labels of the heads are made in `row_targets.py`. Rows are processed one by one, because processors fail on most
mixtures of text, images and videos; their tensors are joined afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vidground_hf.task_preference.media_facts import MediaFacts
from vidground_hf.task_preference.row_media import ShownMedia
from vidground_hf.task_preference.task_rows import TaskRow, check_words, list_control_words

IGNORED = -100
"""The label of tokens that are not learned, as transformers' losses take it."""

_TICKS_PER_SECOND = 1000  # processors take whole frame numbers and a rate; in milliseconds any time is one
_PLACEHOLDER = "[the answer goes here]"  # what a chat template writes around an answer is seen around this
_TOKEN_KEYS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRow:
    """One row as the processor prepared it, without padding.

    Attributes:
        ids (`int64[T]`): tokens, placeholders of the media included.
        types (`int64[T]`, *optional*): 1 and 2 at placeholders of images and videos, where the processor tells.
        num_answer_tokens (`int`): how many of the last tokens are the answer; 0 for a prompt.
        tensors (`Mapping[str, Tensor]`): pixels and their layout.
        facts (`MediaFacts`, *optional*): of what is shown.
    """

    ids: Tensor
    types: Tensor | None
    num_answer_tokens: int
    tensors: Mapping[str, Tensor]
    facts: MediaFacts | None


def encode_row(
    processor: Any, row: TaskRow, question: str, answer: str | None, media: ShownMedia | None
) -> EncodedRow:
    """Lays out a question, and its answer, in the chat template of the model.

    Args:
        processor (`ProcessorMixin`): of the model, with the task tokens in its tokenizer.
        row (`TaskRow`): for messages.
        question (`str`): as the user asks it.
        answer (`str`, *optional*): as the model is to give it; without one the row is a prompt for generation.
        media (`ShownMedia`, *optional*): goes before the question.

    Returns:
        `EncodedRow`.

    Raises:
        `BadRowError`: for words that hold a control token of the model, and frames that its processor does not take.
        `ValueError`: for a chat template or a processor that does not write the answer as it is, and a template that
            does not end it by a control token.
    """
    tokenizer = processor.tokenizer
    control_words = list_control_words(tokenizer)
    check_words(row, control_words)
    parts: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if media is not None:
        parts = [{"type": "video" if media.is_video else "image"}, *parts]
    asked = [{"role": "user", "content": parts}]
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True)
    text, num_answer_tokens, behind = prompt, 0, None
    if answer is not None:
        text = _write_told(processor, asked, prompt, answer, control_words)
        behind = _split_answer(tokenizer, prompt, text)
        num_answer_tokens = len(behind)
    found = _process(processor, row, text, media)
    ids = found["input_ids"][0]
    if behind is not None and ids[-num_answer_tokens:].tolist() != behind:
        raise ValueError(
            "the processor reads the answer otherwise than its tokenizer alone; it cannot be trained with"
        )
    types = found.get("mm_token_type_ids")
    tensors = {key: value for key, value in found.items() if key not in _TOKEN_KEYS and isinstance(value, Tensor)}
    return EncodedRow(
        ids, None if types is None else types[0], num_answer_tokens, tensors, _state_facts(processor, media)
    )


def join_rows(rows: Sequence[EncodedRow], *, pad_id: int, padding_side: str) -> dict[str, Any]:
    """Makes a batch of rows.

    Args:
        rows (`Sequence[EncodedRow]`): N, with and without media.
        pad_id (`int`): the token that fills up.
        padding_side (`str`): `"right"` for training, `"left"` for generation.

    Returns:
        `dict[str, Any]`: `input_ids`, `attention_mask`, where the processor tells `mm_token_type_ids`, all
        `int64[N, T]`; the tensors of the media; `media`, N `MediaFacts` or `None`; and where there are answers
        `labels` (`int64[N, T]`), -100 everywhere else.

    Raises:
        `ValueError`: when a model takes clips of one length only and they differ.
    """
    length = max(len(row.ids) for row in rows)

    def pad(values: Tensor, filler: int) -> Tensor:
        missing = length - len(values)
        return functional.pad(values, (missing, 0) if padding_side == "left" else (0, missing), value=filler)

    batch: dict[str, Any] = {
        "input_ids": torch.stack([pad(row.ids, pad_id) for row in rows]),
        "attention_mask": torch.stack([pad(torch.ones_like(row.ids), 0) for row in rows]),
    }
    if any(row.types is not None for row in rows):
        types = [torch.zeros_like(row.ids) if row.types is None else row.types for row in rows]
        batch["mm_token_type_ids"] = torch.stack([pad(one, 0) for one in types])
    for key in dict.fromkeys(key for row in rows for key in row.tensors):
        batch[key] = _join_tensors(key, [row.tensors[key] for row in rows if key in row.tensors])
    batch["media"] = [row.facts for row in rows]
    if any(row.num_answer_tokens for row in rows):
        batch["labels"] = torch.stack([pad(_label_answer(row), IGNORED) for row in rows])
    return batch


def _label_answer(row: EncodedRow) -> Tensor:
    labels = torch.full_like(row.ids, IGNORED)
    start = len(row.ids) - row.num_answer_tokens
    labels[start:] = row.ids[start:]
    return labels


def _split_answer(tokenizer: Any, prompt: str, text: str) -> list[int]:
    """The tokens that an answer adds to its prompt, up to the last one that ends it."""
    asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    told = tokenizer(text, add_special_tokens=False)["input_ids"]
    same = next((k for k, (one, other) in enumerate(zip(asked, told, strict=False)) if one != other), len(asked))
    return list(told[same:])


def _write_told(
    processor: Any, asked: list[dict[str, Any]], prompt: str, answer: str, control_words: Sequence[str]
) -> str:
    """The conversation with its answer, up to the end of the turn, in the context that generation has.

    Some templates write the head of an answered turn otherwise than of an open one; then the open one is kept.
    """

    def tell(words: str) -> str:
        told = [*asked, {"role": "assistant", "content": [{"type": "text", "text": words}]}]
        return str(processor.apply_chat_template(told).rstrip())

    text = tell(answer)
    head, _, end = tell(_PLACEHOLDER).rpartition(_PLACEHOLDER)
    written = text.removeprefix(head).removesuffix(end)
    if written.strip() != answer.strip():  # some templates strip it
        raise ValueError(f"the chat template does not write the answer {answer!r} as it is: {text[-200:]!r}")
    if end not in control_words:
        raise ValueError(
            f"the chat template ends an answer by {end!r}, which is no control token of the model, so that it would "
            "not learn where to stop; write the end of the turn into the template"
        )
    return text if text.startswith(prompt) else prompt + written + end


def _process(processor: Any, row: TaskRow, text: str, media: ShownMedia | None) -> dict[str, Any]:
    if media is None:
        return dict(processor.tokenizer([text], add_special_tokens=False, return_tensors="pt"))
    if not media.is_video:
        found = processor(text=[text], images=[media.data[0]], add_special_tokens=False, return_tensors="pt")
        return _check_pixels(row, dict(found))
    data, times = _fill_patch(processor, media)
    about = {
        "fps": float(_TICKS_PER_SECOND),
        "frames_indices": [round(time * _TICKS_PER_SECOND) for time in times],
        "total_num_frames": max(1, round(media.duration_seconds * _TICKS_PER_SECOND)),
        "duration": media.duration_seconds,
        "height": data.shape[1],
        "width": data.shape[2],
    }
    found = dict(
        processor(
            text=[text],
            videos=[data],
            video_metadata=[about],
            do_sample_frames=False,
            input_data_format="channels_last",
            add_special_tokens=False,
            return_tensors="pt",
        )
    )
    _check_pixels(row, found)
    patch = _read_patch(processor)
    num_taken = _count_frames(found, patch)
    if not 0 <= num_taken - len(data) < patch:
        row.reject(f"the processor took {num_taken} of its {len(data)} frames; the model would not see all of it")
    return found


def _check_pixels(row: TaskRow, found: dict[str, Any]) -> dict[str, Any]:
    if not any(key.startswith("pixel") for key in found):
        row.reject(f"the processor made no pixels of what it shows, only {', '.join(sorted(found))}")
    return found


def _fill_patch(processor: Any, media: ShownMedia) -> tuple[Any, list[float]]:
    """Frames and times, the last one repeated where fewer are shown than go into one temporal patch."""
    num_missing = max(0, _read_patch(processor) - len(media.data))
    data = np.concatenate([media.data, *[media.data[-1:]] * num_missing])
    times = media.frame_seconds.tolist()
    return data, times + times[-1:] * num_missing


def _read_patch(processor: Any) -> int:
    return int(getattr(processor.video_processor, "temporal_patch_size", None) or 1)


def _count_frames(found: Mapping[str, Any], patch: int) -> int:
    if (grid := found.get("video_grid_thw")) is not None:
        return int(grid[:, 0].sum()) * patch
    pixels = found.get("pixel_values_videos", found.get("pixel_values"))
    return int(pixels.shape[1] if pixels.ndim == 5 else pixels.shape[0])


def _state_facts(processor: Any, media: ShownMedia | None) -> MediaFacts | None:
    if media is None:
        return None
    times = _fill_patch(processor, media)[1] if media.is_video else [0.0]
    return MediaFacts(
        times_seconds=tuple(times),
        duration_seconds=media.duration_seconds,
        height=media.height_px,
        width=media.width_px,
    )


def _join_tensors(key: str, parts: Sequence[Tensor]) -> Tensor:
    widths = {part.shape[1] for part in parts if part.ndim > 1}
    if len(widths) < 2:
        return torch.cat(list(parts))
    if key == "pixel_values_videos":
        raise ValueError(
            f"this model takes clips of one length in a batch, these have {sorted(widths)} frames; use clips that "
            "give the full number of frames, or a batch of one row"
        )
    most = max(widths)  # models leave out pictures that are nothing but zeros
    return torch.cat([functional.pad(part, [0, 0] * (part.ndim - 2) + [0, most - part.shape[1]]) for part in parts])
