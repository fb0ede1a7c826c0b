"""Which decoders there are, which of them really load, and what they raise.

Nothing is decoded here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from av import FFmpegError
from numpy.typing import NDArray

from vidground_hf.video_errors import VideoReadError, describe_cause
from vidground_hf.video_index import FrameTable
from vidground_hf.video_sources import VideoSource

BACKENDS = ("torchcodec", "decord", "pyav")
DEFAULT_BACKEND = "pyav"
"""It is there wherever this package is, and the fastest here (docs/design/video.md)."""

Decode = Callable[[VideoSource, FrameTable, NDArray[np.int64], int], Iterator[NDArray[np.uint8]]]


def find_backend(backend: str | None) -> str:
    """The decoder that was asked for, or the default one, once it has loaded.

    Raises:
        `ValueError`: for an unknown one.
        `ImportError`: for one that does not load, with the cause.
    """
    backend = DEFAULT_BACKEND if backend is None else backend
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r} is not known; pass one of {', '.join(BACKENDS)}, or None")
    cause = explain_backend(backend)
    if cause is not None:
        raise ImportError(f"{backend} does not load: {cause}; pip install 'vidground-hf[video]', or backend=None")
    return backend


@cache
def explain_backend(backend: str) -> str | None:
    """Why a decoder does not load, in one line; `None` where it does."""
    try:
        load_backend(backend)
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec: RuntimeError where FFmpeg's libraries miss
        return describe_cause(error)[:300]
    return None


def load_backend(backend: str) -> Decode:
    """The function that decodes."""
    decode: Decode = import_module(f"vidground_hf.video_{backend}").decode_frames
    return decode


FAULTS = (FFmpegError, RuntimeError, ValueError, IndexError, OSError, EOFError)
"""What the libraries raise about a file."""


@contextmanager
def report_faults(path: str, backend: str | None) -> Iterator[Any]:
    """Turns what libraries raise about a file into `VideoReadError`."""
    try:
        yield
    except FAULTS as error:
        if isinstance(error, VideoReadError):
            raise
        raise VideoReadError(path, backend, describe_cause(error)) from error
