"""Masks of a row as text: COCO run lengths, PNG files, or a box that stands for what is in it.

Which frames are annotated is the row's; how masks are compared is `vidground_hf.stats.segmentation`'s.
"""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from vidground_hf.stats.masks import decode_mask


def read_mask(text: str | None, width_px: int | None, height_px: int | None) -> NDArray[np.bool_] | None:
    """Reads the mask of one frame.

    Args:
        text (`str`, *optional*): what `vidground_hf.stats.masks.decode_mask` takes (COCO run lengths as JSON, the path
            of a PNG file with or without `#<id>`), or `[left, top, right, bottom]` as JSON in pixels, for a set of
            tracked boxes: all that is in the box; `None` or empty for a frame without the object.
        width_px (`int`, *optional*), height_px (`int`, *optional*): of the frame; a box needs them.

    Returns:
        `bool[H, W]`, or `None` for a frame without the object.

    Raises:
        `ValueError`: for what is no mask, and for a box in a frame of unknown size.
        `OSError`: for a file that cannot be opened.

    Example:
        >>> read_mask("[1, 0, 3, 1]", 3, 2).astype(int).tolist()
        [[0, 1, 1], [0, 0, 0]]
    """
    if not text or not text.lstrip().startswith("["):
        return decode_mask(text)
    if width_px is None or height_px is None:
        raise ValueError(f"got the box {text} in a frame of unknown size; pass width_px and height_px")
    left, top, right, bottom = (round(side) for side in json.loads(text))
    mask = np.zeros((height_px, width_px), dtype=bool)
    # A box thinner than a pixel still marks one.
    mask[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)] = True
    return mask


def measure_mask(text: str, width_px: int | None, height_px: int | None) -> tuple[tuple[int, int], int]:
    """The height and width of a mask, and how many pixels it marks."""
    mask = read_mask(text, width_px, height_px)
    if mask is None:
        raise ValueError("got an empty text")
    return (mask.shape[0], mask.shape[1]), int(np.count_nonzero(mask))


def find_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """The box around a mask.

    Args:
        mask (`bool[H, W]`): of one frame.

    Returns:
        `tuple[int, int, int, int]`: left, top, right, bottom in pixels, the far sides exclusive; `None` for an empty
        mask.

    Example:
        >>> find_box(np.array([[False, True, True], [False, True, False]]))
        (1, 0, 3, 2)
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def encode_mask(mask: NDArray[np.bool_]) -> str:
    """Writes a mask as COCO run lengths, uncompressed, as the segmentation metric reads them.

    Args:
        mask (`bool[H, W]`): of one frame.

    Returns:
        `str`: JSON; empty for an empty mask.

    Example:
        >>> encode_mask(np.array([[False, True], [True, True]]))
        '{"size": [2, 2], "counts": [1, 3]}'
    """
    if not mask.any():
        return ""
    flat = np.concatenate([[False], mask.ravel(order="F")])  # runs begin with one of the background, if of length 0
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()
    return json.dumps({"size": list(mask.shape), "counts": counts})
