"""Still images as videos, and the one way in which every frame is resized.

Nothing is known here of time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
Size = tuple[int, int] | int | None


def holds_picture(head: bytes) -> bool:
    """Whether a file that begins so is a JPEG, PNG or WebP; an animated GIF is a video.

    Args:
        head (`bytes`): the first 16 bytes or more.

    Example:
        >>> holds_picture(b"\\x89PNG\\r\\n" + bytes(10))
        True
    """
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG")) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")


def fit_size(height: int, width: int, size: Size) -> tuple[int, int]:
    """Height and width that a frame gets.

    Args:
        height (`int`), width (`int`): of the frame, in pixels.
        size (`tuple[int, int]` or `int`, *optional*): height and width, or the most pixels; a frame keeps its shape
            under the latter, up to whole pixels, and is never enlarged.

    Example:
        >>> fit_size(720, 1280, 200_704)
        (336, 597)
    """
    if isinstance(size, tuple):
        return size
    if size is None or height * width <= size:
        return height, width
    scale = (size / (height * width)) ** 0.5
    return max(1, min(int(height * scale), size)), max(1, min(int(width * scale), size))


def resize_picture(picture: Pixels, size: Size) -> Pixels:
    """A picture in the size it gets, smoothed by Pillow's bicubic filter, which looks at all pixels it merges.

    Args:
        picture (`uint8[H, W, 3]`): RGB.
        size (`tuple[int, int]` or `int`, *optional*): as `fit_size` takes it.

    Returns:
        `uint8[H, W, 3]`: RGB.
    """
    height, width = fit_size(picture.shape[0], picture.shape[1], size)
    if (height, width) == picture.shape[:2]:
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))
