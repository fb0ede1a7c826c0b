"""Still images as videos, and the one way in which every frame is resized.

Video files are not opened here.
"""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from vidground_hf.video_index import FrameTable

Pixels = NDArray[np.uint8]
Size = tuple[int, int] | int | None
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def holds_picture(head: bytes) -> bool:
    """Whether a file that begins so is a JPEG, PNG or WebP; an animated GIF is a video.

    Args:
        head (`bytes`): the first 12 bytes or more.

    Example:
        >>> holds_picture(b"\\x89PNG\\r\\n" + bytes(10))
        True
    """
    return head.startswith((b"\xff\xd8\xff", b"\x89PNG")) or (head[:4], head[8:12]) == (b"RIFF", b"WEBP")


def open_picture(file: Any) -> Pixels:
    """A still image, upright; the first frame of an animated one.

    Args:
        file (`Path`, `str` or file object): of an image that Pillow knows.

    Returns:
        `uint8[H, W, 3]`: RGB.

    Raises:
        `OSError`: for what Pillow does not know, or a file that breaks off.
    """
    with Image.open(file) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))


def list_pictures(folder: Path) -> list[Path]:
    """The images in a folder, by name, with numbers in names taken as numbers.

    Args:
        folder (`Path`): its own images count, not those of folders in it.

    Raises:
        `ValueError`: for a folder without any.
    """
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES]
    if not found:
        raise ValueError(f"the folder holds no image ({', '.join(PICTURE_SUFFIXES)})")
    return sorted(found, key=lambda path: [int(part) if part.isdecimal() else part for part in split_name(path.name)])


def split_name(name: str) -> list[str]:
    """A name cut into text and numbers, in turns.

    Example:
        >>> split_name("frame10.jpg")
        ['frame', '10', '.jpg']
    """
    return re.split(r"(\d+)", name)


def index_pictures(num_pictures: int, frame_rate: float | None) -> FrameTable:
    """The table of images that follow one another at an even pace.

    Args:
        num_pictures (`int`): at least 1.
        frame_rate (`float`, *optional*): images a second, above 0.

    Raises:
        `ValueError`: where it is missing or out of range.
    """
    if frame_rate is None:
        raise ValueError("a folder of images has no times; say frame_rate, images a second")
    if not 0 < frame_rate < float("inf"):
        raise ValueError(f"frame_rate = {frame_rate} is out of range; it is above 0")
    pts = np.arange(num_pictures, dtype=np.int64)
    time_base = 1 / Fraction(frame_rate).limit_denominator(1001)
    return FrameTable(pts, num_pictures, time_base, 0, pts, num_pictures, 0)


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
    """A picture in the size it gets, by Pillow's bicubic filter, which looks at all the pixels that it merges.

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
