"""Frames of made videos: which ones, from which sources, in which shape, and what is said of those that fail."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.video_files import draw_frame, make_video, read_numbers, serve_file
from vidground_hf import video_backends
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.video import BACKENDS, VideoReadError, list_indices, read_frames, read_request, show_frames
from vidground_hf.video_backends import explain_backend
from vidground_hf.video_index import find_stream, open_container, read_header_table, read_packet_table

FORMATS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"options": {"bf": "3", "g": "12"}},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=10:bframes=3:scenecut=0"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=10:log-level=none"}},
    "av1.mp4": {"codec": "libsvtav1", "shape": (96, 128)},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "h264.avi": {"options": {"bf": "3"}},
    "stream.ts": {"options": {"bf": "3", "g": "12"}},
    "program.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "lossless_bgr.mkv": {"codec": "ffv1", "pixels": "bgr0", "shape": (47, 63)},
    "ten_bit.mp4": {"pixels": "yuv420p10le"},
    "gray.mp4": {"pixels": "gray"},
    "yuv444.mp4": {"pixels": "yuv444p"},
    "moving.gif": {"codec": "gif", "pixels": "rgb8"},
}
OTHER_TIMES = "other times than|no more frames left"
REFUSED = {
    ("open_gop.mp4", "decord"): "decord misnumbers frames that are stored after a key frame and shown before it",
    ("hevc.mp4", "decord"): "decord misnumbers frames that are stored after a key frame and shown before it",
    ("av1.mp4", "decord"): "cannot find video stream",
    ("mpeg4.avi", "decord"): OTHER_TIMES,
    ("h264.avi", "decord"): OTHER_TIMES,
    ("stream.ts", "decord"): "decord begins at a later frame of MPEG streams",
    ("program.mpg", "decord"): "decord begins at a later frame of MPEG streams",
    ("moving.gif", "decord"): "broken metadata",
    ("mpeg4.avi", "torchcodec"): OTHER_TIMES,
    ("h264.avi", "torchcodec"): OTHER_TIMES,
    ("stream.ts", "torchcodec"): OTHER_TIMES,
    ("program.mpg", "torchcodec"): OTHER_TIMES,
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", options={"bf": "3", "g": "12"})


def needs(backend: str) -> None:
    if (cause := explain_backend(backend)) is not None:
        pytest.skip(f"{backend} does not load: {cause}")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("num_frames", [7, 100])
def test_the_frames_that_come_are_the_ones_asked_for(tmp_path: Path, name: str, num_frames: int, backend: str) -> None:
    needs(backend)
    path = make_video(tmp_path / name, **FORMATS[name])
    expected = list(range(40)) if num_frames == 100 else [2, 8, 14, 20, 25, 31, 37]
    if (name, backend) in REFUSED:
        with pytest.raises(VideoReadError, match=REFUSED[name, backend]):
            read_frames(path, num_frames=num_frames, backend=backend)
        return
    frames = read_frames(path, num_frames=num_frames, backend=backend)
    assert read_numbers(frames.data) == frames.indices.tolist() == expected
    assert frames.pts_seconds == pytest.approx(np.array(expected) * 0.04, abs=1e-3)
    assert frames.duration_seconds == pytest.approx(np.full(len(expected), 0.04), abs=2e-3)
    assert frames.video_seconds == pytest.approx(1.6, abs=1e-2)
    assert (frames.num_video_frames, frames.backend, frames.source, frames.note) == (40, backend, str(path), None)
    assert frames.data.shape[1:] == (*FORMATS[name].get("shape", (48, 64)), 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_uneven_time_stamps(tmp_path: Path, name: str, backend: str) -> None:
    needs(backend)
    moments = [0, 10, 20, 30, 40, 50, 1000, 1010, 2000, 3500]
    path = make_video(tmp_path / name, pts_milliseconds=moments, options={"bf": "2"})
    frames = read_frames(path, num_frames=4, end_seconds=3.6, backend=backend)
    assert read_numbers(frames.data) == frames.indices.tolist() == [5, 7, 8]  # at 0.45, 1.35, 2.25 and 3.15 s
    assert frames.pts_seconds == pytest.approx([0.05, 1.01, 2.0], abs=1e-6)
    assert frames.duration_seconds == pytest.approx([0.95, 0.99, 1.5], abs=1e-6)


@pytest.mark.parametrize("name", ["late.mkv", "late.mp4"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_time_counts_from_the_first_frame(tmp_path: Path, name: str, backend: str) -> None:
    needs(backend)
    path = make_video(tmp_path / name, pts_milliseconds=[5000 + 40 * number for number in range(25)])
    frames = read_frames(path, num_frames=2, backend=backend)
    assert read_numbers(frames.data) == [6, 18]
    assert frames.pts_seconds == pytest.approx([0.24, 0.72], abs=1e-6)


def test_fewest_pixels_and_exact_sizes(clip: Path) -> None:
    shapes = [read_frames(clip, num_frames=1, size=size).data.shape[1:3] for size in (None, 768, 10**6, (30, 20), 1)]
    assert shapes == [(48, 64), (24, 32), (48, 64), (30, 20), (1, 1)]


def test_pixels_that_are_not_square_are_left_so(tmp_path: Path) -> None:
    frames = read_frames(make_video(tmp_path / "wide.mp4", aspect=Fraction(4, 3)), num_frames=1)
    assert frames.data.shape[1:3] == (48, 64)
    assert frames.note == "pixels are 4/3 as wide as high, and left so"


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kind_of_source(clip: Path, backend: str) -> None:
    needs(backend)
    content = clip.read_bytes()
    sources: list[Any] = [
        clip, str(clip), content, memoryview(content), pa.py_buffer(content), io.BytesIO(content), f"file://{clip}",
        {"path": str(clip), "bytes": None}, {"path": "in_a_table.mp4", "bytes": content},
        SimpleNamespace(_hf_encoded={"path": str(clip), "bytes": None}),
    ]  # fmt: skip
    read = [read_frames(source, num_frames=3, backend=backend) for source in sources]
    assert [read_numbers(frames.data) for frames in read] == [[6, 20, 33]] * len(sources)
    size = f"<{len(content)} bytes>"
    assert [frames.source for frames in read[:5]] == [str(clip), str(clip), size, size, size]
    assert [frames.source for frames in read[7:]] == [str(clip), "in_a_table.mp4", str(clip)]


def test_a_cell_of_a_video_column(clip: Path) -> None:
    needs("torchcodec")
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"video": [str(clip)]}).cast_column("video", datasets.Video())
    assert read_numbers(read_frames(table[0]["video"], num_frames=2).data) == [10, 30]
    undecoded = table.cast_column("video", datasets.Video(decode=False))
    assert read_numbers(read_frames(undecoded[0]["video"], num_frames=2).data) == [10, 30]


@pytest.mark.parametrize("source", [17, None, {"path": None, "bytes": None}, ["a.mp4"]])
def test_what_is_no_source(source: Any) -> None:
    with pytest.raises(TypeError, match="pass"):
        read_frames(source, num_frames=1)


def test_only_what_is_needed_of_a_remote_file_is_fetched(tmp_path: Path) -> None:
    path = make_video(
        tmp_path / "long.mp4", num_frames=250, shape=(240, 320),
        options={"g": "10", "qp": "0", "x264-params": "bframes=0"}, muxer_options={"movflags": "faststart"},
    )  # fmt: skip
    with path.open("ab") as file:
        file.write(b"\0\0\0\0free" + bytes(8 * 2**20))  # what follows belongs to no frame
    with serve_file(path.read_bytes()) as (address, sent):
        frames = read_frames(f"{address}/clip.mp4?token=secret", num_frames=1, start_seconds=0, end_seconds=0.5)
    assert read_numbers(frames.data) == [6]
    assert frames.source == f"{address}/clip.mp4"
    assert sum(sent) < path.stat().st_size / 4


def test_secrets_are_not_told(tmp_path: Path) -> None:
    with serve_file(b"no video") as (address, _):
        for place in ("secret", "clip"):
            url = f"{address.replace('//', '//ada:lovelace@')}/{place}.mp4?token=hf_abcdefghijkl&x=1#part"
            with pytest.raises(VideoReadError) as caught:
                read_frames(url, num_frames=1)
            assert caught.value.path == f"{address}/{place}.mp4"
            for secret in ("ada", "lovelace", "hf_abc", "token", "x=1"):
                assert secret not in str(caught.value)


def test_a_still_image_is_one_frame(tmp_path: Path) -> None:
    for name in ("still.png", "still.jpg", "still.webp"):
        Image.fromarray(draw_frame(9)).save(tmp_path / name, quality=95)
        frames = read_frames(tmp_path / name, num_frames=8)
        assert (frames.backend, frames.video_seconds, frames.num_video_frames) == ("pillow", None, 1)
        assert read_numbers(frames.data) == [9]
        assert list_indices(FrameRequest(source=str(tmp_path / name))).tolist() == [0]


def test_a_folder_of_images_in_natural_order(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(draw_frame(number)).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("not an image")
    frames = read_frames(tmp_path, num_frames=4, frame_rate=3)
    assert read_numbers(frames.data) == frames.indices.tolist() == [1, 4, 7, 10]
    assert frames.pts_seconds == pytest.approx([1 / 3, 4 / 3, 7 / 3, 10 / 3])
    assert (frames.video_seconds, frames.backend) == (4.0, "pillow")
    request = FrameRequest(source=str(tmp_path), frame_rate=3.0, budget=FrameBudget(num_frames=4))
    assert read_request(request).indices.tolist() == list_indices(request).tolist() == [1, 4, 7, 10]
    for read in (read_request, list_indices):
        with pytest.raises(VideoReadError, match="a folder of images has no times; say frame_rate"):
            read(replace(request, frame_rate=None))


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match="the folder holds no image"):
        read_frames(tmp_path, num_frames=4, frame_rate=3)


@pytest.mark.parametrize("backend", ["pyav", "torchcodec"])  # decord reads nothing of it
def test_a_file_that_was_cut_gives_what_is_left(tmp_path: Path, backend: str) -> None:
    needs(backend)
    whole = make_video(tmp_path / "whole.mp4", options={"bf": "0", "g": "5"}, muxer_options={"movflags": "faststart"})
    content = whole.read_bytes()
    start = content.index(b"mdat")
    half = content[: start + (len(content) - start) // 2]
    frames = read_frames(half, num_frames=4, backend=backend)
    numbers = read_numbers(frames.data)
    assert numbers == frames.indices.tolist()
    found = re.match(r"(\d+) of 40 frames could be decoded \(", frames.note or "")
    assert found is not None
    readable = int(found[1])
    assert 10 < readable < 30
    assert numbers == [(2 * place + 1) * readable // 8 for place in range(4)]


def test_errors_name_path_backend_and_cause(tmp_path: Path) -> None:
    with pytest.raises(VideoReadError) as caught:
        read_frames(tmp_path / "missing.mp4", num_frames=1)
    assert (caught.value.path, caught.value.backend) == (str(tmp_path / "missing.mp4"), "pyav")
    assert caught.value.cause == "FileNotFoundError: No such file or directory"
    assert str(caught.value).endswith("; check that the file is whole, or try another backend")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoReadError, match="the file has no video stream"):
        read_frames(tmp_path / "sound.wav", num_frames=1)


def test_a_stream_without_times(tmp_path: Path) -> None:
    with pytest.raises(VideoReadError, match="packets carry no time stamps"):
        read_frames(make_video(tmp_path / "raw.h264"), num_frames=1)


def test_an_unknown_backend(clip: Path) -> None:
    message = "backend = 'opencv' is not known; pass one of torchcodec, decord, pyav, or None"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_frames(clip, num_frames=1, backend="opencv")


def test_a_backend_that_does_not_load(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(backend: str) -> None:
        raise RuntimeError(f"libavutil.so.58: cannot open\n  shared object file, for {backend}")

    explain_backend.cache_clear()
    monkeypatch.setattr(video_backends, "load_backend", fail)
    try:
        with pytest.raises(ImportError) as caught:
            read_frames(clip, num_frames=1, backend="torchcodec")
    finally:
        explain_backend.cache_clear()
    assert str(caught.value) == (
        "torchcodec does not load: RuntimeError: libavutil.so.58: cannot open shared object file, for torchcodec; "
        "pip install 'vidground-hf[video]', or backend=None"
    )


def test_requests(clip: Path) -> None:
    request = FrameRequest(source=str(clip), start_seconds=0.8, budget=FrameBudget(num_frames=4, size=768))
    frames = read_request(replace(request, pick=(0, 1), shuffle_seed=3))
    assert frames.indices.tolist() == list_indices(request).tolist() == [22, 27, 32, 37]
    assert frames.data.shape == (4, 24, 32, 3)
    assert show_frames(frames, request).indices.tolist() == [22, 27, 32, 37]
    content = replace(request, source="cell.mp4", content=clip.read_bytes())
    assert (read_request(content).source, list_indices(content).tolist()) == ("cell.mp4", [22, 27, 32, 37])


def test_shown_frames(clip: Path) -> None:
    request = FrameRequest(source="clip", budget=FrameBudget(num_frames=4))
    frames = replace(read_frames(clip, num_frames=4), source="clip")
    one = show_frames(frames, replace(request, pick=(0, 1)))
    assert (one.indices.tolist(), read_numbers(one.data)) == ([25], [25])
    assert one.pts_seconds == pytest.approx([1.0])
    shuffled = show_frames(frames, replace(request, shuffle_seed=0))
    order = replace(request, shuffle_seed=0).arrange(4)
    assert read_numbers(shuffled.data) == shuffled.indices.tolist() == [[5, 15, 25, 35][place] for place in order]
    assert shuffled.pts_seconds == pytest.approx([0.2, 0.6, 1.0, 1.4])  # the times of the places give nothing away


def test_numbers_out_of_range(clip: Path) -> None:
    with pytest.raises(ValueError, match="num_frames = 0 is out of range"):
        read_frames(clip, num_frames=0)


@pytest.mark.parametrize("name", ["b_frames.mp4", "open_gop.mp4", "hevc.mp4", "av1.mp4"])
def test_the_header_tells_what_the_packets_tell(tmp_path: Path, name: str) -> None:
    path = str(make_video(tmp_path / name, **FORMATS[name]))
    with open_container(path) as container:
        by_header = read_header_table(container, find_stream(container))
    with open_container(path) as container:
        by_packets = read_packet_table(container, find_stream(container))
    assert by_header is not None
    assert by_header.pts.tolist() == by_packets.pts.tolist()
    assert (by_header.end, by_header.num_stored) == (by_packets.end, by_packets.num_stored)


def test_names_that_look_like_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "take.mp4").rename(tmp_path / "take:2 #1?.mp4")
    monkeypatch.chdir(tmp_path)
    for backend in (name for name in BACKENDS if explain_backend(name) is None):
        assert read_numbers(read_frames("take:2 #1?.mp4", num_frames=1, backend=backend).data) == [20]


def test_a_playlist_fetches_nothing(tmp_path: Path) -> None:
    with serve_file(make_video(tmp_path / "part.ts").read_bytes()) as (address, sent):
        playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.6,\n{address}/clip.ts\n#EXT-X-ENDLIST\n"
        (tmp_path / "playlist.m3u8").write_text(playlist)
        with pytest.raises(VideoReadError):
            read_frames(tmp_path / "playlist.m3u8", num_frames=1)
    assert sent == []


@pytest.mark.parametrize(
    ("content", "cause"), [(b"", "the file is empty"), (b"<html>", "it begins with b'<html>', as")]
)
def test_bytes_that_are_no_video(content: bytes, cause: str) -> None:
    with pytest.raises(VideoReadError, match=re.escape(cause)):
        read_frames(content, num_frames=1)
