"""Clips decoded ahead: in order, bounded, and safe from decoders that hang or crash."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.video_files import make_video, read_numbers
from vidground_hf import frame_loading
from vidground_hf.frame_loading import FrameLoader
from vidground_hf.frame_process import FrameProcess, describe_end
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.video import VideoFrames, VideoReadError, read_frames
from vidground_hf.video_reading import Arguments

BUDGET = FrameBudget(num_frames=3)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    return [make_video(folder / f"{count}.mp4", num_frames=count) for count in (6, 12, 24)]


@pytest.fixture
def pipe_that_hangs(tmp_path: Path) -> str:
    """A path whose reader waits for ever: a named pipe that nobody writes to."""
    path = tmp_path / "hanging.mp4"
    os.mkfifo(path)
    return str(path)


def request(source: Path | str) -> FrameRequest:
    return FrameRequest(source=str(source), budget=BUDGET)


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_clips_come_in_the_order_of_the_requests(clips: list[Path], num_workers: int) -> None:
    wanted = [clips[0], clips[2], Path("missing.mp4"), clips[1], clips[0]]
    with FrameLoader(num_workers, max_ahead=3) as loader:
        loaded = list(loader.load(map(request, wanted)))
        again = list(loader.load([request(clips[1])]))
    numbers = [read_numbers(frames.data) if isinstance(frames, VideoFrames) else None for frames in [*loaded, *again]]
    assert numbers == [[1, 3, 5], [4, 12, 20], None, [2, 6, 10], [1, 3, 5], [2, 6, 10]]
    assert isinstance(loaded[2], VideoReadError)
    assert loaded[2].cause == "FileNotFoundError: No such file or directory"


def test_a_decoder_that_hangs_costs_its_own_clip(clips: list[Path], pipe_that_hangs: str) -> None:
    sources: list[Path | str] = [clips[0], pipe_that_hangs, clips[1], clips[2], pipe_that_hangs, clips[0]]
    with FrameLoader(2, timeout_seconds=1.5) as loader:
        loaded = list(loader.load([request(source) for source in sources]))
    assert [isinstance(frames, VideoFrames) for frames in loaded] == [True, False, True, True, False, True]
    assert str(loaded[1]) == f"{pipe_that_hangs} cannot be read by pyav: no frames after 1.5 s; leave this video out"


def test_one_video_with_a_time_limit(clips: list[Path], pipe_that_hangs: str) -> None:
    assert read_numbers(read_frames(clips[0], num_frames=3, timeout_seconds=60).data) == [1, 3, 5]
    content = memoryview(clips[0].read_bytes())
    assert read_numbers(read_frames(content, num_frames=3, timeout_seconds=60).data) == [1, 3, 5]
    with pytest.raises(VideoReadError, match=re.escape("no frames after 0.5 s")):
        read_frames(pipe_that_hangs, num_frames=1, timeout_seconds=0.5)
    with clips[0].open("rb") as file, pytest.raises(TypeError, match="an open file cannot go to another process"):
        read_frames(file, num_frames=1, timeout_seconds=60)


def test_errors_of_arguments_come_back_as_they_are(clips: list[Path]) -> None:
    with pytest.raises(TypeError, match="a video of type int is not known"):
        read_frames(17, num_frames=1, timeout_seconds=60)
    with FrameLoader(1) as loader, pytest.raises(ValueError, match="backend = 'opencv' is not known"):
        list(loader.load([FrameRequest(source=str(clips[0]), budget=FrameBudget(backend="opencv"))]))


class FragileProcess(FrameProcess):
    """One whose child is ended from outside while it reads certain clips, as a crash of its decoder would."""

    def read(self, arguments: Arguments, timeout_seconds: float | None) -> VideoFrames:
        if "crash" in str(arguments[0]):
            self._child.send_signal(signal.SIGSEGV)
        return super().read(arguments, timeout_seconds)


def test_a_decoder_that_crashes_costs_its_own_clip(clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_loading, "FrameProcess", FragileProcess)
    with FrameLoader(1) as loader:
        loaded = list(
            loader.load([request(source) for source in (clips[0], "crash.mp4", clips[1], "crash.mp4", clips[2])])
        )
    assert [isinstance(frames, VideoFrames) for frames in loaded] == [True, False, True, False, True]
    assert isinstance(loaded[1], VideoReadError)
    assert loaded[1].cause == "the decoder crashed (SIGSEGV)"


def test_how_a_process_ended() -> None:
    ends = [describe_end(status, 5.0) for status in (-signal.SIGALRM, -signal.SIGABRT, 3)]
    assert ends == [
        "no frames after 5.0 s", "the decoder crashed (SIGABRT)", "the decoding process ended with exit status 3"
    ]  # fmt: skip


def test_no_more_than_max_ahead_are_read_ahead(clips: list[Path]) -> None:
    taken = []

    def tell() -> Iterator[FrameRequest]:
        for number in range(10):
            taken.append(number)
            yield request(clips[0])

    with FrameLoader(1, max_ahead=2) as loader:
        loaded = loader.load(tell())
        next(loaded)
        time.sleep(0.5)
        assert len(taken) == 3
        next(loaded)
        assert len(taken) == 4


def test_no_process_is_left(clips: list[Path], pipe_that_hangs: str) -> None:
    with FrameLoader(2, timeout_seconds=None) as loader:
        loaded = loader.load([request(source) for source in (clips[0], pipe_that_hangs, pipe_that_hangs, clips[1])])
        assert isinstance(next(loaded), VideoFrames)
        processes = list(loader._alive)
    assert processes
    assert not any(process.is_alive for process in processes)


def test_a_closed_loader(clips: list[Path]) -> None:
    with FrameLoader(1) as loader:
        pass
    with pytest.raises(RuntimeError, match="shutdown"):
        next(loader.load([request(clips[0])]))


def list_children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir(), reason="children are listed in /proc, which this system lacks"
)
def test_ctrl_c_leaves_no_process(pipe_that_hangs: str) -> None:
    # No guard for the main module here: the children do not import it.
    code = (
        "from vidground_hf.frame_loading import FrameLoader\nfrom vidground_hf.media import FrameRequest\n"
        "with FrameLoader(2, timeout_seconds=None) as loader:\n"
        f"    next(loader.load([FrameRequest(source={pipe_that_hangs!r})] * 2))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 30
    while len(children := list_children(parent.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=30)
    assert len(children) == 2
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.parametrize(("settings", "message"), [
    ({"num_workers": -1}, "num_workers = -1, max_ahead = 4; pass 0 or more and 1 or more"),
    ({"max_ahead": 0}, "num_workers = 2, max_ahead = 0; pass 0 or more and 1 or more"),
    ({"timeout_seconds": 0.0}, "timeout_seconds = 0.0 is out of range; it is above 0, or None"),
])  # fmt: skip
def test_numbers_out_of_range(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FrameLoader(**settings)  # type: ignore[arg-type]
