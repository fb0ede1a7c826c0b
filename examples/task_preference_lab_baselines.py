"""What the task preference lab's scores are held against: answers of those that do not look, or find everything.

No model is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from task_preference_lab_world import CELL_PX, NUM_FRAMES, NUM_SHOWN, OBJECT_PX, SHOWN, SIDE_PX, draw_masks

from vidground_hf.task_preference.evaluation_baselines import answer_constantly, find_constants
from vidground_hf.task_preference.generation import TaskPreferenceAnswer
from vidground_hf.task_preference.row_masks import find_box, read_mask
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.toy_world import PLACES, Clip

Rows = Sequence[TaskRow]
BEST_IN_CELL_PX = (2, 3)  # of a box in its cell: right for half of the offsets


def list_baselines(train: Rows, rows: Rows, clips: Mapping[str, Clip]) -> dict[str, list[TaskPreferenceAnswer | None]]:
    """Answers of each baseline; `None` where it has nothing to say.

    Args:
        train (`Sequence[TaskRow]`): what constants are chosen on.
        rows (`Sequence[TaskRow]`): to be answered.
        clips (`Mapping[str, Clip]`): of these, by id.

    Returns:
        `dict[str, list[TaskPreferenceAnswer | None]]`: of each baseline one answer for each row.
    """
    return {
        "constant": answer_alike(train, rows, lambda row: ""),
        "words": answer_alike(train, rows, read_cue),
        "all objects": [show_all(row, clips[find_clip(row)]) for row in rows],
        "its cell": [show_cell(row) for row in rows],
    }


def find_clip(row: TaskRow) -> str:
    """The id of a row's clip."""
    return row.id.split("-")[0]


def read_kind(row: TaskRow) -> str:
    """The kind of a dialogue row's question."""
    return row.id.split("-")[2]


def read_cue(row: TaskRow) -> str:
    """What of a question could tell something about its answer: the place in it, or the kind of dialogue."""
    if row.task == "dialogue":
        return read_kind(row)
    return next((place for place in PLACES if row.question.startswith(place)), "")


def answer_alike(train: Rows, rows: Rows, read: Callable[[TaskRow], str]) -> list[TaskPreferenceAnswer | None]:
    """The best constant, of the training rows that read the same, for each row: a mask is the box, filled."""
    groups: dict[str, list[TaskRow]] = {}
    for row in train:
        groups.setdefault(read(row), []).append(row)
    constants = {cue: find_constants(own) for cue, own in groups.items()}
    said = {
        cue: Counter(str(row.answer) for row in own if row.task == "dialogue").most_common(1)
        for cue, own in groups.items()
    }
    answers: list[TaskPreferenceAnswer | None] = []
    for row in rows:
        cue = read(row)
        if row.task == "dialogue":
            answers.append(TaskPreferenceAnswer(text=said[cue][0][0]))
        elif row.task == "mask":
            as_box = replace(row, task="box", box=(0, 0, SIDE_PX, SIDE_PX), masks=(), mask_seconds=())
            boxes = answer_constantly([as_box], constants[cue])[0].boxes
            filled = np.zeros((SIDE_PX, SIDE_PX), bool) if boxes is None else _fill(boxes[0].numpy())
            answers.append(_answer_masks(filled[None].repeat(NUM_SHOWN, 0), row))
        else:
            answers += answer_constantly([row], constants[cue])
    return answers


def show_all(row: TaskRow, clip: Clip) -> TaskPreferenceAnswer | None:
    """All there is: the whole clip, the box around all objects, all their pixels; nothing in dialogue."""
    if row.task == "moment":
        spans = torch.tensor([[0.0, clip.num_frames / clip.fps]])
        return TaskPreferenceAnswer(text="", tasks=("moment",), spans=spans, scores=torch.ones(1))
    every = np.any([draw_masks(thing, range(clip.num_frames)) for thing in clip.objects], axis=0)
    if row.task == "mask":
        return _answer_masks(every, row)
    if row.task == "box":
        return _answer_box(find_box(every.any(0)) or ())
    return None


def show_cell(row: TaskRow) -> TaskPreferenceAnswer | None:
    """The right cell, and in it the box that fits most objects: what a model knows that does not look inside cells."""
    if row.task == "box" and row.box is not None:
        return _answer_box(_fix_in_cell(row.box))
    if row.task == "mask":
        empty = np.zeros((SIDE_PX, SIDE_PX), bool)
        masks = [read_mask(mask, row.width_px, row.height_px) for mask in row.masks]
        boxes = [None if mask is None else find_box(mask) for mask in masks]
        return _answer_masks(np.stack([empty if box is None else _fill(_fix_in_cell(box)) for box in boxes]), row)
    return None


def _fix_in_cell(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top = (side // CELL_PX * CELL_PX + inside for side, inside in zip(box[:2], BEST_IN_CELL_PX, strict=True))
    return left, top, left + OBJECT_PX, top + OBJECT_PX


def _fill(box: Sequence[float] | NDArray[np.float32]) -> NDArray[np.bool_]:
    left, top, right, bottom = (round(float(side)) for side in box)
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    mask[top:bottom, left:right] = True
    return mask


def _answer_box(box: Sequence[float]) -> TaskPreferenceAnswer:
    return TaskPreferenceAnswer(text="", tasks=("box",), boxes=torch.tensor([box], dtype=torch.float32))


def _answer_masks(masks: NDArray[np.bool_], row: TaskRow) -> TaskPreferenceAnswer:
    seconds = torch.tensor(list(SHOWN)) * (row.duration_seconds or 1.0) / NUM_FRAMES
    return TaskPreferenceAnswer(text="", tasks=("mask",), masks=torch.tensor(masks)[None], mask_seconds=seconds)
