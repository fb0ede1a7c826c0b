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
_ABSENT = "none"
_TIMED_BOX = re.compile(rf"({_NUMBER})\s*s:\s*(?:{_ABSENT}\b|{_BOX.pattern})")

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
    """Writes the box around each mask with its time, or `none` in a frame without the object.

    Args:
        masks (`bool[T, H, W]`): of one object.
        seconds (`Sequence[float]`): T times.

    Example:
        >>> write_masks(np.array([[[True, False]], [[False, False]]]), [0.0, 0.5])
        '0.0 s: [0, 0, 500, 1000]; 0.5 s: none'
    """
    height, width = masks.shape[1:]
    parts = []
    for mask, second in zip(masks, seconds, strict=True):
        box = find_box(mask)
        sides = None if box is None else (np.array(box) / [width, height, width, height]).tolist()
        parts.append(f"{second:.1f} s: {_ABSENT if sides is None else write_box(sides)}")
    return "; ".join(parts)


def read_masks_text(text: str) -> list[tuple[float, Sides | None]]:
    """Reads boxes with their times in seconds, sides in [0, 1]; `None` for a frame without the object.

    Example:
        >>> read_masks_text("0.0 s: [0, 0, 500, 1000]; 0.5 s: none")
        [(0.0, (0.0, 0.0, 0.5, 1.0)), (0.5, None)]
    """
    found = _TIMED_BOX.findall(text)
    return [(float(second), _scale_sides(sides) if sides[0] else None) for second, *sides in found]


def read_written_labels(row: TaskRow, answer: TaskPreferenceAnswer) -> TaskPreferenceAnswer:
    """Reads from the words of an answer what the heads would have given.

    What was written decides what it is, not what was asked: timed boxes are masks, a box is a box, spans are a moment.
    It is a label where it is the whole answer, or, in temporal reasoning, all of it before the words.

    Args:
        row (`TaskRow`): tells the size of its frames; where it does not, boxes and masks are left out.
        answer (`TaskPreferenceAnswer`): of a model that writes its labels out.

    Returns:
        `TaskPreferenceAnswer`: with the labels that were found, and of the text what is left without them; to dialogue
            the text stays whole.
    """
    text, words = answer.text, ""
    if row.task == "moment" and row.answer is not None:
        text, _, words = text.partition(". ")
    elif row.task == "dialogue":
        words = text
    parts = [part.strip() for part in text.strip(" .;\n").split(";")]
    size = None if row.width_px is None or row.height_px is None else (row.width_px, row.height_px)
    if all(map(_TIMED_BOX.fullmatch, parts)):
        answer = replace(answer, tasks=("mask",), text=words)
        return answer if size is None else _fill_masks(answer, read_masks_text(text), size)
    if _BOX.fullmatch(parts[0]) and len(parts) == 1:
        found = None if size is None else torch.tensor([read_box(text)]) * torch.tensor([*size, *size])
        return replace(answer, tasks=("box",), text=words, boxes=found)
    if all(map(_SPAN.fullmatch, parts)) and (spans := read_spans(text)):
        return replace(answer, tasks=("moment",), text=words, spans=torch.tensor(spans), scores=torch.ones(len(spans)))
    return answer


def _fill_masks(
    answer: TaskPreferenceAnswer, boxes: Sequence[tuple[float, Sides | None]], size: tuple[int, int]
) -> TaskPreferenceAnswer:
    width, height = size
    masks = torch.zeros(1, len(boxes), height, width, dtype=torch.bool)
    for place, (_, box) in enumerate(boxes):
        if box is not None:
            left, top, right, bottom = box
            rows, columns = slice(*_round_sides(top, bottom, height)), slice(*_round_sides(left, right, width))
            masks[0, place, rows, columns] = True
    return replace(answer, masks=masks, mask_seconds=torch.tensor([second for second, _ in boxes]))


def _round_sides(near: float, far: float, length: int) -> tuple[int, int]:
    return max(round(near * length), 0), max(round(far * length), 0)


def _scale_sides(sides: Sequence[str]) -> Sides:
    left, top, right, bottom = (float(side) / _SCALE for side in sides)
    return left, top, right, bottom
