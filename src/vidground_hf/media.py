"""Which frames of which video a prompt shows: words only.

Nothing is opened or decoded here; that is `video.py`'s.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

DEFAULT_NUM_FRAMES = 32
DEFAULT_MAX_PIXELS = 256 * 28 * 28
"""Of a frame: what Video-R1 (arXiv 2503.21776) evaluates with, and VidGround after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameBudget:
    """How much of a video is shown.

    Args:
        num_frames (`int`, *optional*): spread evenly over the video; defaults to 32 where `fps` is not given.
        fps (`float`, *optional*): frames a second instead.
        max_frames (`int`, *optional*): goes with `fps`; a video that would take more gets so many, spread evenly.
        size (`tuple[int, int]` or `int`, *optional*, defaults to 200704): height and width in pixels, or the most
            pixels a frame may have (its shape is kept, and it is never enlarged); `None` leaves frames as they are.
        jitter_seed (`int`, *optional*): draws each frame from its stretch of the video instead of taking the middle.
        backend (`str`, *optional*): who decodes, one of `video.BACKENDS`; PyAV when left out.

    Raises:
        `ValueError`: for settings out of range or at odds.

    Example:
        >>> FrameBudget().num_frames, FrameBudget(fps=1.0).num_frames
        (32, None)
    """

    num_frames: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    size: tuple[int, int] | int | None = DEFAULT_MAX_PIXELS
    jitter_seed: int | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        if self.num_frames is None and self.fps is None:
            object.__setattr__(self, "num_frames", DEFAULT_NUM_FRAMES)
        if self.num_frames is not None and self.fps is not None:
            raise ValueError(f"num_frames = {self.num_frames} and fps = {self.fps} are both given; pass one of them")
        if self.max_frames is not None and self.fps is None:
            raise ValueError(f"max_frames = {self.max_frames} goes with fps; pass num_frames = {self.max_frames}")
        for name, value in (("num_frames", self.num_frames), ("max_frames", self.max_frames)):
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value} is out of range; it is at least 1")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise ValueError(f"fps = {self.fps} is out of range; it is above 0")
        sides = self.size if isinstance(self.size, tuple) else (self.size or 1,)
        if min(sides) < 1 or self.size == 0:
            raise ValueError(f"size = {self.size} is out of range; pass (height, width) or the most pixels of a frame")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRequest:
    """The frames that one prompt shows.

    Attributes:
        source (`str`): path or URL of the video, or what it is called where `content` holds it.
        content (`bytes`, `memoryview` or `pyarrow.Buffer`, *optional*): the bytes of the file.
        start_seconds (`float`, *optional*), end_seconds (`float`, *optional*): the half-open part that is shown.
        frame_rate (`float`, *optional*): images a second, where the source is a folder of images.
        budget (`FrameBudget`): which frames of it, and how large.
        pick (`tuple[int, int]`, *optional*): `(i, k)` shows one frame, the i-th of k that are spread over those.
        shuffle_seed (`int`, *optional*): shows them in an order drawn from this seed and the source.
    """

    source: str
    content: Any = field(default=None, repr=False, compare=False)
    start_seconds: float | None = None
    end_seconds: float | None = None
    frame_rate: float | None = None
    budget: FrameBudget = FrameBudget()
    pick: tuple[int, int] | None = None
    shuffle_seed: int | None = None

    @property
    def clip(self) -> FrameRequest:
        """All sampled frames in their order (`FrameRequest`): what every view of one clip is cut from."""
        return replace(self, pick=None, shuffle_seed=None)

    @property
    def clip_name(self) -> tuple[FrameRequest, int]:
        """What tells this clip from others of a run (`tuple`); bytes go by their place in memory."""
        return self.clip, id(self.content)

    def arrange(self, num_frames: int) -> list[int]:
        """Which of the sampled frames are shown, in which order.

        Args:
            num_frames (`int`): how many were sampled, at least 1.

        Returns:
            `list[int]`: positions among them; a shuffled order is never the true one where there are two or more.

        Example:
            >>> FrameRequest(source="a.mp4", pick=(0, 1)).arrange(8)
            [4]
            >>> FrameRequest(source="a.mp4", shuffle_seed=0).arrange(4)
            [2, 1, 0, 3]
        """
        if self.pick is not None:
            place, count = self.pick
            return [min((2 * place + 1) * num_frames // (2 * count), num_frames - 1)]
        order = list(range(num_frames))
        if self.shuffle_seed is None or num_frames == 1:
            return order
        digest = hashlib.sha256(f"{self.shuffle_seed}\x1f{self.source}".encode("utf-8", "surrogatepass")).digest()
        rng = np.random.default_rng(list(digest))
        while (shuffled := rng.permutation(num_frames).tolist()) == order:
            pass
        return list(shuffled)
