"""Which frames of a video are taken, by their time stamps alone.

Nothing is opened or decoded here; that is `video.py`'s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ROUNDING_SECONDS = 1e-6
"""A frame that begins so little after a moment begins at it; the finest time bases in use have units of 11 us."""


def sample_frames(
    pts_seconds: Floats,
    end_of_video_seconds: float,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    jitter_seed: int | None = None,
) -> Ints:
    """Frames shown in the middles of equal stretches of the video, or at a drawn moment of each.

    The frame shown at a moment is the last one that began before or at it, so uneven time stamps need no care. No
    frame is taken twice: a video with fewer frames than stretches gives fewer.

    Args:
        pts_seconds (`float64[M]`): when each frame is first shown, in seconds, growing, M at least 1.
        end_of_video_seconds (`float`): when the last frame ends, in seconds.
        num_frames (`int`, *optional*): stretches, at least 1.
        fps (`float`, *optional*): stretches a second instead; their number is rounded and at least 1.
        max_frames (`int`, *optional*): the most stretches that `fps` may make.
        start_seconds (`float`, *optional*), end_seconds (`float`, *optional*): the half-open part that is divided; the
            whole video when left out.
        jitter_seed (`int`, *optional*): draws a moment of each stretch, evenly, from this seed.

    Returns:
        `int64[N]`: places among the frames, growing; N is at most the number of stretches.

    Raises:
        `ValueError`: when no part of the video is asked for.

    Example:
        >>> sample_frames(np.arange(10) / 10, 1.0, num_frames=4).tolist()
        [1, 3, 6, 8]
        >>> sample_frames(np.arange(10) / 10, 1.0, fps=2, start_seconds=0.5).tolist()
        [7]
    """
    start = max(0.0 if start_seconds is None else start_seconds, float(pts_seconds[0]))
    end = min(end_of_video_seconds if end_seconds is None else end_seconds, end_of_video_seconds)
    if not start < end:
        raise ValueError(
            f"no frame between start_seconds = {start_seconds} and end_seconds = {end_seconds}; the video has "
            f"{end_of_video_seconds:.3f} s, pass a part of it"
        )
    if num_frames is None:
        if fps is None:
            raise ValueError("neither num_frames nor fps is given; pass one of them")
        num_frames = max(1, int((end - start) * fps + 0.5))
        num_frames = min(num_frames, max_frames or num_frames)
    places = np.full(num_frames, 0.5)
    if jitter_seed is not None:
        places = np.random.default_rng(jitter_seed).random(num_frames)
    moments = start + (np.arange(num_frames) + places) * (end - start) / num_frames
    shown = np.searchsorted(pts_seconds, moments + ROUNDING_SECONDS, side="right") - 1
    last = np.searchsorted(pts_seconds, end, side="left") - 1
    return np.unique(np.minimum(shown, last)).astype(np.int64)
