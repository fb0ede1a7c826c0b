"""Decodes chosen frames with torchcodec.

Which ones is not decided here. Imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torchcodec.decoders import VideoDecoder

from vidground_hf.video_index import FrameTable, split_by_memory
from vidground_hf.video_sources import VideoSource


def decode_frames(
    source: VideoSource, table: FrameTable, wanted: NDArray[np.int64], num_threads: int
) -> Iterator[NDArray[np.uint8]]:
    """Pictures of the wanted frames, upright, in their order.

    torchcodec reads all packets for a table of its own: what it does without (averages, a table given to it) goes
    wrong for uneven time stamps, for files without a duration, or for frames shown before the key frame they follow.

    Args:
        source (`VideoSource`): what to open.
        table (`FrameTable`): of this source.
        wanted (`int64[N]`): places in the table, growing, N at least 1.
        num_threads (`int`): of the decoder; 0 lets FFmpeg choose.

    Yields:
        `uint8[H, W, 3]`: RGB.

    Raises:
        `RuntimeError`: for what the decoder refuses.
        `ValueError`: for a frame with another time than the table's.
    """
    decoder = VideoDecoder(
        source.rewind(),
        stream_index=table.stream_index,
        dimension_order="NHWC",
        num_ffmpeg_threads=num_threads,
    )
    for part in split_by_memory(wanted, table):
        batch = decoder.get_frames_at(part.tolist())
        expected = table.pts[part] * float(table.time_base)
        if np.abs(batch.pts_seconds.numpy() - expected).max() > 1e-6:
            raise ValueError(f"frames with other times than the file's came: {batch.pts_seconds.tolist()}")
        yield from batch.data.numpy()
