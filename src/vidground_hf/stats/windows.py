"""Windows of time: how much two overlap, and rows of them as one array.

Nothing is scored here; see `temporal` and `grounded_qa`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Windows = Sequence[Sequence[float]]


def temporal_overlap(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Measures the time that two windows share; 0 for windows that are apart, inverted or nan.

    Args:
        first (`float64[..., 2]`): start and end in seconds.
        second (`float64[..., 2]`): the same, of a shape that broadcasts with `first`.

    Returns:
        `float64[...]`: seconds.

    Example:
        >>> temporal_overlap([0, 10], [[5, 20], [10, 12]]).tolist()
        [5.0, 0.0]
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    shared = np.minimum(first[..., 1], second[..., 1]) - np.maximum(first[..., 0], second[..., 0])
    return np.where(shared > 0, shared, 0.0)


def temporal_iou(first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Divides what two windows share by what they cover together; 0 where they share nothing.

    Args:
        first (`float64[..., 2]`): start and end in seconds.
        second (`float64[..., 2]`): the same, of a shape that broadcasts with `first`.

    Returns:
        `float64[...]`: in [0, 1].

    Example:
        >>> temporal_iou([0, 10], [[5, 10], [10, 12]]).tolist()
        [0.5, 0.0]
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    shared = temporal_overlap(first, second)
    hull = np.maximum(first[..., 1], second[..., 1]) - np.minimum(first[..., 0], second[..., 0])
    return np.divide(shared, hull, out=np.zeros_like(shared), where=shared > 0)


def pad_windows(rows: Sequence[Windows], name: str) -> NDArray[np.float64]:
    """Lays out rows of windows as one array.

    Args:
        rows (`Sequence` of `Sequence` of `[start, end]` or `[start, end, score]`): in seconds.
        name (`str`): what the rows are, for the error.

    Returns:
        `float64[N, K, 3]`: start, end and score, nan where a row has fewer than K >= 1 windows or no score,
        and for times that are not finite.

    Raises:
        ValueError: when a window is not two or three numbers; names the row.

    Example:
        >>> pad_windows([[[0, 2]], []], "predictions").tolist()
        [[[0.0, 2.0, nan]], [[nan, nan, nan]]]
    """
    padded = np.full((len(rows), max([1, *map(len, rows)]), 3), np.nan)
    for index, row in enumerate(rows):
        for position, window in enumerate(row):
            if len(window) not in (2, 3):
                raise ValueError(
                    f"Got the window {list(window)} in row {index} of {name}; allowed are [start, end] and "
                    "[start, end, score] in seconds. Give a list of windows per row, also where there is only one."
                )
            padded[index, position, : len(window)] = window
    padded[..., :2][~np.isfinite(padded[..., :2])] = np.nan
    return padded
