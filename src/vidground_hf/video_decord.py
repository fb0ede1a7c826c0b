"""Decodes chosen frames with decord.

Which ones is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import decord
import numpy as np
from decord._ffi.base import DECORDLimitReachedError
from numpy.typing import NDArray

from vidground_hf.video_index import FrameTable, find_stream, open_container, read_packet_table, split_by_memory
from vidground_hf.video_sources import VideoSource


def decode_frames(
    source: VideoSource, table: FrameTable, wanted: NDArray[np.int64], num_threads: int
) -> Iterator[NDArray[np.uint8]]:
    """Pictures of the wanted frames, upright, in their order.

    decord counts frames for itself and does not know what an edit list hides; where its count or its times are not
    the table's, its frames would be other ones.

    Args:
        source (`VideoSource`): what to open; a file object is read whole.
        table (`FrameTable`): of this source.
        wanted (`int64[N]`): places in the table, growing, N at least 1.
        num_threads (`int`): of the decoder; 0 lets FFmpeg choose.

    Yields:
        `uint8[H, W, 3]`: RGB.

    Raises:
        `RuntimeError`: for what the decoder refuses.
        `ValueError`: for another number of frames or other times than the table's.
    """
    try:
        reader = decord.VideoReader(source.rewind(), num_threads=num_threads)
        check_numbers(reader, source)
        for part in split_by_memory(wanted, table):
            yield from reader.get_batch(part.tolist()).asnumpy()
    except (decord.DECORDError, DECORDLimitReachedError) as error:  # no class above them but Exception
        words = str(error).splitlines()[0]
        raise RuntimeError(words.rpartition("] ")[2]) from error


def check_numbers(reader: Any, source: VideoSource) -> None:
    """Refuses a file whose frames decord numbers in another way: it would give other frames than it is asked for."""
    with open_container(source.rewind()) as container:
        if container.format.name in ("mpeg", "mpegts"):
            raise ValueError("decord begins at a later frame of MPEG streams")
        table = read_packet_table(container, find_stream(container))
    if len(reader) != len(table.pts):
        raise ValueError(f"decord counts {len(reader)} frames where {len(table.pts)} are shown")
    times = reader.get_frame_timestamp(np.arange(len(reader)))[:, 0]
    if np.abs(times - times[0] - table.seconds).max() > 1e-3 + 1e-6 * times[-1]:  # decord's are 32-bit
        raise ValueError("decord gives the frames other times than the file does")
    if not np.array_equal(reader.get_key_indices(), np.searchsorted(table.pts, table.key_pts)):
        raise ValueError("decord misnumbers frames that are stored after a key frame and shown before it")
