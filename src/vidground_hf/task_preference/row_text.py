"""Labels written out in words and read back: what a model says that has no heads.

This is the control that the paper compares with; how the words are graded is `evaluation.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vidground_hf.task_preference.row_masks import find_box

# Thousandths of width and height: our choice, as several models of the field write boxes.
_SCALE = 1000
_NUMBER = r"-?\d+(?:\.\d+)?"
_SPAN = re.compile(rf"({_NUMBER})\s*(?:s|seconds)?\s*(?:to|-)\s*({_NUMBER})\s*(?:s|seconds)")
_BOX = re.compile(rf"\[\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*,\s*({_NUMBER})\s*\]")
_TIMED_BOX = re.compile(rf"({_NUMBER})\s*s:\s*{_BOX.pattern}")

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
    return "; ".join(parts) or "not to be seen"


def read_masks_text(text: str) -> list[tuple[float, Sides]]:
    """Reads boxes with their times in seconds, sides in [0, 1].

    Example:
        >>> read_masks_text("0.0 s: [0, 0, 500, 1000]; not to be seen")
        [(0.0, (0.0, 0.0, 0.5, 1.0))]
    """
    return [(float(second), _scale_sides(sides)) for second, *sides in _TIMED_BOX.findall(text)]


def _scale_sides(sides: Sequence[str]) -> Sides:
    left, top, right, bottom = (float(side) / _SCALE for side in sides)
    return left, top, right, bottom
