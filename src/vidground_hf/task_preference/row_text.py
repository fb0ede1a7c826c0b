"""Labels written out in words and read back: what a model says that has no heads.

This is the control that the paper compares with; how the words are graded is `evaluation.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vidground_hf.task_preference.generation import TaskPreferenceAnswer
from vidground_hf.task_preference.row_masks import find_box
from vidground_hf.task_preference.task_rows import TaskRow

# Thousandths of width and height: our choice, as several models of the field write boxes.
_SCALE = 1000
_NUMBER = r"-?\d+(?:\.\d+)?"
_SPAN = re.compile(rf"({_NUMBER})\s*(?:seconds|s)?\s*(?:to|-)\s*({_NUMBER})\s*(?:seconds|s)\b")
_BOX = re.compile(rf"\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]")
_TIMED_BOX = re.compile(rf"({_NUMBER})\s*s:\s*{_BOX.pattern}")
_NOT_SEEN = "not to be seen"

Sides = tuple[float, float, float, float]


def write_spans(spans: Sequence[Sequence[float]], duration_seconds: float) -> str:
    """Writes spans in seconds, to tenths.

    Args:
        spans (`Sequence[Sequence[float]]`): start and end in [0, 1] of the clip.
        duration_seconds (`float`): of the clip.

    Example:
        >>> write_spans([[0.1, 0.25]], 100.0)
        '10.0 to 25.0 seconds'
    """
    return "; ".join(f"{start * duration_seconds:.1f} to {end * duration_seconds:.1f} seconds" for start, end in spans)


def read_spans(text: str) -> list[tuple[float, float]]:
    """Reads spans in seconds; a reversed one and what is no span are left out.

    Example:
        >>> read_spans("10.0 to 25.0 seconds; 3 to 2 seconds")
        [(10.0, 25.0)]
    """
    found = [(float(start), float(end)) for start, end in _SPAN.findall(text)]
    return [(start, end) for start, end in found if end > start]


def write_box(box: Sequence[float]) -> str:
    """Writes a box of sides in [0, 1], in thousandths.

    Example:
        >>> write_box([0.0, 0.25, 0.5, 1.0])
        '[0, 250, 500, 1000]'
    """
    return str([round(_SCALE * side) for side in box])


def read_box(text: str) -> Sides | None:
    """Reads the first box, as sides in [0, 1]; `None` where there is none.

    Example:
        >>> read_box("[0, 250, 500, 1000]")
        (0.0, 0.25, 0.5, 1.0)
    """
    match = _BOX.search(text)
    return None if match is None else _scale_sides(match.groups())


def write_masks(masks: NDArray[np.bool_], seconds: Sequence[float]) -> str:
    """Writes the box around each mask with its time; frames without the object are left out.

    Args:
        masks (`bool[T, H, W]`): of one object.
        seconds (`Sequence[float]`): T times.

    Example:
        >>> write_masks(np.array([[[True, False]], [[False, False]]]), [0.0, 0.5])
        '0.0 s: [0, 0, 500, 1000]'
    """
    height, width = masks.shape[1:]
    parts = []
    for mask, second in zip(masks, seconds, strict=True):
        box = find_box(mask)
        if box is not None:
            parts.append(f"{second:.1f} s: {write_box((np.array(box) / [width, height, width, height]).tolist())}")
    return "; ".join(parts) or _NOT_SEEN


def read_masks_text(text: str) -> list[tuple[float, Sides]]:
    """Reads boxes with their times in seconds, sides in [0, 1].

    Example:
        >>> read_masks_text("0.0 s: [0, 0, 500, 1000]; not to be seen")
        [(0.0, (0.0, 0.0, 0.5, 1.0))]
    """
    return [(float(second), _scale_sides(sides)) for second, *sides in _TIMED_BOX.findall(text)]


def read_written_labels(row: TaskRow, answer: TaskPreferenceAnswer) -> TaskPreferenceAnswer:
    """Reads from the words of an answer what the heads would have given.

    What was written decides what it is, not what was asked: timed boxes are masks, a box is a box, spans are a moment.

    Args:
        row (`TaskRow`): tells the size of its frames; where it does not, boxes and masks are left out.
        answer (`TaskPreferenceAnswer`): of a model that writes its labels out.

    Returns:
        `TaskPreferenceAnswer`: with the labels that were found, and of the text what is left without them.
    """
    text = answer.text
    boxes, box, spans = read_masks_text(text), read_box(text), read_spans(text)
    size = None if row.width_px is None or row.height_px is None else (row.width_px, row.height_px)
    if boxes or text.strip().startswith(_NOT_SEEN):
        answer = replace(answer, tasks=("mask",), text=_TIMED_BOX.sub("", text))
        return answer if size is None else _fill_masks(answer, boxes, size)
    if box is not None:
        found = None if size is None else torch.tensor([box], dtype=torch.float32) * torch.tensor([*size, *size])
        return replace(answer, tasks=("box",), text=_BOX.sub("", text), boxes=found)
    if spans:
        found, scores = torch.tensor(spans, dtype=torch.float32), torch.ones(len(spans))
        return replace(answer, tasks=("moment",), text=_SPAN.sub("", text).strip(" .;"), spans=found, scores=scores)
    return answer


def _fill_masks(
    answer: TaskPreferenceAnswer, boxes: Sequence[tuple[float, Sides]], size: tuple[int, int]
) -> TaskPreferenceAnswer:
    width, height = size
    masks = torch.zeros(1, max(len(boxes), 1), height, width, dtype=torch.bool)
    for place, (_, (left, top, right, bottom)) in enumerate(boxes):
        rows, columns = slice(*_round_sides(top, bottom, height)), slice(*_round_sides(left, right, width))
        masks[0, place, rows, columns] = True
    seconds = torch.tensor([second for second, _ in boxes] or [0.0])
    return replace(answer, masks=masks, mask_seconds=seconds)


def _round_sides(near: float, far: float, length: int) -> tuple[int, int]:
    return max(round(near * length), 0), max(round(far * length), 0)


def _scale_sides(sides: Sequence[str]) -> Sides:
    left, top, right, bottom = (float(side) / _SCALE for side in sides)
    return left, top, right, bottom
