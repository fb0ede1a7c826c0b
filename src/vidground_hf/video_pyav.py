"""Decodes chosen frames with PyAV.

Which ones is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vidground_hf.video_index import FrameTable, open_container
from vidground_hf.video_sources import VideoSource

Pixels = NDArray[np.uint8]
SKIPPING_CODECS = ("h264", "hevc")
"""Whose decoders take a new word on skipping with every packet; libdav1d keeps the first one."""


def decode_frames(
    source: VideoSource, table: FrameTable, wanted: NDArray[np.int64], num_threads: int
) -> Iterator[Pixels]:
    """Pictures of the wanted frames, upright, in their order; ends early where one does not come.

    Frames that no other frame needs are dropped undecoded on the way, and stretches without a wanted frame are jumped
    over; neither changes a pixel.

    Args:
        source (`VideoSource`): what to open.
        table (`FrameTable`): of this source.
        wanted (`int64[N]`): places in the table, growing, N at least 1.
        num_threads (`int`): of the decoder; 0 lets FFmpeg choose.

    Yields:
        `uint8[H, W, 3]`: RGB.

    Raises:
        `av.FFmpegError`: for what the decoder refuses.
    """
    reformatter = VideoReformatter()
    with open_container(source.rewind()) as container:
        stream = container.streams[table.stream_index]
        stream.codec_context.thread_type = "AUTO"
        stream.codec_context.thread_count = num_threads
        for frame in (_jump if table.may_jump else _count)(container, stream, table, wanted.tolist()):
            yield np.rot90(reformatter.reformat(frame, format="rgb24").to_ndarray(), round(frame.rotation / 90))


def _count(container: Any, stream: Any, table: FrameTable, wanted: list[int]) -> Iterator[Any]:
    """The wanted ones of all frames, in the order they come."""
    remaining = iter(wanted)
    place = next(remaining, None)
    for number, frame in enumerate(container.decode(stream)):
        if number == place:
            yield frame
            place = next(remaining, None)
            if place is None:
                return


def _jump(container: Any, stream: Any, table: FrameTable, wanted: list[int]) -> Iterator[Any]:
    """The wanted frames by their times, decoding little else; ends early where one does not come."""
    moments = table.pts[wanted].tolist()
    walk = _Walk(container, stream, table, set(moments))
    for moment in moments:
        frame = walk.find(moment)
        if frame is None:
            return
        yield frame


class _Walk:
    """Where a decoder is in a stream."""

    def __init__(self, container: Any, stream: Any, table: FrameTable, wanted: set[int]) -> None:
        self.container, self.stream, self.table, self.wanted = container, stream, table, wanted
        self.may_skip = stream.codec_context.name in SKIPPING_CODECS
        self.reached: int | None = None
        self.frames: Iterator[Any] = iter(())

    def find(self, moment: int) -> Any | None:
        """The frame of a moment after those found so far; `None` where there is none."""
        keys = self.table.key_pts
        key = max(int(np.searchsorted(keys, moment, side="right")) - 1, 0)
        if self.reached is not None and keys[key] <= self.reached:
            return self._go_on(moment)
        starts = [key] if key == 0 else [key, key - 1]  # a header places key frames before their B frames
        for start in starts:
            if start or self.reached is not None:
                self.container.seek(int(keys[start]), stream=self.stream)
            self.frames = self._decode()
            frame = self._go_on(moment)
            if frame is not None:
                return frame
        return None

    def _go_on(self, moment: int) -> Any | None:
        frame = next((frame for frame in self.frames if frame.pts is not None and frame.pts >= moment), None)
        return frame if frame is not None and frame.pts == moment else None

    def _decode(self) -> Iterator[Any]:
        for packet in self.container.demux(self.stream):
            if packet.pts is not None:
                self.reached = max(packet.pts, self.reached or packet.pts)
            if self.may_skip:
                self.stream.codec_context.skip_frame = "DEFAULT" if packet.pts in self.wanted else "NONREF"
            yield from packet.decode()
