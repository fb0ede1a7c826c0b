"""32 uniform frames of a video: `read_frames` beside bare torchcodec, decord and PyAV, on the same files.

Each decoder is used in the best way its documentation tells: torchcodec `get_frames_at`, decord `get_batch`, PyAV a
seek where a key frame lies on the way. All give the same frames in their stored size; a second figure of ours resizes
them for a model. A read is cold when the file's pages were dropped before it; rounds are alternated, medians told.
Prints one JSON line. `python benchmarks/frames_vs_decoders.py [SECONDS_OF_SHORT SECONDS_OF_LONG ROUNDS]`.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import av
import numpy as np

from vidground_hf.video import read_frames

NUM_FRAMES = 32
FRAME_RATE = 30
HEIGHT, WIDTH = 720, 1280
MODEL_PIXELS = 256 * 28 * 28
CODEC_OPTIONS = {"preset": "veryfast", "g": "250", "bf": "3", "crf": "26"}


def write_clip(path: Path, seconds: int) -> None:
    """A textured scene that pans unevenly, with noise, as H.264 with B frames and a key frame every 250 frames."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (45, 160, 3)).repeat(32, axis=0).repeat(32, axis=1)
    scene = (coarse * 0.8 + rng.integers(0, 50, coarse.shape)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=CODEC_OPTIONS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(seconds * FRAME_RATE):
            left = int(1900 + 1800 * np.sin(number / 90)) % (scene.shape[1] - WIDTH)
            top = int(300 + 300 * np.cos(number / 70)) % (scene.shape[0] - HEIGHT)
            frame = av.VideoFrame.from_ndarray(scene[top : top + HEIGHT, left : left + WIDTH].copy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def repeat_clip(source: Path, path: Path, times: int) -> None:
    """The same packets again and again."""
    with av.open(str(path), "w") as copy:
        stream = None
        for turn in range(times):
            with av.open(str(source)) as original:
                given = original.streams.video[0]
                stream = stream or copy.add_stream_from_template(given)
                for packet in original.demux(given):
                    if packet.pts is None or packet.dts is None:
                        continue
                    packet.pts += turn * given.duration
                    packet.dts += turn * given.duration
                    packet.stream = stream
                    copy.mux(packet)


def choose(count: int) -> list[int]:
    return [(2 * place + 1) * count // (2 * NUM_FRAMES) for place in range(NUM_FRAMES)]


def read_ours(path: str) -> int:
    return len(read_frames(path, num_frames=NUM_FRAMES, num_threads=1).data)


def read_ours_resized(path: str) -> int:
    return len(read_frames(path, num_frames=NUM_FRAMES, num_threads=1, size=MODEL_PIXELS).data)


def read_torchcodec(path: str) -> int:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, dimension_order="NHWC")
    return len(decoder.get_frames_at(choose(len(decoder))).data.numpy())


def read_torchcodec_approximately(path: str) -> int:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, dimension_order="NHWC", seek_mode="approximate")
    return len(decoder.get_frames_at(choose(len(decoder))).data.numpy())


def read_decord(path: str) -> int:
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    return len(reader.get_batch(choose(len(reader))).asnumpy())


def read_pyav(path: str) -> int:
    """Seeks where a key frame lies on the way, as a careful user would, and else goes on."""
    frames = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        step = int(1 / (stream.average_rate * stream.time_base))
        keys = [place for place, entry in enumerate(stream.index_entries) if entry.is_keyframe]
        reached, coming = -1, container.decode(stream)
        for place in choose(stream.frames):
            key = max(number for number in keys if number <= place)
            if key > reached:
                container.seek(stream.start_time + key * step, stream=stream)
                coming = container.decode(stream)
            frames.append(next(frame for frame in coming if frame.pts >= stream.start_time + place * step))
            frames[-1] = frames[-1].to_ndarray(format="rgb24")
            reached = place
    return len(np.stack(frames))


READERS: dict[str, Callable[[str], int]] = {
    "ours": read_ours,
    "ours_resized": read_ours_resized,
    "torchcodec": read_torchcodec,
    "torchcodec_approximate": read_torchcodec_approximately,
    "decord": read_decord,
    "pyav": read_pyav,
}


def drop_pages(path: Path) -> None:
    """Asks the system to forget the file's content."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(path: Path, rounds: int, is_cold: bool, pool: ProcessPoolExecutor, num_workers: int) -> dict[str, float]:
    """Median seconds of a clip of each reader; with two workers each reads a clip, and a clip's share is told."""
    taken: dict[str, list[float]] = {name: [] for name in READERS}
    for _ in range(rounds):
        for name, read in READERS.items():
            if is_cold:
                drop_pages(path)
            started = time.perf_counter()
            assert list(pool.map(read, [str(path)] * num_workers)) == [NUM_FRAMES] * num_workers
            taken[name].append((time.perf_counter() - started) / num_workers)
    return {name: round(median(seconds), 3) for name, seconds in taken.items()}


def main(short_seconds: int = 60, long_seconds: int = 600, rounds: int = 3) -> None:
    figures: dict[str, object] = {"frames": NUM_FRAMES, "rounds": rounds, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        short, long = Path(folder) / "short.mp4", Path(folder) / "long.mp4"
        write_clip(short, short_seconds)
        repeat_clip(short, long, long_seconds // short_seconds)
        for num_workers in (1, 2):
            with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
                for read in READERS.values():  # imports are not measured
                    list(pool.map(read, [str(short)] * num_workers))
                for path, seconds in ((short, short_seconds), (long, long_seconds)):
                    for is_cold in (True, False):
                        found = measure(path, rounds, is_cold, pool, num_workers)
                        fastest = min(value for name, value in found.items() if not name.startswith("ours"))
                        name = f"{seconds}s_{'cold' if is_cold else 'warm'}_{num_workers}_workers"
                        figures[name] = {**found, "ours_to_fastest": round(fastest / found["ours"], 2)}
        figures["megabytes"] = [round(path.stat().st_size / 1e6, 1) for path in (short, long)]
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
