"""Which outcomes are allowed, and how bytes become text, JSON and damaged files.

Knows no target.
"""

from __future__ import annotations

import json
import linecache
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import vidground_hf

_PACKAGE = str(Path(vidground_hf.__file__).parent)


@contextmanager
def own_errors(*kinds: type[Exception]) -> Iterator[None]:
    """Lets errors of these kinds pass, if it is a `raise` of the package that raised them, with a message."""
    try:
        yield
    except kinds as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        line = linecache.getline(frame.filename, frame.lineno or 0).strip()
        if not (frame.filename.startswith(_PACKAGE) and line.startswith("raise") and str(error)):
            raise AssertionError(f"not an error of the package's own: {type(error).__name__}: {error}") from error


def read_text(data: bytes) -> str:
    """Bytes as text; those that are no UTF-8 become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


def read_json(data: bytes) -> Any:
    """Bytes as JSON; `None` for what is none."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def damage(content: bytes, data: bytes) -> bytes:
    """Damages a file as the first byte says: bits are flipped, it is cut off, or written over from a place on."""
    if not data or not content:
        return content
    kind, rest = data[0] % 3, data[1:]
    place = int.from_bytes(rest[:4], "little") % len(content)
    if kind == 1:
        return content[:place]
    if kind == 2:
        return content[:place] + rest[4:] + content[place + len(rest[4:]) :]
    damaged = bytearray(content)
    for start in range(0, len(rest) - 4, 5):
        place = int.from_bytes(rest[start : start + 4], "little") % len(content)
        damaged[place] ^= rest[start + 4]
    return bytes(damaged)
