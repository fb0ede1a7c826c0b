"""Layouts of sets about objects: RefCOCO boxes, tracked boxes as LaSOT has them, masks by frame, and SA-V masklets.

Spans and dialogue are read in `row_moments.py`; checks of what is read are in `task_rows.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from vidground_hf.task_preference.row_masks import find_box, read_mask
from vidground_hf.task_preference.row_media import find_image_file
from vidground_hf.task_preference.task_rows import BadRowError, TaskRow, check_box

SAV_ANNOTATED_FPS = 6.0
"""SA-V's manual masklets (https://huggingface.co/papers/2408.00714): every fourth frame of videos of 24 a second."""


def read_refcoco(row: Mapping[str, Any]) -> list[TaskRow]:
    """Reads one object of RefCOCO, RefCOCO+ or RefCOCOg with all its expressions.

    Args:
        row (`Mapping`): `question_id`, `image` (as `TaskRow` takes it), `answer` (expressions), `bbox` (left, top,
            width, height in pixels), and `width` and `height` where the image is a path that should not be opened.

    Returns:
        `list[TaskRow]`: one box row for each expression.

    Raises:
        `BadRowError`: for a box without an area or outside its image, and for an image that cannot be opened.
    """
    name, (left, top, width, height) = str(row["question_id"]), map(float, row["bbox"])
    size = (row["width"], row["height"]) if row.get("width") else _measure_image(name, row["image"])
    expressions = list(dict.fromkeys(row["answer"]))
    if not expressions:
        raise BadRowError(name, "it has no expression")
    return [
        TaskRow(
            id=f"{name}#{place}",
            task="box",
            question=expression,
            image=row["image"],
            width_px=int(size[0]),
            height_px=int(size[1]),
            box=(left, top, left + width, top + height),
        )
        for place, expression in enumerate(expressions)
    ]


def read_track(row: Mapping[str, Any]) -> list[TaskRow]:
    """Reads an object that is followed by a box in each frame.

    There is no mask to learn from, so all that is in the box counts as the object: right for where it is and when it
    is to be seen, coarse at its edge.

    Args:
        row (`Mapping`): `id`, `video`, `boxes` (left, top, width, height in pixels, one for each frame), `width`,
            `height`, `frame_rate` (frames a second), and where they are known `absent` (1 for each frame without the
            object) and `question` (what it is, in words).

    Returns:
        `list[TaskRow]`: one mask row; without `question` it asks for what is in the first box.

    Raises:
        `BadRowError`: for a box outside the frame, flags that do not go with the boxes, and an object never seen.
    """
    name, boxes = str(row["id"]), row["boxes"]
    absent = row.get("absent") or [0] * len(boxes)
    if len(absent) != len(boxes):
        raise BadRowError(name, f"it has {len(boxes)} boxes and {len(absent)} flags of absence")
    masks = []
    for (left, top, width, height), is_absent in zip(boxes, absent, strict=True):
        is_seen = not is_absent and width > 0 and height > 0
        masks.append(json.dumps([left, top, left + width, top + height]) if is_seen else None)
    return [_make_mask_row(row, name, masks, [frame / row["frame_rate"] for frame in range(len(masks))])]


def read_masks(row: Mapping[str, Any]) -> list[TaskRow]:
    """Reads an object with a mask in each annotated frame.

    Args:
        row (`Mapping`): `id`, `video` or `image`, `masks` (for each frame COCO run lengths, as a mapping or JSON, or
            the path of a PNG file with or without `#<id>`, or `None`), either `seconds` of these frames or
            `frame_rate`, and where they are known `question`, `width`, `height` and `duration`.

    Returns:
        `list[TaskRow]`: one mask row; without `question` it asks for what is in the first box.

    Raises:
        `BadRowError`: for masks that are none, and an object never seen.
    """
    # pycocotools gives its compressed counts as bytes.
    masks = [json.dumps(mask, default=bytes.decode) if isinstance(mask, Mapping) else mask for mask in row["masks"]]
    seconds = row.get("seconds")
    if seconds is None:
        rate = 1.0 if row.get("image") is not None else row["frame_rate"]
        seconds = [frame / rate for frame in range(len(masks))]
    return [_make_mask_row(row, str(row["id"]), masks, seconds)]


def read_sav(row: Mapping[str, Any], *, questions: Mapping[int, str] | None = None) -> list[TaskRow]:
    """Reads all masklets of a file of SA-V.

    Args:
        row (`Mapping`): the file: `video_id`, `video_duration`, `video_width`, `video_height`, `masklet_id` and
            `masklet` (for each frame the run lengths of each object). The video is `<video_id>.mp4`.
        questions (`Mapping[int, str]`, *optional*): what an object is, in words; SA-V does not say, so that the others
            are asked for by the first box.

    Returns:
        `list[TaskRow]`: one mask row for each object.

    Raises:
        `BadRowError`: for masks that are none, and an object never seen.
    """
    name = row["video_id"]
    frames = row["masklet"]
    known = {
        "video": f"{name}.mp4",
        "width": int(row["video_width"]),
        "height": int(row["video_height"]),
        "duration": row["video_duration"],
        "seconds": [frame / SAV_ANNOTATED_FPS for frame in range(len(frames))],
    }
    rows = []
    for place, number in enumerate(row["masklet_id"]):
        masks = [frame[place] for frame in frames]
        question = (questions or {}).get(number)
        rows += read_masks({**known, "id": f"{name}_{number}", "masks": masks, "question": question})
    return rows


def describe_place(box: Sequence[float], width_px: int, height_px: int, seconds: float) -> str:
    """Says in words which object is meant, by where it is.

    Args:
        box (`Sequence[float]`): left, top, right, bottom in pixels.
        width_px (`int`), height_px (`int`): of the frame.
        seconds (`float`): when it is there.

    Returns:
        `str`: sides in thousandths of width and height, as the answers in text write them.

    Example:
        >>> describe_place((10, 0, 20, 50), 100, 100, 1.5)
        'what is at [100, 0, 200, 500] at 1.5 s'
    """
    scale = (width_px, height_px, width_px, height_px)
    sides = [round(1000 * side / whole) for side, whole in zip(box, scale, strict=True)]
    return f"what is at {sides} at {seconds:.1f} s"


def _make_mask_row(
    row: Mapping[str, Any], name: str, masks: Sequence[str | None], seconds: Sequence[float]
) -> TaskRow:
    question = row.get("question") or _ask_by_place(row, name, masks, seconds)
    made = TaskRow(
        id=name,
        task="mask",
        question=question,
        video=row.get("video"),
        image=row.get("image"),
        frame_rate=row.get("frame_rate"),
        duration_seconds=row.get("duration"),
        width_px=row.get("width"),
        height_px=row.get("height"),
        masks=tuple(masks),
        mask_seconds=tuple(map(float, seconds)),
    )
    for mask in masks:
        if mask and mask.startswith("["):
            check_box(made, json.loads(mask))
    return made


def _ask_by_place(row: Mapping[str, Any], name: str, masks: Sequence[str | None], seconds: Sequence[float]) -> str:
    for mask, second in zip(masks, seconds, strict=False):
        try:
            found = read_mask(mask, row.get("width"), row.get("height"))
        except (ValueError, OSError) as error:
            raise BadRowError(name, f"a mask cannot be read: {error}") from error
        box = None if found is None else find_box(found)
        if found is not None and box is not None:
            return describe_place(box, found.shape[1], found.shape[0], second)
    raise BadRowError(name, "its masks are empty in every frame")


def _measure_image(name: str, image: Any) -> tuple[int, int]:
    if isinstance(image, Image.Image):
        return image.size
    try:
        with Image.open(find_image_file(image)) as opened:
            return opened.size
    except OSError as error:
        raise BadRowError(name, f"its image cannot be opened: {error}") from error
