"""Frames of videos with their time stamps, the same ones from torchcodec, decord and PyAV.

Decides which frames and says what could not be read; it never takes another frame in place of an unreadable one.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.frame_process import FrameProcess
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.video_backends import BACKENDS, report_faults
from vidground_hf.video_errors import VideoReadError
from vidground_hf.video_index import index_source
from vidground_hf.video_pictures import holds_picture, index_pictures, list_pictures
from vidground_hf.video_reading import VideoFrames, read_video, sample_table, spell_request
from vidground_hf.video_sources import name_source, open_source

__all__ = ["BACKENDS", "VideoFrames", "VideoReadError", "list_indices", "read_frames", "read_request", "show_frames"]


def read_frames(
    source: Any,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    start_seconds: float | None = None,
    end_seconds: float | None = None,
    max_frames: int | None = None,
    size: tuple[int, int] | int | None = None,
    jitter_seed: int | None = None,
    backend: str | None = None,
    frame_rate: float | None = None,
    timeout_seconds: float | None = None,
    num_threads: int = 0,
) -> VideoFrames:
    """Read frames of a video, spread evenly over it or over a part of it.

    Of several video streams it reads FFmpeg's best one, the one that players show. Times count from the first frame
    of that stream. Rotation that the file asks for is applied, pixels that are not square are left so. Where a file
    breaks off, the frames are spread over what can be decoded before that, and `note` tells how much it was.

    Args:
        source (`str`, `Path`, `bytes`, `memoryview`, `pyarrow.Buffer`, `dict`, file object or decoder): path or URL
            (`hf://`, `https://` and others of fsspec) of a video, a still image (one frame) or a folder of images;
            the bytes of one; a file opened in binary mode; a cell of a `datasets.Video` column, decoded or not.
        num_frames (`int`, *optional*): how many at most, at least 1; this or `fps` is needed. A shorter video gives
            each of its frames once.
        fps (`float`, *optional*): frames a second instead.
        start_seconds (`float`, *optional*), end_seconds (`float`, *optional*): the half-open part.
        max_frames (`int`, *optional*): the most that `fps` may give.
        size (`tuple[int, int]` or `int`, *optional*): height and width, or the most pixels of a frame, which keeps its
            shape and is never enlarged; as stored when left out.
        jitter_seed (`int`, *optional*): draws each frame from its stretch instead of taking the middle.
        backend (`str`, *optional*): one of `BACKENDS`; PyAV when left out.
        frame_rate (`float`, *optional*): images a second of a folder of images.
        timeout_seconds (`float`, *optional*): decodes in a process of its own, which is ended after so long; starting
            one takes about half a second, so that `FrameLoader` is better for many videos.
        num_threads (`int`, *optional*, defaults to 0): threads of the decoder; 0 lets it choose.

    Returns:
        `VideoFrames`: N frames.

    Raises:
        `VideoReadError`: for what cannot be opened or decoded, or not in time.
        `ImportError`: for a backend that does not load.
        `ValueError`: for arguments out of range.

    Example:
        >>> read_frames("clip.mp4", num_frames=8, size=448 * 448).data.shape  # doctest: +SKIP
        (8, 334, 598, 3)
    """
    budget = FrameBudget(
        num_frames=num_frames, fps=fps, max_frames=max_frames, size=size, jitter_seed=jitter_seed, backend=backend
    )
    arguments = (source, None, budget, (start_seconds, end_seconds), frame_rate, num_threads)
    if timeout_seconds is None:
        return read_video(*arguments)
    with FrameProcess() as process:
        return process.read(arguments, timeout_seconds)


def read_request(request: FrameRequest, num_threads: int = 0) -> VideoFrames:
    """Read what every view of a request's clip is cut from: all sampled frames, in their order.

    Args:
        request (`FrameRequest`): its `pick` and `shuffle_seed` are left for `show_frames`.
        num_threads (`int`, *optional*, defaults to 0): threads of the decoder; 0 lets it choose.

    Returns:
        `VideoFrames`: N frames.

    Raises:
        `VideoReadError`: for what cannot be opened or decoded.
    """
    return read_video(*spell_request(request, num_threads))


def show_frames(frames: VideoFrames, request: FrameRequest) -> VideoFrames:
    """The frames that a request shows of its clip's, in the order it shows them.

    A shuffled clip keeps the time stamps of the places, growing: those of the frames would give their order away.

    Args:
        frames (`VideoFrames`): as `read_request` gave them.
        request (`FrameRequest`): of the same clip.

    Returns:
        `VideoFrames`: `indices` tell what is really shown.

    Example:
        >>> show_frames(read_request(request), replace(request, pick=(0, 1))).data.shape  # doctest: +SKIP
        (1, 334, 598, 3)
    """
    order = np.array(request.arrange(len(frames.data)))
    slots = np.sort(order)
    return replace(
        frames,
        data=frames.data[order],
        pts_seconds=frames.pts_seconds[slots],
        duration_seconds=frames.duration_seconds[slots],
        indices=frames.indices[order],
    )


def list_indices(request: FrameRequest) -> NDArray[np.int64]:
    """Which frames `read_request` takes, from the file's header or packets, without decoding a picture.

    A file whose frames turn out not to decode may give others; `VideoFrames.indices` has the last word.

    Args:
        request (`FrameRequest`): its `pick` and `shuffle_seed` do not matter.

    Returns:
        `int64[N]`: places among the frames of the stream, growing.

    Raises:
        `VideoReadError`: for what cannot be opened.
    """
    source = request.source if request.content is None else request.content
    if request.content is None and os.path.isdir(request.source):
        with report_faults(request.source, "pillow"):
            table = index_pictures(len(list_pictures(Path(request.source))), request.frame_rate)
            return sample_table(table, request.budget, (request.start_seconds, request.end_seconds))
    with report_faults(name_source(source), None), open_source(source, request.source) as opened:
        if holds_picture(opened.read_head(16)):
            return np.zeros(1, np.int64)
        return sample_table(index_source(opened), request.budget, (request.start_seconds, request.end_seconds))
