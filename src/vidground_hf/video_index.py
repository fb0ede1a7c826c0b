"""The table of all frames of a video stream, from its header where that is enough, else from its packets.

No picture is decoded here, except to find out which frames of a faulty file still do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidground_hf.video_errors import describe_cause
from vidground_hf.video_sources import VideoSource

Ints = NDArray[np.int64]
BATCH_BYTES = 256 * 2**20
"""Of frames in their stored size held at once: 97 of 720p, 43 of 1080p; our guess."""


@dataclass(frozen=True, slots=True)
class FrameTable:
    """When the frames of one stream are shown.

    Attributes:
        pts (`int64[M]`): first moments, growing, in the container's time base.
        end (`int`): when the last frame ends.
        time_base (`Fraction`): seconds of one unit.
        stream_index (`int`): place of the stream among all of the container.
        key_pts (`int64[K]`): moments from which a decoder can start; the first is that of the first frame or before.
        num_stored (`int`): frames that the header announces or that there are packets for, without those that the
            container's edit list hides.
        num_pixels (`int`): of a frame.
        pixel_aspect (`Fraction`, *optional*): width over height of a pixel, where the file tells.
        may_jump (`bool`, *optional*, defaults to `True`): whether a decoder may leave out what lies between frames;
            where jumps land in the wrong place it has to go through the file from the beginning.
    """

    pts: Ints
    end: int
    time_base: Fraction
    stream_index: int
    key_pts: Ints
    num_stored: int
    num_pixels: int
    pixel_aspect: Fraction | None = None
    may_jump: bool = True

    def keep(self, pts: Ints) -> FrameTable:
        """The table with these of its frames alone; M at least 1."""
        last = int(np.searchsorted(self.pts, pts[-1]))
        end = self.end if last + 1 >= len(self.pts) else int(self.pts[last + 1])
        return replace(self, pts=pts, end=end)

    @property
    def seconds(self) -> NDArray[np.float64]:
        """First moments in seconds since the first frame (`float64[M]`)."""
        return (self.pts - self.pts[0]) * (self.time_base.numerator / self.time_base.denominator)

    @property
    def duration_seconds(self) -> NDArray[np.float64]:
        """How long each frame is shown, until the next begins (`float64[M]`)."""
        return np.diff(self.pts, append=self.end) * (self.time_base.numerator / self.time_base.denominator)

    @property
    def video_seconds(self) -> float:
        """From the first frame to the end of the last."""
        return float((self.end - int(self.pts[0])) * self.time_base)


def find_stream(container: Any) -> Any:
    """The stream that players show: FFmpeg's best one, which is also that of torchcodec and decord."""
    stream = container.streams.best("video")
    if stream is None:
        raise ValueError("the file has no video stream")
    return stream


def index_frames(container: Any) -> FrameTable:
    """The table of all frames, from the header of an MP4 or MOV file of even steps, else by reading every packet.

    Args:
        container (`av.container.InputContainer`): a freshly opened one; it has to be opened again to decode.

    Returns:
        `FrameTable`: with at least one frame.

    Raises:
        `ValueError`: for no video stream, or none with a frame.
    """
    stream = find_stream(container)
    return read_header_table(container, stream) or read_packet_table(container, stream)


def read_header_table(container: Any, stream: Any) -> FrameTable | None:
    """What an MP4 or MOV header tells where decoding times are even, so that display times are too."""
    entries = stream.index_entries
    if "mp4" not in container.format.name or stream.start_time is None or not 1 < stream.frames == len(entries):
        return None
    rows = [(entry.timestamp, entry.is_keyframe, entry.is_discard) for entry in entries]
    dts, is_key, is_hidden = (np.array(column) for column in zip(*rows, strict=True))
    steps = np.diff(dts)
    step = int(steps[0])
    if is_hidden.any() or step <= 0 or (steps != step).any():
        return None
    pts = stream.start_time + step * np.arange(len(dts), dtype=np.int64)
    return FrameTable(
        pts,
        int(pts[-1]) + step,
        stream.time_base,
        stream.index,
        pts[is_key],
        len(pts),
        count_pixels(stream),
        stream.sample_aspect_ratio,
    )


def read_packet_table(container: Any, stream: Any) -> FrameTable:
    """What the packets tell, all of which are read."""
    rows = [
        (packet.pts, packet.duration or 0, packet.is_keyframe, packet.is_discard)
        for packet in container.demux(stream)
        if packet.size
    ]
    if not rows:
        raise ValueError("the video stream has no frame")
    if any(row[0] is None for row in rows):
        raise ValueError("packets carry no time stamps")
    pts, durations, is_key, is_hidden = (np.array(column) for column in zip(*rows, strict=True))
    shown = ~is_hidden
    shown_pts = np.unique(pts[shown].astype(np.int64))
    if not len(shown_pts):
        raise ValueError("the edit list hides every frame")
    last = int(durations[pts == shown_pts[-1]].max())
    if last <= 0 and len(shown_pts) > 1:
        last = int(shown_pts[-1] - shown_pts[-2])
    return FrameTable(
        shown_pts,
        int(shown_pts[-1]) + last,
        stream.time_base,
        stream.index,
        np.sort(pts[is_key]).astype(np.int64),
        max(len(shown_pts), stream.frames - int(is_hidden.sum())),
        count_pixels(stream),
        stream.sample_aspect_ratio,
        # AVI stores no display times; those of streams that reorder frames are made up.
        may_jump=not ("avi" in container.format.name and stream.codec_context.name in ("h264", "hevc")),
    )


def index_source(source: VideoSource) -> FrameTable:
    """The table of a source's frames; the source is left anywhere."""
    try:
        with open_container(source.rewind()) as container:
            return index_frames(container)
    except av.error.InvalidDataError as error:
        raise ValueError(explain_head(source.read_head(12))) from error


def explain_head(head: bytes) -> str:
    """Why a file that begins so, and that FFmpeg does not open, may not be a video.

    Args:
        head (`bytes`): the first 12 bytes, or all of a shorter file.

    Example:
        >>> explain_head(b"<!DOCTYPE ht")
        "it begins with b'<!DOCTYPE ht', as no video does that FFmpeg knows"
    """
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return "it begins as MP4 or MOV, but its index of frames (moov) is missing or broken: it may have been cut off"
    if head.startswith(b"FLV"):
        return "it begins as FLV, but no frames follow"
    return f"it begins with {head!r}, as no video does that FFmpeg knows" if head else "the file is empty"


def read_decodable(handle: Any, table: FrameTable) -> tuple[Ints, str | None]:
    """The frames that really decode, one after the other up to the first fault.

    Args:
        handle (`str` or file object): what to open.
        table (`FrameTable`): of this file.

    Returns:
        `tuple[int64[M], str | None]`: their moments, growing, and the fault.
    """
    moments: list[int] = []
    with open_container(handle) as container:
        try:
            moments.extend(frame.pts for frame in container.decode(container.streams[table.stream_index]))
        except av.FFmpegError as error:
            return np.unique(np.array(moments, np.int64)), describe_cause(error)
    return np.unique(np.array(moments, np.int64)), None


def count_pixels(stream: Any) -> int:
    return int(stream.codec_context.width * stream.codec_context.height)


def split_by_memory(places: Ints, table: FrameTable) -> list[Ints]:
    """Parts that fit in `BATCH_BYTES` each, for decoders that jump back at every call."""
    at_once = max(BATCH_BYTES // max(3 * table.num_pixels, 1), 1)
    return [places[first : first + at_once] for first in range(0, len(places), at_once)]


def open_container(handle: Any) -> Any:
    """A PyAV container; names in other encodings are no fault of it."""
    # A playlist in place of a video must not make this machine fetch what it names.
    return av.open(handle, metadata_errors="ignore", container_options={"protocol_whitelist": "file"})
