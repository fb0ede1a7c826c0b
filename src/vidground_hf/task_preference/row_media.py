"""What a row shows, decoded: frames with their times, or an image.

Which frames are taken is the budget's; nothing is put in the place of what cannot be read.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidground_hf.media import FrameBudget
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.video import VideoReadError, read_frames


@dataclass(frozen=True, slots=True)
class ShownMedia:
    """The media of one row.

    Attributes:
        data (`uint8[T, H, W, 3]`): RGB; T = 1 for an image.
        frame_seconds (`float64[T]`): when each frame is shown, from the start of the shown part; 0 for an image.
        duration_seconds (`float`): of the shown part; 0 for an image.
        is_video (`bool`): whether the model is to take it as a video.
        width_px (`int`), height_px (`int`): of the frames that the row's labels were drawn on; of `data` where the
            row does not say.
    """

    data: NDArray[np.uint8]
    frame_seconds: NDArray[np.float64]
    duration_seconds: float
    is_video: bool
    width_px: int
    height_px: int


def read_row_media(row: TaskRow, budget: FrameBudget) -> ShownMedia | None:
    """Decodes what a row shows.

    Args:
        row (`TaskRow`): with a video, an image or nothing.
        budget (`FrameBudget`): which frames of a video, and how large.

    Returns:
        `ShownMedia`, or `None` for a row of text.

    Raises:
        `BadRowError`: for media that cannot be read, and for frames of another shape than those that the row's labels
            were drawn on.
    """
    if row.video is None and row.image is None:
        return None
    if row.image is not None:
        data, seconds, duration = _read_image(row)[None], np.zeros(1), 0.0
    else:
        data, seconds, duration = _read_video(row, budget)
    height, width = data.shape[1:3]
    if row.image is not None or not isinstance(budget.size, tuple):  # a height and width are given to any shape
        _check_shape(row, width, height)
    return ShownMedia(
        data=data,
        frame_seconds=seconds,
        duration_seconds=duration,
        is_video=row.image is None,
        width_px=width if row.width_px is None else row.width_px,
        height_px=height if row.height_px is None else row.height_px,
    )


def find_image_file(image: Any) -> Any:
    """What PIL opens of an image that is a path, or a cell of a `datasets.Image` column that was not decoded."""
    if not isinstance(image, Mapping):
        return image
    return image["path"] if image["bytes"] is None else io.BytesIO(image["bytes"])


def _read_image(row: TaskRow) -> NDArray[np.uint8]:
    if isinstance(row.image, Image.Image):
        return np.array(row.image.convert("RGB"))
    try:
        with Image.open(find_image_file(row.image)) as image:
            return np.array(image.convert("RGB"))
    except OSError as error:
        row.reject(f"its image cannot be read: {error}")


def _check_shape(row: TaskRow, width: int, height: int) -> None:
    """Rejects labels that were drawn on frames of another shape: turned, cut, or of another file."""
    if row.width_px is None or row.height_px is None:
        return
    # A side of a scaled frame is off by less than a pixel.
    if abs(width * row.height_px - height * row.width_px) > row.width_px + row.height_px:
        row.reject(
            f"its labels are of frames of {row.width_px} x {row.height_px} px, and what is shown is {width} x "
            f"{height}, of another shape"
        )


def _read_video(row: TaskRow, budget: FrameBudget) -> tuple[NDArray[np.uint8], NDArray[np.float64], float]:
    try:
        frames = read_frames(
            row.video,
            num_frames=budget.num_frames,
            fps=budget.fps,
            max_frames=budget.max_frames,
            size=budget.size,
            jitter_seed=budget.jitter_seed,
            backend=budget.backend,
            start_seconds=row.start_seconds,
            end_seconds=row.end_seconds,
            frame_rate=row.frame_rate,
        )
    except VideoReadError as error:
        row.reject(f"its video cannot be read: {error}")
    start = row.start_seconds or 0.0
    ends = [end for end in (row.end_seconds, frames.video_seconds) if end is not None]
    last = float(frames.pts_seconds[-1] + frames.duration_seconds[-1])
    return frames.data, np.maximum(frames.pts_seconds - start, 0.0), min(ends, default=last) - start
