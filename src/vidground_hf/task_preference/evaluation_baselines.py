"""Answers that need no model, to print beside every score: the best constant, and all that a clip shows at once.

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
from vidground_hf.task_preference.answers import TaskPreferenceAnswer
from vidground_hf.task_preference.evaluation_scores import name_media
from vidground_hf.task_preference.heads_targets import average_areas
from vidground_hf.task_preference.row_masks import read_mask
from vidground_hf.task_preference.task_rows import TaskRow

Floats = NDArray[np.float64]

_NUM_CELLS = 64  # of a constant mask and side; our guess
_ROUNDING = 1e-4  # of shares in float32, so that halves are halves on either side
_MAX_CANDIDATES = 2000  # our guess: the best of so many is the best of all but for the last digits


class Constants(NamedTuple):
    """One answer for all rows of a task.

    Attributes:
        span (`float64[2]`, *optional*): start and end in [0, 1] of the clip; `None` without moment rows.
        box (`float64[4]`, *optional*): sides in [0, 1] of the frame; `None` without box rows.
        mask (`bool[64, 64]`, *optional*): of the whole frame, in all frames; `None` without mask rows.
    """

    span: Floats | None
    box: Floats | None
    mask: NDArray[np.bool_] | None = None


def find_constants(rows: Sequence[TaskRow]) -> Constants:
    """The labels that would be right most often, were they the answer to every row.

    Args:
        rows (`Sequence[TaskRow]`): to choose from, those of training; moment rows say how long their clip is.

    Returns:
        `Constants`: span and box with an IoU of at least 0.5 in the most rows; among several, of the largest mean
        IoU. Of masks, the cells that are the object in at least some share of the frames that show one, the share with
        the largest mean IoU; another shape may be a little better.

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
    return Constants(_choose(spans, temporal_iou), _choose(boxes, box_iou), _choose_mask(rows))


def answer_constantly(rows: Sequence[TaskRow], constants: Constants) -> list[TaskPreferenceAnswer]:
    """Gives every row of a task the same answer.

    Args:
        rows (`Sequence[TaskRow]`): to be scored; moment rows say how long their clip is.
        constants (`Constants`): of other rows.

    Returns:
        `list[TaskPreferenceAnswer]`: one for each row; without labels for dialogue, and for tasks without a constant.

    Raises:
        `BadRowError`: for a moment row that does not say how long its clip is, and a mask row that does not say how
            large its frames are (`read_rows` fills that in).
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
        elif row.task == "mask" and constants.mask is not None:
            answer = _answer_masks(row, [_size_mask(constants.mask, row)] * len(row.mask_seconds))
        answers.append(answer)
    return answers


def answer_all_objects(rows: Sequence[TaskRow]) -> list[TaskPreferenceAnswer]:
    """Gives every row all that is annotated for its task in its clip by any row.

    A model that finds objects and moments but does not read the request can do no better.

    Args:
        rows (`Sequence[TaskRow]`): all rows of the clips; mask rows of one clip are annotated at the same times.

    Returns:
        `list[TaskPreferenceAnswer]`: one for each row: of a mask row all masks together, of a box row the box around
        all boxes, of a moment row the span from the first start to the last end; without labels for dialogue.
    """
    clips: dict[tuple[str, str], list[TaskRow]] = {}
    for row in rows:
        clips.setdefault((row.task, _name_clip(row)), []).append(row)
    drawn: dict[str, dict[float, NDArray[np.bool_]]] = {
        clip: _join_masks(own) for (task, clip), own in clips.items() if task == "mask"
    }
    answers = []
    for row in rows:
        answer = TaskPreferenceAnswer(text="")
        others = clips[row.task, _name_clip(row)]
        if row.task == "moment":
            edges = np.array([span for other in others for span in other.spans])
            span = torch.tensor([[edges[:, 0].min(), edges[:, 1].max()]], dtype=torch.float32)
            answer = TaskPreferenceAnswer(text="", tasks=("moment",), spans=span, scores=torch.ones(1))
        elif row.task == "box":
            boxes = np.array([other.box for other in others])
            box = torch.tensor(np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])).float()[None]
            answer = TaskPreferenceAnswer(text="", tasks=("box",), boxes=box)
        elif row.task == "mask":
            frames = drawn[_name_clip(row)]
            nothing = np.zeros_like(next(iter(frames.values())))
            answer = _answer_masks(row, [frames.get(second, nothing) for second in row.mask_seconds])
        answers.append(answer)
    return answers


def _join_masks(rows: Sequence[TaskRow]) -> dict[float, NDArray[np.bool_]]:
    """All that is drawn at each time by rows of one clip."""
    frames: dict[float, NDArray[np.bool_]] = {}
    for row in rows:
        for second, text in zip(row.mask_seconds, row.masks, strict=True):
            mask = read_mask(text, row.width_px, row.height_px)
            if mask is not None:
                frames[second] = frames[second] | mask if second in frames else mask
    return frames


def _answer_masks(row: TaskRow, masks: Sequence[NDArray[np.bool_]]) -> TaskPreferenceAnswer:
    return TaskPreferenceAnswer(
        text="",
        tasks=("mask",),
        masks=torch.from_numpy(np.stack(masks))[None],
        mask_seconds=torch.tensor(row.mask_seconds, dtype=torch.float32),
    )


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


def _choose_mask(rows: Sequence[TaskRow]) -> NDArray[np.bool_] | None:
    """The cells that are the object often enough, of the share that overlaps the frames most."""
    texts = [(text, row) for row in rows for text in row.masks if text]
    places = np.linspace(0, len(texts) - 1, min(len(texts), _MAX_CANDIDATES)).astype(int)
    read = [read_mask(text, row.width_px, row.height_px) for text, row in (texts[place] for place in places)]
    frames = [_pool_mask(mask) for mask in read if mask is not None and mask.any()]
    if not frames:
        return None
    seen = np.stack(frames)
    shares = seen.mean(axis=0)
    candidates = [shares >= share for share in np.unique(np.floor(100 * shares[shares > 0]) / 100)]
    overlaps = [
        (np.minimum(seen, cells).sum((1, 2)) / np.maximum(seen, cells).sum((1, 2))).mean() for cells in candidates
    ]
    return candidates[int(np.argmax(overlaps))]


def _pool_mask(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """How much of each of 64 x 64 cells is marked, `float32[64, 64]`."""
    cells: NDArray[np.float32] = average_areas(torch.from_numpy(mask).float()[None], _NUM_CELLS, _NUM_CELLS)[0].numpy()
    return cells


def _size_mask(cells: NDArray[np.bool_], row: TaskRow) -> NDArray[np.bool_]:
    """A mask of cells in the pixels of a row: those of which it fills at least half."""
    if row.width_px is None or row.height_px is None:
        row.reject("how large its frames are must be known for a constant answer; give width_px and height_px")
    shares = average_areas(torch.from_numpy(cells).float()[None], row.height_px, row.width_px)[0].numpy()
    filled: NDArray[np.bool_] = shares >= 0.5 - _ROUNDING
    return filled


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
