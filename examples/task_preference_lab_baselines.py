"""What the task preference lab's scores are held against: answers of those that do not look, or find everything.

No model is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from task_preference_lab_world import NUM_FRAMES, NUM_SHOWN, SHOWN, SIDE_PX, draw_masks
from torchvision.ops import box_iou

from vidground_hf.stats.temporal import temporal_iou
from vidground_hf.task_preference.generation import TaskPreferenceAnswer
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.toy_world import PLACES, Clip

Rows = Sequence[TaskRow]
THRESHOLD = 0.5


def list_baselines(train: Rows, rows: Rows, clips: Mapping[str, Clip]) -> dict[str, list[TaskPreferenceAnswer | None]]:
    """Answers of each baseline; `None` where it has nothing to say.

    Args:
        train (`Sequence[TaskRow]`): what constants are chosen on.
        rows (`Sequence[TaskRow]`): to be answered.
        clips (`Mapping[str, Clip]`): of these, by id.

    Returns:
        `dict[str, list[TaskPreferenceAnswer | None]]`: `constant`, `words` and `all objects`, one answer for each row.
    """
    return {
        "constant": _answer_alike(train, rows, lambda row: ""),
        "words": _answer_alike(train, rows, read_cue),
        "all objects": [show_all(row, clips[find_clip(row)]) for row in rows],
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


def _answer_alike(train: Rows, rows: Rows, read: Callable[[TaskRow], str]) -> list[TaskPreferenceAnswer | None]:
    """The best constant for all rows of a task whose questions read the same."""
    groups: dict[tuple[str, str], list[TaskRow]] = {}
    for row in train:
        groups.setdefault((row.task, read(row)), []).append(row)
    made: dict[tuple[str, str], TaskPreferenceAnswer] = {}
    for (task, cue), own in groups.items():
        if task == "dialogue":
            made[task, cue] = TaskPreferenceAnswer(text=Counter(str(row.answer) for row in own).most_common(1)[0][0])
        elif task == "moment":
            made[task, cue] = answer_span(choose_span(np.array([row.spans[0] for row in own]), own[0]))
        elif task == "box":
            box = choose_box(np.array([row.box for row in own]))
            made[task, cue] = answer_box(box)
            made["mask", cue] = answer_masks(_fill(box)[None].repeat(NUM_SHOWN, 0), own[0])
    return [made.get((row.task, read(row))) for row in rows]


def choose_span(spans: NDArray[np.float64], row: TaskRow) -> NDArray[np.float64]:
    """The span, on frames, with the best R@0.5 of these; of several the one with the best mean IoU.

    Args:
        spans (`float64[N, 2]`): in seconds.
        row (`TaskRow`): any, for the length of the clip.
    """
    step = (row.duration_seconds or 1.0) / NUM_FRAMES
    starts, ends = np.triu_indices(NUM_FRAMES + 1, 1)
    tried = step * np.stack([starts, ends], axis=1)
    return tried[_find_best(temporal_iou(tried[:, None], spans[None]))]


def choose_box(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The box of these with the best Acc@0.5; of several the one with the best mean IoU.

    Args:
        boxes (`float64[N, 4]`): in pixels.
    """
    tried = np.unique(boxes, axis=0).astype(float)
    return tried[_find_best(box_iou(torch.tensor(tried), torch.tensor(boxes, dtype=torch.float64)).numpy())]


def _find_best(iou: NDArray[np.float64]) -> int:
    return int(((iou >= THRESHOLD).mean(1) + 1e-3 * iou.mean(1)).argmax())


def _fill(box: NDArray[np.float64]) -> NDArray[np.bool_]:
    left, top, right, bottom = box.astype(int)
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    mask[top:bottom, left:right] = True
    return mask


def show_all(row: TaskRow, clip: Clip) -> TaskPreferenceAnswer | None:
    """All there is: the whole clip, the box around all objects, all their pixels; nothing in dialogue."""
    if row.task == "moment":
        return answer_span(np.array([0.0, row.duration_seconds]))
    every = np.any([draw_masks(thing, range(clip.num_frames)) for thing in clip.objects], axis=0)
    if row.task == "mask":
        return answer_masks(every, row)
    if row.task == "box":
        down, across = np.nonzero(every.any(0))
        return answer_box(np.array([across.min(), down.min(), across.max() + 1, down.max() + 1]))
    return None


def answer_span(span: NDArray[np.float64]) -> TaskPreferenceAnswer:
    spans = torch.tensor(span[None], dtype=torch.float32)
    return TaskPreferenceAnswer(text="", tasks=("moment",), spans=spans, scores=torch.ones(1))


def answer_box(box: NDArray[np.float64]) -> TaskPreferenceAnswer:
    return TaskPreferenceAnswer(text="", tasks=("box",), boxes=torch.tensor(box[None], dtype=torch.float32))


def answer_masks(masks: NDArray[np.bool_], row: TaskRow) -> TaskPreferenceAnswer:
    seconds = torch.tensor(list(SHOWN)) * (row.duration_seconds or 1.0) / NUM_FRAMES
    return TaskPreferenceAnswer(text="", tasks=("mask",), masks=torch.tensor(masks)[None], mask_seconds=seconds)
