"""Features of a clip that were computed beforehand by any extractor, from the column that a row names.

The model's own vision features are taken in `vision.py`.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vidground_hf.task_preference.features import VisionFeatures, stack_features
from vidground_hf.task_preference.row_media import ShownMedia
from vidground_hf.task_preference.task_rows import SPAN_SLACK_SECONDS, TaskRow


def read_features(rows: Sequence[TaskRow], media: Sequence[ShownMedia | None]) -> VisionFeatures | None:
    """Reads the features of a batch.

    Args:
        rows (`Sequence[TaskRow]`): N rows; some may be without features.
        media (`Sequence[ShownMedia | None]`): N, what each shows; it tells how long the clip is.

    Returns:
        `VisionFeatures` of N rows, empty for those without; `None` where no row has any.

    Raises:
        `BadRowError`: for features that cannot be read, are not `[T, D]`, or are of a row that shows nothing; and for
            times that do not grow, or are not inside the clip but for half a second (`SPAN_SLACK_SECONDS`).
        `ValueError`: for rows of different D.
    """
    if all(row.features is None for row in rows):
        return None
    grids = [None if row.features is None else _read_grid(row) for row in rows]
    width = next(grid.shape[-1] for grid in grids if grid is not None)
    filled, times, durations = [], [], []
    for row, grid, shown in zip(rows, grids, media, strict=True):
        if grid is not None and shown is None:
            row.reject("it has features and shows nothing")
        durations.append(0.0 if shown is None else shown.duration_seconds)
        filled.append(torch.zeros(0, 1, 1, width) if grid is None else grid)
        times.append(_find_times(row, len(filled[-1]), durations[-1]))
    return stack_features(filled, times, durations)


def _read_grid(row: TaskRow) -> Tensor:
    """One vector for each clip of the video, `float32[T, 1, 1, D]`."""
    values = row.features
    try:
        if isinstance(values, (str, os.PathLike)):
            values = np.load(values, allow_pickle=False)
        values = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError, OSError) as error:
        row.reject(f"its features cannot be read: {error}")
    if values.ndim != 2 or not len(values) or not np.isfinite(values).all():
        row.reject(f"its features are of shape {values.shape}; allowed is [T, D], one row or more, all finite")
    return torch.from_numpy(values)[:, None, None]


def _find_times(row: TaskRow, count: int, duration_seconds: float) -> Tensor:
    """The middle of each clip; of equal parts where the row does not say."""
    if not row.feature_seconds:
        return (torch.arange(count) + 0.5) * duration_seconds / max(count, 1)
    times = row.feature_seconds
    if len(times) != count:
        row.reject(f"it has {count} features and {len(times)} times")
    if not all(sooner < later for sooner, later in itertools.pairwise(times)):
        row.reject("the times of its features do not grow")
    if not (times[0] >= 0 and times[-1] <= duration_seconds + SPAN_SLACK_SECONDS):
        row.reject(f"features from {times[0]} to {times[-1]} s are not inside the clip of {duration_seconds} s")
    return torch.tensor(times, dtype=torch.float32)
