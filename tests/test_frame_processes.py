"""Processes that decode end when nobody waits for them, and one that was killed costs no clip."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import av
import numpy as np
import pytest

from vidground_hf.frame_loading import FrameLoader
from vidground_hf.media import FrameRequest
from vidground_hf.video import VideoFrames


@pytest.fixture
def clip(tmp_path: Path) -> FrameRequest:
    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return FrameRequest(source=str(path))


def test_what_nobody_waits_for_is_ended(clip: FrameRequest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "hangs.mp4")  # opening it waits for somebody who writes
    hanging = FrameRequest(source=str(tmp_path / "hangs.mp4"))
    with FrameLoader(num_workers=1) as loader:
        reading = loader.load([clip, hanging, hanging])
        assert isinstance(next(reading), VideoFrames)
        (process,) = loader._alive
        reading.close()  # type: ignore[attr-defined]
        assert not process.is_alive
        (frames,) = loader.load([clip])
        assert isinstance(frames, VideoFrames)


def test_a_process_killed_while_it_waits_costs_no_clip(clip: FrameRequest) -> None:
    with FrameLoader(num_workers=1) as loader:
        for _ in range(2):
            (frames,) = loader.load([clip])
            assert isinstance(frames, VideoFrames)
            (process,) = loader._alive
            os.kill(process._child.pid, signal.SIGKILL)
            process._child.wait()
