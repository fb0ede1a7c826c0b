"""The public clips through every backend: counts, times and rotation, equal frames, and what cannot be read."""

from __future__ import annotations

import csv
import functools
import json
from pathlib import Path

import numpy as np
import pytest

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.video import BACKENDS, VideoFrames, VideoReadError, read_frames
from vidground_hf.video_backends import explain_backend

pytestmark = needs_shared_data
CLIPS = SHARED_DATA / "clips"
DESIGN = Path(__file__).resolve().parents[1] / "docs" / "design" / "video.md"
NASA = "torchcodec/test/resources/nasa_13013.mp4"
ROWS = {}
if CLIPS.is_dir():
    with (CLIPS / "PROBE.tsv").open(newline="") as file:
        ROWS = {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
MISSING_INDEX = (
    "it begins as MP4 or MOV, but its index of frames (moov) is missing or broken: it may have been cut off"
)
CAUSES = {
    "WrongFile.mp4": f"ValueError: {MISSING_INDEX}",
    "broken.mp4": f"ValueError: {MISSING_INDEX}",
    "empty.flv": "ValueError: it begins as FLV, but no frames follow",
}
ROTATED = {"video_90.mov", "video_270.mov"}


@functools.cache
def read_clip(file: str, backend: str, num_frames: int = 30) -> VideoFrames | VideoReadError:
    """Frames or the error; decord, which may hang or crash, has a process of its own."""
    if (cause := explain_backend(backend)) is not None:
        pytest.skip(f"{backend} does not load: {cause}")
    try:
        return read_frames(
            CLIPS / file,
            num_frames=num_frames,
            size=100 * 100,
            backend=backend,
            timeout_seconds=60 if backend == "decord" else None,
        )
    except VideoReadError as error:
        return error


def is_readable(file: str) -> bool:
    return not ROWS[file]["open_error"]


@pytest.mark.parametrize("file", [file for file in ROWS if is_readable(file) and file != NASA])
def test_counts_times_and_shapes_are_those_of_the_probe(file: str) -> None:
    row, frames = ROWS[file], read_clip(file, "pyav", 10_000)
    assert isinstance(frames, VideoFrames)
    assert len(frames.data) == int(row["decoded_frames"])
    assert frames.indices.tolist() == list(range(len(frames.data)))
    assert frames.pts_seconds[0] == 0
    assert frames.pts_seconds[-1] == pytest.approx(float(row["last_pts_s"]), abs=1e-6)
    unit = 1 / int(row["time_base"].split("/")[1])
    steps, counts = np.unique(np.round(np.diff(frames.pts_seconds) / unit).astype(int), return_counts=True)
    expected = {int(step): int(count) for step, count in (cell.split("x") for cell in row["pts_steps"].split())}
    assert expected.items() <= dict(zip(steps.tolist(), counts.tolist(), strict=True)).items()
    width, height = map(int, row["coded_size"].split("x"))
    if Path(file).name in ROTATED:
        width, height = height, width
    assert frames.data.shape[1] / frames.data.shape[2] == pytest.approx(height / width, rel=0.02)
    assert row["rotation"] in {"0", "90", "-90", "-180"}
    assert (abs(int(row["rotation"])) == 90) == (Path(file).name in ROTATED)


@pytest.mark.parametrize("file", [file for file in ROWS if is_readable(file)])
@pytest.mark.parametrize("backend", ["torchcodec", "decord"])
def test_every_backend_gives_the_same_frames(file: str, backend: str) -> None:
    ours, theirs = read_clip(file, "pyav"), read_clip(file, backend)
    assert isinstance(ours, VideoFrames)
    if isinstance(theirs, VideoReadError):
        assert f"| {Path(file).name} | {backend} |" in DESIGN.read_text()
        return
    assert theirs.backend == backend
    assert np.array_equal(ours.indices, theirs.indices)
    assert np.array_equal(ours.pts_seconds, theirs.pts_seconds)
    assert np.array_equal(ours.duration_seconds, theirs.duration_seconds)
    difference = np.abs(ours.data.astype(int) - theirs.data)
    assert difference.mean() < 0.5
    assert difference.max() <= 8


def test_the_best_of_two_streams() -> None:
    frames = read_clip(NASA, "pyav", 10_000)
    assert isinstance(frames, VideoFrames)
    known = json.loads((CLIPS / f"{NASA}.stream3.all_frames_info.json").read_text())
    expected = [float(frame["pts_time"]) for frame in known]
    assert frames.pts_seconds == pytest.approx(np.array(expected), abs=1e-6)
    assert (len(frames.data), frames.num_video_frames) == (390, 390)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [0, 35])
def test_frames_as_torchcodec_keeps_them(number: int, backend: str) -> None:
    torch = pytest.importorskip("torch", reason="reference frames need torch; pip install 'vidground-hf[models]'")
    if explain_backend(backend) is not None:
        pytest.skip(f"{backend} does not load")
    expected = torch.load(CLIPS / f"{NASA}.stream3.frame{number:06}.pt", weights_only=True).numpy()
    moment = number * 1001 / 30000
    frame = read_frames(CLIPS / NASA, num_frames=1, start_seconds=moment, end_seconds=moment + 0.03, backend=backend)
    assert frame.indices.tolist() == [number]
    assert np.abs(frame.data[0].astype(int) - expected).mean() < 1


def test_a_file_that_breaks_off_says_how_much_was_read() -> None:
    path = CLIPS / "decord-tests/tests/test_data/corrupted.mp4"
    frames = read_frames(path, num_frames=4, size=10_000)
    assert frames.indices.tolist() == [3, 10, 17, 24]  # of the 28 that decode
    assert (frames.num_video_frames, frames.video_seconds) == (50, 5.0)
    assert (
        frames.note == "28 of 50 frames could be decoded (InvalidDataError: Invalid data found when processing input)"
    )


def test_a_part_after_the_break_is_an_error() -> None:
    path = CLIPS / "decord-tests/tests/test_data/corrupted.mp4"
    with pytest.raises(
        VideoReadError, match=r"no frame between start_seconds = 3\.0 and end_seconds = 4\.0; .* 2\.800 s"
    ):
        read_frames(path, num_frames=4, start_seconds=3.0, end_seconds=4.0)


@pytest.mark.parametrize("file", [file for file in ROWS if not is_readable(file)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_video_says_so(file: str, backend: str) -> None:
    error = read_clip(file, backend)
    assert isinstance(error, VideoReadError)
    assert (error.path, error.backend) == (str(CLIPS / file), backend)
    assert error.cause == CAUSES[Path(file).name]
    assert "\n" not in str(error)


def test_the_table_in_the_design_notes_is_what_happens() -> None:
    written = [line.split("|") for line in DESIGN.read_text().splitlines() if line.startswith("| ")]
    stated = {(cells[1].strip(), cells[2].strip()) for cells in written if cells[2].strip() in BACKENDS}
    measured = set()
    for file in ROWS:
        for backend in BACKENDS:
            frames = read_clip(file, backend)
            if isinstance(frames, VideoReadError) or frames.note is not None:
                measured.add((Path(file).name, backend))
    assert measured == stated
