"""Answers that need no model, to print beside every score: the best constant, and all objects at once.

What a model answers that sees nothing is asked by a collator with `is_blind=True`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from vidground_hf.stats.boxes import box_iou
from vidground_hf.stats.windows import temporal_iou
from vidground_hf.task_preference.evaluation_scores import name_media
from vidground_hf.task_preference.generation import TaskPreferenceAnswer
from vidground_hf.task_preference.row_masks import read_mask
from vidground_hf.task_preference.task_rows import TaskRow

Floats = NDArray[np.float64]

_MAX_CANDIDATES = 2000  # our guess: the best of so many is the best of all but for the last digits


class Constants(NamedTuple):
    """One answer for all rows of a task.

    Attributes:
        span (`float64[2]`, *optional*): start and end in [0, 1] of the clip; `None` without moment rows.
        box (`float64[4]`, *optional*): sides in [0, 1] of the frame; `None` without box rows.
    """

    span: Floats | None
    box: Floats | None


def find_constants(rows: Sequence[TaskRow]) -> Constants:
    """The labels that would be right most often, were they the answer to every row.

    Args:
        rows (`Sequence[TaskRow]`): to choose from, those of training; moment rows say how long their clip is.

    Returns:
        `Constants`: with an IoU of at least 0.5 in the most rows; among several, of the largest mean IoU.

    Raises:
        `BadRowError`: for a moment row that does not say how long its clip is.

    Example:
        >>> shown = {"task": "moment", "question": "a dog", "video": "v.mp4", "duration_seconds": 10.0}
        >>> rows = [TaskRow(id=str(end), spans=((0.0, end),), **shown) for end in (4.0, 5.0, 10.0)]
        >>> find_constants(rows).span.tolist()
        [0.0, 0.5]
    """
    spans = [_normalize_spans(row) for row in rows if row.task == "moment"]
    boxes = [_normalize_box(row)[None] for row in rows if row.task == "box"]
    return Constants(_choose(spans, temporal_iou), _choose(boxes, box_iou))


def answer_constantly(rows: Sequence[TaskRow], constants: Constants) -> list[TaskPreferenceAnswer]:
    """Gives every moment and box row the same answer.

    Args:
        rows (`Sequence[TaskRow]`): to be scored; moment rows say how long their clip is.
        constants (`Constants`): of other rows.

    Returns:
        `list[TaskPreferenceAnswer]`: one for each row; without labels for rows of other tasks.

    Raises:
        `BadRowError`: for a moment row that does not say how long its clip is.
    """
    answers = []
    for row in rows:
        answer = TaskPreferenceAnswer(text="")
        if row.task == "moment" and constants.span is not None:
            span = torch.from_numpy(constants.span * _read_duration(row)).float()[None]
            answer = TaskPreferenceAnswer(text="", tasks=("moment",), spans=span, scores=torch.ones(1))
        elif row.task == "box" and constants.box is not None:
            box = torch.from_numpy(constants.box * _read_size(row)).float()[None]
            answer = TaskPreferenceAnswer(text="", tasks=("box",), boxes=box)
        answers.append(answer)
    return answers


def answer_all_objects(rows: Sequence[TaskRow]) -> list[TaskPreferenceAnswer]:
    """Gives every mask row all that is annotated in its clip by any row.

    A model that finds objects but does not read the request can do no better.

    Args:
        rows (`Sequence[TaskRow]`): all rows of the clips; those of one clip are annotated at the same times.

    Returns:
        `list[TaskPreferenceAnswer]`: one for each row; without labels for rows of other tasks.
    """
    drawn: dict[str, dict[float, NDArray[np.bool_]]] = {}
    for row in rows:
        for second, text in zip(row.mask_seconds, row.masks, strict=True):
            mask = read_mask(text, row.width_px, row.height_px)
            if mask is not None:
                frames = drawn.setdefault(_name_clip(row), {})
                frames[second] = frames[second] | mask if second in frames else mask
    answers = []
    for row in rows:
        answer = TaskPreferenceAnswer(text="")
        if row.task == "mask":
            frames = drawn[_name_clip(row)]
            nothing = np.zeros_like(next(iter(frames.values())))
            masks = np.stack([frames.get(second, nothing) for second in row.mask_seconds])
            answer = TaskPreferenceAnswer(
                text="",
                tasks=("mask",),
                masks=torch.from_numpy(masks)[None],
                mask_seconds=torch.tensor(row.mask_seconds, dtype=torch.float32),
            )
        answers.append(answer)
    return answers


def _choose(labels: Sequence[Floats], overlap: Callable[[Floats, Floats], Floats]) -> Floats | None:
    """Of labels `[K, D]` of each row, the one that overlaps most rows."""
    if not labels:
        return None
    candidates = np.unique(np.concatenate(labels), axis=0)
    places = np.linspace(0, len(candidates) - 1, min(len(candidates), _MAX_CANDIDATES)).astype(int)
    candidates = candidates[places]
    # By candidate and row, the best of the row's labels.
    found = np.stack([overlap(candidates[:, None], row[None]).max(axis=1) for row in labels], axis=1)
    order = np.lexsort((found.mean(axis=1), (found >= 0.5).mean(axis=1)))
    chosen: Floats = candidates[order[-1]]
    return chosen


def _normalize_spans(row: TaskRow) -> Floats:
    return np.clip(np.array(row.spans) / _read_duration(row), 0, 1)


def _normalize_box(row: TaskRow) -> Floats:
    return np.clip(np.array(row.box) / _read_size(row), 0, 1)


def _read_duration(row: TaskRow) -> float:
    if row.duration_seconds is None:
        row.reject("how long its clip is must be known for a constant answer; give duration_seconds")
    return row.duration_seconds


def _read_size(row: TaskRow) -> Floats:
    return np.array([row.width_px, row.height_px] * 2, dtype=np.float64)


def _name_clip(row: TaskRow) -> str:
    return f"{name_media(row)} {row.start_seconds} {row.end_seconds}"
