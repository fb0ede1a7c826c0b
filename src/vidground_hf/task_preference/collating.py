"""`TaskPreferenceCollator`: rows of any tasks to one batch for a task preference model.

Sampling rows is `sampling.py`'s; what the batch is for is `trainer.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch

from vidground_hf.media import FrameBudget
from vidground_hf.task_preference.configuration import TASKS
from vidground_hf.task_preference.mask_video import MaskClip
from vidground_hf.task_preference.media_facts import MediaFacts
from vidground_hf.task_preference.row_encoding import EncodedRow, encode_row, join_rows
from vidground_hf.task_preference.row_features import read_features
from vidground_hf.task_preference.row_media import ShownMedia, read_row_media
from vidground_hf.task_preference.row_targets import (
    draw_sam_frame,
    make_targets,
    normalize_box,
    normalize_spans,
    read_shown_masks,
)
from vidground_hf.task_preference.row_text import write_box, write_masks, write_spans
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.task_preference.templates import Wording, ask_question, word_answer
from vidground_hf.task_preference.tokens import name_tokens

Answers = Literal["heads", "text"]

NUM_FRAMES = 16
"""Of a clip, as the paper trains (arXiv 2412.19326, table of training settings)."""


class TaskPreferenceCollator:
    """Makes a batch of rows of any tasks, for training or, by `collate_prompts`, for generation.

    Frames are read through `vidground_hf.video`, the conversation is laid out by the processor's own chat template.
    Only the answer is learned, its end included. To a task it is the trigger and the task token, and for temporal
    reasoning then the words; in the control `answers="text"` it is the same labels written out, and no head is taught.

    Args:
        processor (`ProcessorMixin`): of the model; with heads, its tokenizer has the task tokens (`add_task_tokens`).
        budget (`FrameBudget`, *optional*): what is shown of a video; 16 frames when left out.
        answers (`str`, *optional*, defaults to `"heads"`): or `"text"`.
        wording (`str`, *optional*, defaults to `"train"`): or `"held_out"`, for evaluation.
        seed (`int`, *optional*, defaults to 0): of the wordings.
        sam_processor (`BaseImageProcessor`, *optional*): of the SAM that draws masks, where the model has one; it gets
            one frame of those that are shown, as large as the budget has it: in training one with an annotation, drawn
            by seed and row, and for generation the first. There all of them go along (`sam_clips`), for a
            `MaskFollower`.
        needs_object (`bool`, *optional*, defaults to `False`): draws that frame in training among those that show the
            object: for `mask_loss="prompts"`, whose targets are the boxes of masks, so that a row whose frame shows
            none would teach nothing in any epoch.
        is_blind (`bool`, *optional*, defaults to `False`): shows grey frames in the place of all others, and zeros
            in that of precomputed features, for what a model answers that does not look.

    Raises:
        `ValueError`: for other words, and a tokenizer without the task tokens.

    Example:
        >>> collator = TaskPreferenceCollator(processor, budget=FrameBudget(num_frames=8))  # doctest: +SKIP
        >>> sorted(collator(rows))  # doctest: +SKIP
        ['attention_mask', 'input_ids', 'labels', 'media', 'pixel_values_videos', 'targets', 'video_grid_thw']
    """

    def __init__(
        self,
        processor: Any,
        *,
        budget: FrameBudget | None = None,
        answers: Answers = "heads",
        wording: Wording = "train",
        seed: int = 0,
        sam_processor: Any = None,
        needs_object: bool = False,
        is_blind: bool = False,
    ) -> None:
        if answers not in get_args(Answers) or wording not in get_args(Wording):
            raise ValueError(
                f"{answers = } or {wording = } is not known; pass 'heads' or 'text', and 'train' or 'held_out'"
            )
        vocabulary = processor.tokenizer.get_vocab()
        self.tasks = tuple(task for task in TASKS if all(token in vocabulary for token in name_tokens(task)))
        if answers == "heads" and not self.tasks:
            raise ValueError(
                f"the tokenizer has none of the task tokens, {name_tokens(TASKS[0])[0]!r} and so on; call "
                "add_task_tokens(processor.tokenizer) before the collator is made, or TaskPreferenceModel.from_vlm"
            )
        self.processor, self.sam_processor = processor, sam_processor
        self.budget = FrameBudget(num_frames=NUM_FRAMES) if budget is None else budget
        self.answers, self.wording, self.seed = answers, wording, seed
        self.needs_object, self.is_blind = needs_object, is_blind

    def __call__(self, rows: Sequence[TaskRow | Mapping[str, Any]]) -> dict[str, Any]:
        """Makes a batch for training.

        Args:
            rows (`Sequence[TaskRow]` or of `Mapping`): N rows, or their columns.

        Returns:
            `dict[str, Any]`: tensors of the processor, padded on the right, `labels`, `media` (see `MediaFacts`) and,
            with heads, `targets` (`Targets`) and, where they are needed, `features` (`VisionFeatures`) and
            `sam_pixel_values`.

        Raises:
            `BadRowError`: for media that cannot be read and labels that do not go with it.
        """
        made = [read_task_row(row) for row in rows]
        media = [self._read_media(row) for row in made]
        encoded = [
            self._encode(row, self._write_answer(row, shown), shown) for row, shown in zip(made, media, strict=True)
        ]
        batch = self._join(encoded, "right")
        if self.answers == "text":
            return batch
        has_masks = any(row.task == "mask" for row in made)
        if self.sam_processor is not None and has_masks:
            batch["media"] = [self._draw_sam_frame(*one) for one in zip(made, media, batch["media"], strict=True)]
        return batch | {"targets": make_targets(made, media)} | self._prepare_for_heads(made, media, batch, has_masks)

    def collate_prompts(self, rows: Sequence[TaskRow | Mapping[str, Any]]) -> dict[str, Any]:
        """Makes a batch for generation: the questions alone, padded on the left.

        Args:
            rows (`Sequence[TaskRow]` or of `Mapping`): N rows, or their columns.

        Returns:
            `dict[str, Any]`: tensors of the processor, `media`, and where they are needed `features`,
            `sam_pixel_values` and `sam_clips` (N `MaskClip`, or `None` for a row without a video).

        Raises:
            `BadRowError`: for media that cannot be read.
        """
        made = [read_task_row(row) for row in rows]
        media = [self._read_media(row) for row in made]
        encoded = [self._encode(row, None, shown) for row, shown in zip(made, media, strict=True)]
        # Whatever is asked, the model may call any head.
        batch = self._join(encoded, "left")
        batch |= self._prepare_for_heads(made, media, batch, has_masks=True)
        if self.sam_processor is not None:
            batch["sam_clips"] = [
                MaskClip(shown.data, shown.frame_seconds) if shown is not None and shown.is_video else None
                for shown in media
            ]
        return batch

    def _read_media(self, row: TaskRow) -> ShownMedia | None:
        media = read_row_media(row, self.budget)
        if media is None or not self.is_blind:
            return media
        return replace(media, data=np.full_like(media.data, 128))

    def _encode(self, row: TaskRow, answer: str | None, media: ShownMedia | None) -> EncodedRow:
        question = ask_question(row, wording=self.wording, seed=self.seed)
        return encode_row(self.processor, row, question, answer, media)

    def _join(self, encoded: Sequence[EncodedRow], padding_side: str) -> dict[str, Any]:
        tokenizer = self.processor.tokenizer
        pad_id = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        return join_rows(encoded, pad_id=pad_id, padding_side=padding_side)

    def _draw_sam_frame(self, row: TaskRow, shown: ShownMedia | None, facts: MediaFacts | None) -> MediaFacts | None:
        if row.task != "mask" or shown is None or facts is None:
            return facts
        return replace(facts, sam_frame=draw_sam_frame(row, shown, self.seed, needs_object=self.needs_object))

    def _prepare_for_heads(
        self,
        rows: Sequence[TaskRow],
        media: Sequence[ShownMedia | None],
        batch: Mapping[str, Any],
        has_masks: bool,
    ) -> dict[str, Any]:
        """What heads look at beside the model's own features."""
        found: dict[str, Any] = {}
        features = read_features(rows, media)
        if features is not None:
            grid = torch.zeros_like(features.grid) if self.is_blind else features.grid
            found["features"] = replace(features, grid=grid)
        if self.sam_processor is not None and has_masks:
            blank = np.zeros((1, 1, 3), np.uint8)  # of rows that show nothing
            frames = [
                blank if shown is None else shown.data[facts.sam_frame]
                for shown, facts in zip(media, batch["media"], strict=True)
            ]
            found["sam_pixel_values"] = self.sam_processor(images=frames, return_tensors="pt")["pixel_values"]
        return found

    def _write_answer(self, row: TaskRow, media: ShownMedia | None) -> str:
        words = word_answer(row) or ""
        if row.task == "dialogue":
            return words
        if self.answers == "heads" and row.task not in self.tasks:
            row.reject(f"it asks for a {row.task}, and the model has a head for {', '.join(self.tasks)} only")
        if self.answers == "heads":
            return " ".join(filter(None, ["".join(name_tokens(row.task)), words]))
        return ". ".join(filter(None, [_write_labels(row, media), words]))


def read_task_row(row: TaskRow | Mapping[str, Any]) -> TaskRow:
    """The row itself, or the row that columns of a dataset hold."""
    return row if isinstance(row, TaskRow) else TaskRow.from_columns(row)


def _write_labels(row: TaskRow, media: ShownMedia | None) -> str:
    if media is None:
        row.reject("it asks for a place and shows nothing")
    if row.task == "moment":
        return write_spans(normalize_spans(row, media.duration_seconds).tolist(), media.duration_seconds)
    if row.task == "box":
        return write_box(normalize_box(row, media).tolist())
    masks, seconds = read_shown_masks(row, media)
    return write_masks(masks, seconds.tolist())
