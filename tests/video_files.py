"""Small videos whose every frame says which one it is, for tests."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

NUM_BITS = 8
MILLISECOND = Fraction(1, 1000)


def draw_frame(number: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """Bars from left to right, bright for the ones of the number in binary, on top of a smooth ramp."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 1] = np.linspace(0, 200, height, dtype=np.uint8)[:, None]
    for bit in range(NUM_BITS):
        first, last = bit * width // NUM_BITS, (bit + 1) * width // NUM_BITS
        frame[: height // 2, first:last] = 255 if number >> bit & 1 else 0
    return frame


def read_number(frame: NDArray[np.uint8]) -> int:
    """The number that a frame shows."""
    height, width = frame.shape[:2]
    centres = [(2 * bit + 1) * width // (2 * NUM_BITS) for bit in range(NUM_BITS)]
    row = frame[: max(height // 3, 1)].astype(float).mean(axis=(0, 2))
    return sum(1 << bit for bit, centre in enumerate(centres) if row[centre] > 127)


def read_numbers(data: NDArray[np.uint8]) -> list[int]:
    return [read_number(frame) for frame in data]


def make_video(
    path: Path,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    num_frames: int = 40,
    shape: tuple[int, int] = (48, 64),
    pts_milliseconds: list[int] | None = None,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    muxer_options: dict[str, str] | None = None,
) -> Path:
    """A video of 25 frames a second, or with these time stamps."""
    with av.open(str(path), "w", options=muxer_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = shape
        stream.pix_fmt = pixels
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        times = pts_milliseconds or [40 * number for number in range(num_frames)]
        stream.codec_context.time_base = MILLISECOND if pts_milliseconds else Fraction(1, 25)
        for number, moment in enumerate(times):
            frame = av.VideoFrame.from_ndarray(draw_frame(number, *shape), format="rgb24").reformat(format=pixels)
            frame.time_base = stream.codec_context.time_base
            frame.pts = moment if pts_milliseconds else moment // 40
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


class RangeHandler(BaseHTTPRequestHandler):
    """Serves one file in parts, as asked, and counts what it sends; `/secret` wants a login."""

    protocol_version = "HTTP/1.1"

    def __init__(self, content: bytes, sent: list[int], *arguments: object) -> None:
        self.content, self.sent = content, sent
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *arguments: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def _answer(self, send_body: bool) -> None:
        if not self.path.startswith("/clip"):
            self.send_error(403)
            return
        asked = self.headers.get("Range")
        first, last = 0, len(self.content) - 1
        if asked is not None:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
        body = self.content[first : last + 1]
        self.send_response(200 if asked is None else 206)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        if asked is not None:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        self.end_headers()
        if send_body:
            self.sent.append(len(body))
            self.wfile.write(body)


@contextmanager
def serve_file(content: bytes) -> Iterator[tuple[str, list[int]]]:
    """The address of a local server of one file, and the sizes of what it has sent."""
    sent: list[int] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(RangeHandler, content, sent))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", sent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
