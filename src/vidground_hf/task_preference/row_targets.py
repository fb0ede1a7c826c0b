"""From the labels of rows, in seconds and pixels, to the normalised targets of a batch.

What a target is called is in `targets.py`; rows were checked when they were made, here they meet their media.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vidground_hf.task_preference.row_masks import read_mask
from vidground_hf.task_preference.row_media import ShownMedia
from vidground_hf.task_preference.targets import Targets
from vidground_hf.task_preference.task_rows import TaskRow, check_span


def make_targets(rows: Sequence[TaskRow], media: Sequence[ShownMedia | None]) -> Targets:
    """Normalises the labels of a batch.

    Spans are divided by the duration that decoding found, boxes by the size of the frames they were drawn on; both
    are cut to [0, 1].

    Args:
        rows (`Sequence[TaskRow]`): N rows of any tasks.
        media (`Sequence[ShownMedia | None]`): N, what each shows.

    Returns:
        `Targets`: of the rows that ask for a moment, a box or masks.

    Raises:
        `BadRowError`: for a span outside the decoded clip, and for masks that cannot be read or are of moments when no
            frame is shown.
    """
    places: dict[str, list[int]] = {"moment": [], "box": [], "mask": [], "dialogue": []}
    for place, row in enumerate(rows):
        places[row.task].append(place)
    shown = {place: found for place, found in enumerate(media) if found is not None}
    moments = [rows[place] for place in places["moment"]]
    masks = [read_shown_masks(rows[place], shown[place]) for place in places["mask"]]
    boxes = [normalize_box(rows[place], shown[place]) for place in places["box"]]
    return Targets(
        moment_rows=torch.tensor(places["moment"], dtype=torch.long),
        spans=[normalize_spans(rows[place], shown[place].duration_seconds) for place in places["moment"]],
        saliency=[_mean_ratings(row) for row in moments],
        saliency_seconds=[_find_clip_middles(row) for row in moments],
        box_rows=torch.tensor(places["box"], dtype=torch.long),
        boxes=torch.stack(boxes) if boxes else torch.zeros(0, 4),
        mask_rows=torch.tensor(places["mask"], dtype=torch.long),
        masks=[torch.from_numpy(frames) for frames, _ in masks],
        mask_seconds=[torch.from_numpy(seconds.astype(np.float32)) for _, seconds in masks],
    )


def normalize_spans(row: TaskRow, duration_seconds: float) -> Tensor:
    """The spans of a moment row as parts of its clip, `float32[S, 2]` in [0, 1]."""
    for start, end in row.spans:
        check_span(row, start, end, duration_seconds)
    return (torch.tensor(row.spans, dtype=torch.float64) / duration_seconds).clamp(0, 1).float()


def normalize_box(row: TaskRow, media: ShownMedia) -> Tensor:
    """The box of a row as parts of width and height, `float32[4]` in [0, 1]."""
    sides = (media.width_px, media.height_px) * 2
    return (torch.tensor(row.box, dtype=torch.float64) / torch.tensor(sides)).clamp(0, 1).float()


def read_shown_masks(row: TaskRow, media: ShownMedia) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Reads the masks of the frames that are shown.

    To each shown frame belongs the annotated one that is nearest in time, if the shown frame is also the nearest to it
    and they are at most half the mean gap between shown frames apart.

    Args:
        row (`TaskRow`): a mask row.
        media (`ShownMedia`): its media.

    Returns:
        `tuple[bool[T, H, W], float64[T]]`: masks and their times, growing; T is at least 1.

    Raises:
        `BadRowError`: when no annotated frame is near a shown one, a mask cannot be read, or no frame at all shows the
            object.
    """
    taken = list(_pair_frames(row, media).values())
    found = [_read_mask(row, row.masks[k]) for k in taken]
    size = next((mask.shape for mask in found if mask is not None), (media.height_px, media.width_px))
    if any(mask is not None and mask.shape != size for mask in found):
        row.reject("its masks have different sizes")
    frames = np.stack([np.zeros(size, dtype=bool) if mask is None else mask for mask in found])
    if not frames.any() and not any(_shows_object(row, text) for text in row.masks):
        row.reject("its masks are empty in every frame")
    return frames, np.asarray(row.mask_seconds)[taken]


def draw_sam_frame(row: TaskRow, media: ShownMedia, seed: int, *, needs_object: bool = False) -> int:
    """Draws the shown frame that a SAM is taught in: any that has an annotation, as likely.

    Args:
        row (`TaskRow`): a mask row.
        media (`ShownMedia`): its media.
        seed (`int`): with the row's id it draws the frame, the same in every process and every epoch.
        needs_object (`bool`, *optional*, defaults to `False`): draws among the frames that show the object; where none
            does, among all.

    Returns:
        `int`: its place among the shown frames.

    Raises:
        `BadRowError`: when no annotated frame is near a shown one.
    """
    pairs = _pair_frames(row, media)
    showing = [place for place, k in pairs.items() if _shows_object(row, row.masks[k])] if needs_object else []
    places = showing or list(pairs)
    digest = hashlib.blake2b(f"{seed}\x1fframe\x1f{row.id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return places[int.from_bytes(digest, "big") % len(places)]


def _pair_frames(row: TaskRow, media: ShownMedia) -> dict[int, int]:
    """Which annotated frame belongs to which of those that are shown, both by their places, growing."""
    shown, annotated = media.frame_seconds, np.asarray(row.mask_seconds)
    distances = np.abs(annotated[:, None] - shown[None, :])
    nearest, taken = distances.argmin(axis=1), distances.argmin(axis=0).tolist()
    gap = media.duration_seconds / len(shown)
    pairs = {place: k for place, k in enumerate(taken) if nearest[k] == place and distances[k, place] <= gap / 2}
    if not pairs:
        row.reject(f"none of its {len(annotated)} annotated frames is near one of the {len(shown)} shown")
    return pairs


def _read_mask(row: TaskRow, text: str | None) -> NDArray[np.bool_] | None:
    try:
        return read_mask(text, row.width_px, row.height_px)
    except (ValueError, OSError) as error:
        row.reject(f"a mask cannot be read: {error}")


def _shows_object(row: TaskRow, text: str | None) -> bool:
    mask = _read_mask(row, text)
    return mask is not None and bool(mask.any())


def _mean_ratings(row: TaskRow) -> Tensor | None:
    return torch.tensor(row.ratings, dtype=torch.float32).mean(dim=1) if row.ratings else None


def _find_clip_middles(row: TaskRow) -> Tensor | None:
    if not row.ratings or row.clip_seconds is None:
        return None
    return (torch.arange(len(row.ratings), dtype=torch.float32) + 0.5) * row.clip_seconds
