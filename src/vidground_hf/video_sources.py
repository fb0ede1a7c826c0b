"""Turns whatever names a video into something that a decoder can open.

Nothing is decoded here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from fsspec.core import url_to_fs

from vidground_hf.video_errors import describe_cause, hide_secrets

REMOTE_BLOCK_BYTES = 256 * 1024
"""What one request to a remote file fetches: our guess between the size of a header and that of a group of frames."""


@dataclass(frozen=True, slots=True)
class VideoSource:
    """A video that can be opened, again if need be.

    Attributes:
        name (`str`): what it is called in messages; no secrets.
        handle (`str` or file object): a local path, or a seekable binary file.
    """

    name: str
    handle: Any

    def rewind(self) -> Any:
        """The handle, at its beginning where it is a file object."""
        if not isinstance(self.handle, str):
            self.handle.seek(0)
        return self.handle

    def read_head(self, num_bytes: int) -> bytes:
        """The first bytes."""
        if isinstance(self.handle, str):
            with open(self.handle, "rb") as file:
                return file.read(num_bytes)
        return bytes(self.rewind().read(num_bytes))


@contextmanager
def open_source(source: Any, name: str | None = None) -> Iterator[VideoSource]:
    """A source that can be opened by a decoder; files opened for it are closed at the end.

    Args:
        source (`str`, `Path`, `bytes`, `memoryview`, `pyarrow.Buffer`, `dict`, file object or decoder): a local path,
            an URL that fsspec knows, the bytes of a file, an undecoded cell of a `datasets.Video` column
            (`{"bytes", "path"}`) or a decoded one, or a seekable binary file.
        name (`str`, *optional*): what to call it in messages.

    Raises:
        `TypeError`: for anything else.
        `OSError`: where a file cannot be opened.
    """
    source, name = unwrap_cell(source, name)
    if isinstance(source, (bytes, bytearray, memoryview, pa.Buffer)):
        buffer = source if isinstance(source, pa.Buffer) else pa.py_buffer(source)
        yield VideoSource(hide_secrets(name) if name else f"<{buffer.size} bytes>", pa.BufferReader(buffer))
    elif isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if "://" in path and not path.startswith("file://"):
            with open_url(path) as file:
                yield VideoSource(hide_secrets(name or path), file)
        else:
            path = path.removeprefix("file://")
            with open(path, "rb"):  # the operating system's own words for what is missing or forbidden
                pass
            # An absolute path is never taken for a protocol, as "take:2.mp4" would be.
            yield VideoSource(hide_secrets(name or path), os.path.abspath(path))
    elif hasattr(source, "read") and hasattr(source, "seek"):
        yield VideoSource(hide_secrets(name or str(getattr(source, "name", "<file object>"))), source)
    else:
        raise TypeError(
            f"a video of type {type(source).__name__} is not known; pass a path, an URL, bytes, a file opened in "
            "binary mode, or a cell of a Video column"
        )


@contextmanager
def open_url(url: str) -> Iterator[Any]:
    """A file object that fetches the blocks that are read of it, and keeps those used last.

    Raises:
        `OSError`: for what goes wrong on the way, while it is open too.
    """
    from aiohttp import ClientError  # slow to import
    from huggingface_hub.errors import HfHubHTTPError

    hub_trouble: type[Exception] = HfHubHTTPError.__bases__[0]  # of the HTTP library that huggingface_hub uses
    files, path = url_to_fs(url)
    try:
        with files.open(path, "rb", block_size=REMOTE_BLOCK_BYTES, cache_type="blockcache") as file:
            yield file
    except (ClientError, hub_trouble) as error:
        raise OSError(describe_cause(error)) from error


def unwrap_cell(source: Any, name: str | None) -> tuple[Any, str | None]:
    """The path or bytes in a cell of a `datasets.Video` column, decoded or not, and its name; others as they are."""
    cell = getattr(source, "_hf_encoded", source)
    if not isinstance(cell, dict):
        return source, name
    path, content = cell.get("path"), cell.get("bytes")
    if path is None and content is None:
        raise TypeError("a video cell holds neither path nor bytes; pass one with either")
    return (path, name) if content is None else (content, name or path)


def name_source(source: Any) -> str:
    """What to call a source that was not opened."""
    source, name = unwrap_cell(source, None)
    if isinstance(source, (str, Path)):
        return hide_secrets(str(source))
    return hide_secrets(name or f"<{type(source).__name__}>")
