"""Reads the frames of one video in this process, and says what could not be read.

What callers use is in `video.py`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.frame_sampling import sample_frames
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.video_backends import FAULTS, find_backend, load_backend, report_faults
from vidground_hf.video_index import FrameTable, index_source, read_decodable
from vidground_hf.video_pictures import (
    Size,
    holds_picture,
    index_pictures,
    list_pictures,
    open_picture,
    resize_picture,
)
from vidground_hf.video_sources import VideoSource, name_source, open_source

Part = tuple[float | None, float | None]
"""Start and end in seconds."""
Arguments = tuple[Any, str | None, FrameBudget, Part, float | None, int]
"""Of `read_video`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoFrames:
    """Frames of one video.

    Attributes:
        data (`uint8[N, H, W, 3]`): RGB, upright.
        pts_seconds (`float64[N]`): when each is first shown, in seconds since the first frame of the video.
        duration_seconds (`float64[N]`): for how long.
        indices (`int64[N]`): places among the frames of the stream in the order they are shown.
        backend (`str`): who decoded them: one of `BACKENDS`, or `"pillow"`.
        source (`str`): path or URL, without login and query, or what the bytes are called.
        video_seconds (`float`, *optional*): from the first frame to the end of the last; `None` for a still image,
            which by convention is shown for one second.
        num_video_frames (`int`): frames that the stream holds.
        note (`str`, *optional*): what could not be read, and other things to know about this file.
    """

    data: NDArray[np.uint8]
    pts_seconds: NDArray[np.float64]
    duration_seconds: NDArray[np.float64]
    indices: NDArray[np.int64]
    backend: str
    source: str
    video_seconds: float | None
    num_video_frames: int
    note: str | None = None


def read_video(
    source: Any, name: str | None, budget: FrameBudget, part: Part, frame_rate: float | None, num_threads: int
) -> VideoFrames:
    """Read the frames of a budget; `video.read_frames` tells of each argument."""
    backend = find_backend(budget.backend)
    shown_name = name or name_source(source)
    if isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
        with report_faults(shown_name, "pillow"):
            paths = list_pictures(Path(source))
            table = index_pictures(len(paths), frame_rate)
            taken = sample_table(table, budget, part)
            data = np.stack([resize_picture(open_picture(paths[place]), budget.size) for place in taken])
            return _pack(data, table, taken, "pillow", shown_name)
    with report_faults(shown_name, backend), open_source(source, name) as opened:
        if holds_picture(opened.read_head(16)):
            picture = resize_picture(open_picture(opened.rewind()), budget.size)
            return _pack(picture[None], index_pictures(1, 1.0), np.zeros(1, np.int64), "pillow", opened.name)
        return _read_stream(opened, budget, part, backend, num_threads)


def _read_stream(opened: VideoSource, budget: FrameBudget, part: Part, backend: str, num_threads: int) -> VideoFrames:
    table = index_source(opened)
    taken = sample_table(table, budget, part)
    note = None
    if len(table.pts) < table.num_stored:
        note = f"{len(table.pts)} of {table.num_stored} frames are in the file"
    try:
        data = _decode(opened, table, taken, backend, budget.size, num_threads)
    except FAULTS:
        moments, cause = read_decodable(opened.rewind(), table)
        if not len(moments) or (backend != "pyav" and np.array_equal(moments, table.pts)):
            raise
        if len(moments) < table.num_stored:
            note = f"{len(moments)} of {table.num_stored} frames could be decoded ({cause or 'no others came'})"
        readable = table.keep(moments)
        if not np.array_equal(moments, table.pts[: len(moments)]):  # the decoder knows better than the packets
            table = readable
        taken = sample_table(readable, budget, part)
        data = _decode(opened, replace(table, may_jump=False), taken, backend, budget.size, num_threads=1)
    return _pack(data, table, taken, backend, opened.name, note)


def _pack(
    data: NDArray[np.uint8],
    table: FrameTable,
    taken: NDArray[np.int64],
    backend: str,
    source: str,
    note: str | None = None,
) -> VideoFrames:
    if table.pixel_aspect not in (None, 0, 1):
        note = f"{note + '; ' if note else ''}pixels are {table.pixel_aspect} as wide as high, and left so"
    return VideoFrames(
        data=data,
        pts_seconds=table.seconds[taken],
        duration_seconds=table.duration_seconds[taken],
        indices=taken,
        backend=backend,
        source=source,
        video_seconds=table.video_seconds if len(table.pts) > 1 or backend != "pillow" else None,
        num_video_frames=len(table.pts),
        note=note,
    )


def sample_table(table: FrameTable, budget: FrameBudget, part: Part) -> NDArray[np.int64]:
    """The frames of a table that a budget takes of a part of the video (`int64[N]`, growing)."""
    return sample_frames(
        table.seconds,
        table.video_seconds,
        num_frames=budget.num_frames,
        fps=budget.fps,
        max_frames=budget.max_frames,
        start_seconds=part[0],
        end_seconds=part[1],
        jitter_seed=budget.jitter_seed,
    )


def _decode(
    source: VideoSource, table: FrameTable, taken: NDArray[np.int64], backend: str, size: Size, num_threads: int
) -> NDArray[np.uint8]:
    """All taken frames in their size, one resized before the next is decoded."""
    pictures = load_backend(backend)(source, table, taken, num_threads)
    data = [resize_picture(picture, size) for picture in pictures]
    if len(data) < len(taken):
        seconds = table.seconds[taken[len(data)]]
        raise ValueError(f"frame {taken[len(data)]}, which the file says is shown at {seconds:.3f} s, does not decode")
    return np.stack(data)


def spell_request(request: FrameRequest, num_threads: int) -> Arguments:
    """The arguments of `read_video` for all frames of a request's clip."""
    source = request.source if request.content is None else request.content
    part = (request.start_seconds, request.end_seconds)
    return source, request.source, request.budget, part, request.frame_rate, num_threads
