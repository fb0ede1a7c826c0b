"""One checked row of training data for any task: what is asked about which media, and labels in seconds and pixels.

Sets of rows are read in `task_rows.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn

import numpy as np

from vidground_hf.task_preference.row_checks import (
    check_box_row,
    check_dialogue_row,
    check_mask_row,
    check_moment_row,
    check_options,
    check_types,
)

ROW_TASKS = ("dialogue", "moment", "box", "mask")
"""What a row may ask for: an answer in words, or that of one of the three heads."""


class BadRowError(ValueError):
    """A row that must not be trained on.

    Attributes:
        row_id (`str`): which one.
        reason (`str`): what is wrong with it.
    """

    def __init__(self, row_id: str, reason: str) -> None:
        super().__init__(row_id, reason)  # as given, or what a worker process raises could not be unpickled
        self.row_id, self.reason = row_id, reason

    def __str__(self) -> str:
        return f"row {self.row_id!r}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """What is asked about a video, an image or nothing, and what is right.

    A row is checked when it is made, as far as nothing must be decoded for it: masks are decoded by `read_rows`, media
    by the collator. It is a plain record: `Dataset.from_list([asdict(row) for row in rows])` keeps it, and
    `TaskRow.from_columns` reads it back.

    Attributes:
        id (`str`): names it in messages; not empty.
        task (`str`): one of `ROW_TASKS`.
        question (`str`): of dialogue and of a moment with an answer the question; else what is looked for, in words.
        options (`tuple[str, ...]`): of the question, where it has some; at most 26, no two alike.
        answer (`str`, *optional*): of the question; with options one of them. A moment row with an answer is temporal
            reasoning: the span that shows it, then the answer.
        video (path, URL, bytes or cell of a `datasets.Video` column, *optional*), image (PIL image, path or cell of a
            `datasets.Image` column, *optional*): what is shown; one of the two, or none for dialogue.
        start_seconds (`float`, *optional*), end_seconds (`float`, *optional*): the half-open part of the video that is
            shown; the times below count from its start.
        frame_rate (`float`, *optional*): images a second, where the video is a folder of images.
        duration_seconds (`float`, *optional*): of the shown part, as its set states it; what decoding finds goes
            before it.
        width_px (`int`, *optional*), height_px (`int`, *optional*): of the frames that boxes and masks were drawn on.
        spans (`tuple[tuple[float, float], ...]`): start and end in seconds of what a moment row asks for.
        ratings (`tuple[tuple[float, ...], ...]`): of a moment row, per clip of `clip_seconds` the ratings of its
            annotators; empty for a set without.
        clip_seconds (`float`, *optional*): goes with `ratings`.
        box (`tuple[float, float, float, float]`, *optional*): left, top, right, bottom in pixels of a box row.
        masks (`tuple[str | None, ...]`): of a mask row, per annotated frame what `row_masks.read_mask` takes.
        mask_seconds (`tuple[float, ...]`): when each of these frames is shown, growing; an image has one, at 0.
        features (`float[T, D]` or path of a `.npy` file, *optional*): what another extractor made of the shown part,
            one row for each clip of it, for a model whose temporal head reads these.
        feature_seconds (`tuple[float, ...]`): the middle of each of these clips; equal parts where left out.

    Raises:
        `BadRowError`: for a row that cannot be trained on; gives its id and the reason.

    Example:
        >>> TaskRow(id="7", task="moment", question="a dog barks", video="a.mp4", spans=((4.0, 2.0),))
        Traceback (most recent call last):
        vidground_hf.task_preference.task_row.BadRowError: row '7': the span 4.0 to 2.0 s does not end after its start
    """

    id: str
    task: str
    question: str
    options: tuple[str, ...] = ()
    answer: str | None = None
    video: Any = field(default=None, repr=False)
    image: Any = field(default=None, repr=False)
    start_seconds: float | None = None
    end_seconds: float | None = None
    frame_rate: float | None = None
    duration_seconds: float | None = None
    width_px: int | None = None
    height_px: int | None = None
    spans: tuple[tuple[float, float], ...] = ()
    ratings: tuple[tuple[float, ...], ...] = ()
    clip_seconds: float | None = None
    box: tuple[float, float, float, float] | None = None
    masks: tuple[str | None, ...] = field(default=(), repr=False)
    mask_seconds: tuple[float, ...] = field(default=(), repr=False)
    features: Any = field(default=None, repr=False, compare=False)
    feature_seconds: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id.strip():
            self.reject("its id is no text, or empty")
        check_types(self)
        if self.task not in ROW_TASKS:
            self.reject(f"the task {self.task!r} is not one of {', '.join(ROW_TASKS)}")
        if not self.question.strip():
            self.reject("the question is empty")
        if self.video is not None and self.image is not None:
            self.reject("it has a video and an image; one of them must go")
        if self.options:
            check_options(self)
        {"dialogue": check_dialogue_row, "moment": check_moment_row, "box": check_box_row, "mask": check_mask_row}[
            self.task
        ](self)

    @classmethod
    def from_columns(cls, columns: Mapping[str, Any]) -> TaskRow:
        """Reads a row back from the columns of a dataset.

        Args:
            columns (`Mapping`): the attributes by name; others are left alone, missing ones have their defaults.

        Raises:
            `BadRowError`: as the constructor does.
        """
        values = {part.name: columns[part.name] for part in fields(cls) if columns.get(part.name) is not None}
        return cls(**{name: _freeze(value) if name in _LISTS else value for name, value in values.items()})

    def reject(self, reason: str) -> NoReturn:
        """Raises the `BadRowError` of this row."""
        raise BadRowError(self.id, reason)


_LISTS = frozenset({"options", "spans", "ratings", "box", "masks", "mask_seconds", "feature_seconds"})


def _freeze(value: Any) -> Any:
    if isinstance(value, np.ndarray):  # of a dataset in numpy's format
        value = value.tolist()
    return tuple(_freeze(part) for part in value) if isinstance(value, (list, tuple)) else value
