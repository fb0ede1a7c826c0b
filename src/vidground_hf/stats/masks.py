"""Masks as text (COCO run-length encodings and PNG files), read into arrays.

They are compared in `segmentation`.
"""

from __future__ import annotations

import json
import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Mask = NDArray[np.bool_]

_PNG_WITH_ID = re.compile(r"(?P<path>.*)#(?P<id>\d+)", re.DOTALL)
# Six bits a character from "0" on; the sixth says that the number goes on.
_COMPRESSED_COUNTS = re.compile("[0-o]*[0-O]")


def decode_mask(text: str | None) -> Mask | None:
    """Reads one mask.

    Args:
        text (`str`, *optional*): one of
            a COCO run-length encoding as JSON, `{"size": [height, width], "counts": ...}`, compressed or as a list;
            the path of a PNG file, whose pixels other than 0 are the object;
            such a path and `#<id>`, for the pixels of that value;
            an empty string or `None`, for a frame without the object.

    Returns:
        `bool[H, W]`, or `None` for a frame without the object.

    Raises:
        ValueError: for an encoding or an image that is not a mask.
        FileNotFoundError: when there is no such file.

    Example:
        >>> decode_mask('{"size": [2, 3], "counts": [1, 2, 3]}').astype(int).tolist()
        [[0, 1, 0], [1, 0, 0]]
    """
    if not text:
        return None
    if text.lstrip().startswith("{"):
        return _decode_run_lengths(text)
    match = _PNG_WITH_ID.fullmatch(text)
    with Image.open(match["path"] if match else text) as image:
        pixels = np.asarray(image)
    if pixels.ndim != 2:
        raise ValueError(
            f"Got an image with {pixels.shape[2]} channels in {text!r}; allowed are single-channel and palette "
            "images. Save the mask as one value per pixel."
        )
    return pixels == int(match["id"]) if match else pixels != 0


def _decode_run_lengths(text: str) -> Mask:
    encoding = json.loads(text)
    if not {"size", "counts"} <= encoding.keys():
        raise ValueError(
            f"Got an encoding with the keys {sorted(encoding)}; a COCO mask has 'size' ([height, width]) and "
            "'counts'. Pass one frame, as json.dumps writes it."
        )
    height, width = encoding["size"]
    counts = encoding["counts"]
    runs = _decompress_counts(counts) if isinstance(counts, str) else np.asarray(counts, dtype=np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(
            f"Got runs of {runs.sum()} pixels in all for a mask of {height} x {width} = {height * width}; they must "
            "cover it exactly. Check that size is [height, width] and that the counts are whole."
        )
    is_object = np.arange(len(runs)) % 2 == 1
    return np.repeat(is_object, runs).reshape(width, height).T


def _decompress_counts(counts: str) -> NDArray[np.int64]:
    """Reads COCO's compressed runs: numbers in groups of five bits, from the third on as a difference by two.

    See https://github.com/cocodataset/cocoapi, common/maskApi.c.
    """
    if not _COMPRESSED_COUNTS.fullmatch(counts):
        raise ValueError(
            f"Got the compressed counts {counts[:40]!r}; allowed are characters from '0' to 'o', the last one to 'O'. "
            "Check that the text was not cut or escaped twice."
        )
    groups = np.frombuffer(counts.encode("ascii"), dtype=np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(groups & 32 == 0)
    first = np.append(0, last[:-1] + 1)
    shift = 5 * (np.arange(len(groups)) - np.repeat(first, last - first + 1))
    runs = np.add.reduceat((groups & 31) << shift, first)
    runs -= np.where(groups[last] & 16, 32 << shift[last], 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs
