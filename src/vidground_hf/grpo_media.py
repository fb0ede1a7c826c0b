"""What a training row shows beside its text: part of a video, or images; and the same row under another view.

Nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from datasets import Video

from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.video_sources import unwrap_cell

Row = Mapping[str, Any]
RowView = Literal["video", "text", "wrong_video"]
MEDIA_COLUMNS = ("video", "start_seconds", "end_seconds", "images", "image")


@dataclass(frozen=True, slots=True)
class Media:
    """What one row shows; equal where the same is shown.

    Attributes:
        name (`Hashable`): tells it from others; bytes and images go by their digest.
        request (`FrameRequest`, *optional*): the frames of a video.
        images (`tuple`): or images, as the processor takes them.
    """

    name: Hashable
    request: FrameRequest | None = field(default=None, compare=False)
    images: tuple[Any, ...] = field(default=(), compare=False)


def read_media(row: Row, budget: FrameBudget) -> Media | None:
    """Reads what a row shows.

    Args:
        row (`Mapping`): `video` (path, URL, bytes or cell of a `datasets.Video` column; `start_seconds` and
            `end_seconds` beside it show a part), or `images` (`list` of PIL images or paths), or `image`.
        budget (`FrameBudget`): of the video.

    Returns:
        `Media`, or `None` for a row of text.

    Raises:
        `ValueError`: for a row with both.
        `TypeError`: for a video that is neither path nor bytes.

    Example:
        >>> read_media({"video": "a.mp4"}, FrameBudget(num_frames=4)).request.source
        'a.mp4'
        >>> read_media({"video": None}, FrameBudget()) is None
        True
    """
    video = row.get("video")
    images = list(row.get("images") or [])
    if row.get("image") is not None:
        images.append(row["image"])
    if video is not None and images:
        raise ValueError(f"row {row.get('id')!r} has a video and {len(images)} images; give it one of the two")
    if video is not None:
        return _name_video(video, row, budget)
    if images:
        return Media(("images", *map(_digest_image, images)), images=tuple(images))
    return None


def view_rows(rows: Sequence[Row], view: RowView, budget: FrameBudget) -> list[Row]:
    """The rows as a view shows them.

    Args:
        rows (`Sequence[Mapping]`): N rows.
        view (`"video"`, `"text"` or `"wrong_video"`): as they are; without what they show; or each with what the next
            row of the same kind (video or images) shows that is not the same.
        budget (`FrameBudget`): of the videos.

    Returns:
        `list[Mapping]`: N rows in their order.

    Raises:
        `ValueError`: for another view, or when a wrong video is asked for and all rows show the same.

    Example:
        >>> rows = [{"video": "a.mp4"}, {"video": "b.mp4"}, {"video": None}]
        >>> [row["video"] for row in view_rows(rows, "wrong_video", FrameBudget())]
        ['b.mp4', 'a.mp4', None]
    """
    if view == "video":
        return list(rows)
    if view == "text":
        return [{key: value for key, value in row.items() if key not in MEDIA_COLUMNS} for row in rows]
    if view != "wrong_video":
        raise ValueError(f"view = {view!r} is not known; pass 'video', 'text' or 'wrong_video'")
    shown = [read_media(row, budget) for row in rows]
    donors: dict[Media, Row] = {}
    for media, row in zip(shown, rows, strict=True):
        if media is not None:
            donors.setdefault(media, row)
    wrong: dict[Media, Row] = {}
    for is_video in (True, False):
        kind = [media for media in donors if (media.request is not None) == is_video]
        if len(kind) == 1:
            raise ValueError(
                "all rows of this call show the same, so none of them can be shown another's; ask with view='text', "
                "or with rows about at least two videos"
            )
        wrong |= {media: donors[other] for media, other in zip(kind, kind[1:] + kind[:1], strict=True)}
    return [
        row if media is None else {**row, **{key: wrong[media].get(key) for key in MEDIA_COLUMNS}}
        for row, media in zip(rows, shown, strict=True)
    ]


def keep_encoded(dataset: Any) -> Any:
    """The same rows with videos as paths or bytes, where `datasets` would open them.

    Args:
        dataset (`Dataset`, `IterableDataset` or `dict` of these, *optional*): rows with or without a `video` column.

    Returns:
        The same type.
    """
    if isinstance(dataset, dict):
        return type(dataset)({name: keep_encoded(part) for name, part in dataset.items()})
    features = getattr(dataset, "features", None) or {}
    if isinstance(features.get("video"), Video) and features["video"].decode:
        return dataset.cast_column("video", Video(decode=False))
    return dataset


def _name_video(video: Any, row: Row, budget: FrameBudget) -> Media:
    source, name = unwrap_cell(video, None)
    digest = None
    if isinstance(source, (bytes, bytearray, memoryview)):
        digest = hashlib.blake2b(source, digest_size=16).hexdigest()
        path, content = name or f"<{len(source)} bytes>", source
    elif isinstance(source, (str, os.PathLike)):
        path, content = os.fspath(source), None
    else:
        raise TypeError(
            f"the video of row {row.get('id')!r} is a {type(source).__name__}; pass a path, an URL, bytes, or a cell "
            "of a datasets.Video column"
        )
    request = FrameRequest(
        source=path,
        start_seconds=row.get("start_seconds"),
        end_seconds=row.get("end_seconds"),
        budget=budget,
    )
    return Media((request, digest), request=replace(request, content=content))


def _digest_image(image: Any) -> Hashable:
    if isinstance(image, (str, os.PathLike)):
        return os.fspath(image)
    return image.size, image.mode, hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest()
