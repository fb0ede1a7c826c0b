"""What a processor's tensors do not tell of the media of a row: when its frames are, how long and how large it is.

Pixels and features are not here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaFacts:
    """The video or image that one row of a batch shows; a row that shows none, or several, has `None` instead.

    A batch goes with a list of them, `media: list[MediaFacts | None]`, one for each row.

    Args:
        times_seconds (`tuple[float, ...]`): F times, one for each frame that the processor was given, in order, from
            the start of the clip that is shown; `(0.0,)` for an image.
        duration_seconds (`float`): of the clip that is shown; 0 for an image.
        height (`int`): of the video or image in pixels, before the processor resized it; boxes and masks are given in
            these.
        width (`int`): the same.
        sam_frame (`int`, *optional*, defaults to 0): which of the frames is in `sam_pixel_values`, for a SAM to draw.

    Raises:
        `ValueError`: for no frames, or numbers out of range.

    Example:
        >>> MediaFacts(times_seconds=(0.5, 1.5), duration_seconds=2.0, height=720, width=1280).is_image
        False
    """

    times_seconds: tuple[float, ...]
    duration_seconds: float
    height: int
    width: int
    sam_frame: int = 0

    def __post_init__(self) -> None:
        if not self.times_seconds or min(self.times_seconds) < 0 or self.duration_seconds < 0:
            raise ValueError(
                f"times_seconds = {self.times_seconds} with duration_seconds = {self.duration_seconds} is out of "
                "range; pass the time of each frame shown, at least one, from the start of the clip, and its length"
            )
        if min(self.height, self.width) < 1:
            raise ValueError(
                f"height = {self.height} and width = {self.width} are out of range; pass the size in pixels, from 1 on"
            )
        if not 0 <= self.sam_frame < len(self.times_seconds):
            raise ValueError(
                f"sam_frame = {self.sam_frame} is none of the {len(self.times_seconds)} frames; pass the place of "
                "one, from 0 on"
            )

    @property
    def is_image(self) -> bool:
        """Whether it has no length (`bool`)."""
        return self.duration_seconds == 0
