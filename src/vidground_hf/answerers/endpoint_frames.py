"""The frames that prompts show, as parts of a chat message: JPEG images, or one mp4 video.

Sends nothing, and does not decide which frames are shown; that is `media.py`'s.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, get_args

import av
import numpy as np
from PIL import Image

from vidground_hf.answerers.base import Answer
from vidground_hf.frame_loading import FrameLoader
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.prompts import Prompt
from vidground_hf.video import VideoReadError, show_frames

FramesAs = Literal["images", "video"]
FRAMES_AS: tuple[str, ...] = get_args(FramesAs)
# Our guesses: hardly visible, at a tenth of the bytes or less.
JPEG_QUALITY = 90
H264_CRF = 18
H264_PRESET = "veryfast"
_MILLISECOND = Fraction(1, 1000)
TEST_FRAMES = 2
_TEST_SIDE = 224  # our guess: a side that every server takes


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, and what is sent with it.

    Attributes:
        prompt (`Prompt`): its text.
        parts (`list[dict]`): its frames, as parts of the message; empty for a blind prompt.
        num_frames (`int`, *optional*): how many frames they hold.
        decoder (`str`, *optional*): which library decoded them.
    """

    prompt: Prompt
    parts: list[dict[str, Any]] = field(default_factory=list, repr=False)
    num_frames: int | None = None
    decoder: str | None = None


class Sight:
    """The frames of one run: read ahead in other processes, encoded in a thread, held for who asks and no longer.

    Args:
        prompts (`Sequence[Prompt]`): in the order in which they will be asked for, those of a clip in a row.
        frames_as (`str`): `"images"` or `"video"`.
    """

    def __init__(self, prompts: Sequence[Prompt], frames_as: FramesAs) -> None:
        self.frames_as = frames_as
        # A row's own bytes go by a name that another row may have as well.
        clips = {prompt.frames.clip_name: prompt.frames.clip for prompt in prompts if prompt.frames is not None}
        self._names = iter(clips)
        self._loader = FrameLoader(num_workers=2, timeout_seconds=60.0, max_ahead=4)
        self._reads = self._loader.load(list(clips.values()))
        self._name: Any = None
        self._read: Any = None
        self._last: tuple[FrameRequest, Question] | None = None
        self._refusals: dict[FrameBudget | None, str] = {}
        self._refusal: str | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vidground-frames")

    async def look(self, prompt: Prompt) -> Question | Answer:
        """Puts the frames of a prompt beside it; an error where they cannot be read, or the server refused others."""
        if prompt.frames is None:
            return Question(prompt)
        reason = self._refusal or self._refusals.get(_find_budget(prompt.frames))
        if reason is not None:
            return Answer(text=None, error=reason)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._show, prompt, prompt.frames)

    def refuse(self, reason: str, prompt: Prompt | None = None) -> None:
        """Shows no more prompts, or none that would show as much as this one."""
        if prompt is None or prompt.frames is None:
            self._refusal = reason
        else:
            self._refusals[_find_budget(prompt.frames)] = reason

    async def close(self) -> None:
        """Ends the processes that read ahead, whatever they are doing."""
        await asyncio.to_thread(self._loader.__exit__, None, None, None)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _show(self, prompt: Prompt, request: FrameRequest) -> Question | Answer:
        name = request.clip_name
        while self._name != name:
            self._name, self._read, self._last = next(self._names), next(self._reads), None
        if isinstance(self._read, VideoReadError):
            return Answer(text=None, error=str(self._read))
        if self._last is None or self._last[0] != request:
            shown = show_frames(self._read, request)
            parts = encode_frames(shown.data, shown.pts_seconds, self.frames_as)
            self._last = request, Question(prompt, parts, len(shown.data), shown.backend)
        known = self._last[1]
        return Question(prompt, known.parts, known.num_frames, known.decoder)


def _find_budget(request: FrameRequest) -> FrameBudget | None:
    """What bounds the number of frames; nothing for a single one."""
    return request.budget if request.pick is None else None


def make_test_parts(frames_as: FramesAs) -> list[dict[str, Any]]:
    """Grey frames, as parts of a message."""
    data = np.full((TEST_FRAMES, _TEST_SIDE, _TEST_SIDE, 3), 128, np.uint8)
    return encode_frames(data, np.arange(float(TEST_FRAMES)), frames_as)


def encode_frames(data: np.ndarray, pts_seconds: np.ndarray, frames_as: FramesAs) -> list[dict[str, Any]]:
    """Encodes frames as parts of a chat message.

    Args:
        data (`np.ndarray`): uint8 `[N, H, W, 3]`, RGB.
        pts_seconds (`np.ndarray`): `[N]`, growing; used for a video.
        frames_as (`str`): `"images"` for N `image_url` parts, `"video"` for one `video_url` part.

    Returns:
        `list[dict]`: the parts, with data URLs.

    Example:
        >>> parts = encode_frames(np.zeros((2, 8, 8, 3), np.uint8), np.arange(2.0), "images")
        >>> len(parts), parts[0]["type"], parts[0]["image_url"]["url"][:23]
        (2, 'image_url', 'data:image/jpeg;base64,')
    """
    if frames_as == "images":
        urls = [_make_url("image/jpeg", _encode_jpeg(frame)) for frame in data]
        return [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"type": "video_url", "video_url": {"url": _make_url("video/mp4", _encode_mp4(data, pts_seconds))}}]


def describe_encoding(frames_as: FramesAs) -> Mapping[str, Any]:
    """What encoding does to pixels (`Mapping`), for the key of an answer."""
    if frames_as == "images":
        return {"frames_as": "images", "jpeg_quality": JPEG_QUALITY}
    return {"frames_as": "video", "codec": "h264", "crf": H264_CRF, "preset": H264_PRESET}


def _make_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _encode_jpeg(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _encode_mp4(data: np.ndarray, pts_seconds: np.ndarray) -> bytes:
    num_rows, num_columns = (-side % 2 for side in data.shape[1:3])  # yuv420p has even sides
    data = np.pad(data, ((0, 0), (0, num_rows), (0, num_columns), (0, 0)), mode="edge")
    places = np.arange(len(data))
    ticks = np.maximum.accumulate(np.round(pts_seconds * 1000).astype(int) - places) + places  # growing
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", options={"crf": str(H264_CRF), "preset": H264_PRESET})
        stream.height, stream.width, stream.pix_fmt = data.shape[1], data.shape[2], "yuv420p"
        stream.codec_context.time_base = stream.time_base = _MILLISECOND
        stream.codec_context.thread_count = 1
        for pixels, tick in zip(data, ticks - ticks[0], strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = int(tick), _MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()
