"""Names what a prompt shows by content, frames and size, so that equal pixels have equal names.

Nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import fsspec
from huggingface_hub.errors import HfHubHTTPError

from vidground_hf.media import FrameRequest
from vidground_hf.video import VideoReadError, list_indices
from vidground_hf.video_errors import describe_cause
from vidground_hf.video_pictures import list_pictures

_SAMPLING_VERSION = 1  # another one for every change in which frames a budget takes
Remember = Callable[[str, Callable[[], str]], str]
_TAGS = ("blob_id", "ETag", "etag", "Last-Modified", "LastModified", "mtime")
"""What file systems call that which changes with a file; the first that is there counts."""
# Of the HTTP library that huggingface_hub uses, which is another one from version 2 on.
_HubTrouble: type[Exception] = HfHubHTTPError.__bases__[0]


def identify_frames(request: FrameRequest, remember: Remember) -> dict[str, Any]:
    """Says what a request shows.

    Args:
        request (`FrameRequest`): the frames.
        remember (`Callable`): gives back what it keeps under a name, and calls a function for what it does not keep
            yet. Asked for what takes time: the hash of a file, by its path, size and time of change, and which frames
            are sampled of it. `AnswerCache.remember` is one.

    Returns:
        `dict`: JSON: `content`, a hash of the file or what its server calls it; `indices` of the frames in the order
        shown; their `size`; the `part` of the video, from whose start a model may count time; and the `frame_rate` of
        images. What cannot be read now has its `source` and a name that is never given again: nothing is known of
        what it would show.

    Example:
        >>> list(identify_frames(FrameRequest(source="no such file.mp4"), lambda name, find: find()))
        ['unreadable', 'attempt']
    """
    try:
        content = identify_content(request, remember)
        spec = {"start": request.start_seconds, "end": request.end_seconds, **asdict(request.budget)}
        if request.frame_rate is not None:
            spec["frame_rate"] = request.frame_rate
        del spec["size"], spec["backend"]  # neither changes which frames these are
        name = json.dumps([_SAMPLING_VERSION, content, spec], sort_keys=True)
        indices = json.loads(remember(name, lambda: json.dumps(list_indices(request.clip).tolist())))
    except (OSError, ValueError, VideoReadError):
        return {"unreadable": request.source, "attempt": uuid4().hex}
    part = (request.start_seconds or 0.0, request.end_seconds)
    return {
        "content": content,
        "indices": [indices[position] for position in request.arrange(len(indices))],
        "size": request.budget.size,
        **({} if part == (0.0, None) else {"part": part}),
        **({} if request.frame_rate is None else {"frame_rate": request.frame_rate}),
    }


def identify_content(request: FrameRequest, remember: Remember) -> str:
    """A hash of the bytes of a video, or what its server knows it by.

    Raises:
        `OSError`, `ValueError`: when it is not there, or its address is none.
    """
    if request.content is not None:
        # Rows that hold bytes alone are already named by them.
        return request.source if request.source.startswith("sha256:") else _hash(request.content)
    source = request.source.removeprefix("file://")
    if "://" in source:
        return _identify_remote(source)
    path = Path(source).resolve()
    files = list_pictures(path) if path.is_dir() else [path]
    names = []
    for file in files:
        about = file.stat()
        name = json.dumps(["file", str(file), about.st_size, about.st_mtime_ns])  # escapes what is no UTF-8
        names.append(remember(name, partial(_hash_file, file)))
    return names[0] if len(names) == 1 else _hash("\n".join(names).encode())


def _identify_remote(url: str) -> str:
    from aiohttp import ClientError  # slow to import

    try:
        filesystem, path = fsspec.url_to_fs(url)
        about = filesystem.info(path)
    except (ClientError, _HubTrouble) as error:
        raise OSError(describe_cause(error)) from error
    content = next((about[tag] for tag in _TAGS if about.get(tag)), None)
    parts = urlsplit(url)
    # The Hub's blob id is a hash. Elsewhere a tag says something only together with the address, whose query may be a
    # signature that is another one every time; without a tag it may be all that tells two videos apart.
    if parts.scheme == "hf" and content:
        return f"hf:{content}"
    content = content or f"{about.get('size')} {_hash(url.encode('utf-8', 'surrogatepass'))}"
    return f"{parts.scheme}://{parts.hostname}{parts.path}#{content}"


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _hash(content: Any) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
