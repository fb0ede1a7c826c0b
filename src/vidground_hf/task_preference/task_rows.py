"""One checked row of training data for any task: what is asked about which media, and labels in seconds and pixels.

Reading the layouts of known sets is in `row_moments.py` and `row_objects.py`; nothing is decoded here but masks.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

from vidground_hf.schema import LETTERS
from vidground_hf.task_preference.row_masks import measure_mask

ROW_TASKS = ("dialogue", "moment", "box", "mask")
"""What a row may ask for: an answer in words, or that of one of the three heads."""

BOX_SLACK_PX = 1.0
"""So far may a box reach over the frame before its row is rejected (some sets count pixels from 1); it is cut. Our
guess."""


SPAN_SLACK_SECONDS = 0.5
"""So far may a span reach over its clip before its row is rejected, for sets round durations to whole seconds (36 of
NExT-GQA's test spans begin before 0, 3 of its validation spans end late); it is cut. Our guess."""


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
        vidground_hf.task_preference.task_rows.BadRowError: row '7': the span 4.0 to 2.0 s does not end after its start
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
        if self.task not in ROW_TASKS:
            self.reject(f"the task {self.task!r} is not one of {', '.join(ROW_TASKS)}")
        if not self.question.strip():
            self.reject("the question is empty")
        if self.video is not None and self.image is not None:
            self.reject("it has a video and an image; one of them must go")
        if self.options:
            _check_options(self)
        {"dialogue": _check_dialogue, "moment": _check_moment, "box": _check_box, "mask": _check_mask}[self.task](self)

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


@dataclass(frozen=True, slots=True)
class ReadRows:
    """What was read of a set.

    Attributes:
        rows (`list[TaskRow]`): those that can be trained on, in their order.
        rejected (`list[BadRowError]`): one for each of the others.
    """

    rows: list[TaskRow]
    rejected: list[BadRowError]


def read_rows(
    source: Iterable[Any],
    read_row: Callable[[Any], Iterable[TaskRow]] = lambda columns: [TaskRow.from_columns(columns)],
    *,
    media_root: str | os.PathLike[str] | None = None,
    processor: Any = None,
) -> ReadRows:
    """Reads a set, and keeps apart what cannot be trained on.

    Args:
        source (`Iterable`): rows of the set, as its files hold them.
        read_row (`Callable`, *optional*): one of the functions of `row_moments` and `row_objects`, with what else it
            needs bound by `functools.partial`; by default rows are in this package's own columns.
        media_root (`str` or `Path`, *optional*): folder that relative paths of media and masks start from.
        processor (`ProcessorMixin` or `PreTrainedTokenizerBase`, *optional*): of the model, with its task tokens;
            rejects rows whose words hold one of its control tokens, which would otherwise stop a training when their
            turn comes.

    Returns:
        `ReadRows`: rows with at least one mask that shows something, spans inside their clip, boxes inside their
        frame; and the others with their reasons. A source row that makes several rows is kept or rejected whole. One
        that cannot even be read goes by its place, `"#0"` the first.

    Example:
        >>> found = read_rows([{"id": "1", "task": "dialogue", "question": "Who?", "answer": " "}])
        >>> len(found.rows), str(found.rejected[0])
        (0, "row '1': the answer is empty")
    """
    rows: list[TaskRow] = []
    rejected: list[BadRowError] = []
    control_words = [] if processor is None else list_control_words(getattr(processor, "tokenizer", processor))
    for place, one in enumerate(source):
        try:
            made = [_measure_masks(_root_media(row, media_root)) for row in read_row(one)]
            for row in made:
                check_words(row, control_words)
        except BadRowError as error:
            rejected.append(error)
        except (ValueError, TypeError, LookupError, AttributeError) as error:  # what a malformed row makes of a reader
            rejected.append(BadRowError(f"#{place}", f"it cannot be read, {type(error).__name__}: {error}"))
        else:
            rows.extend(made)
    return ReadRows(rows, rejected)


def list_control_words(tokenizer: Any) -> list[str]:
    """The control tokens of a model, which no row may hold in its words (`list[str]`)."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values()]


def check_words(row: TaskRow, control_words: Iterable[str]) -> None:
    """Rejects a row whose words hold a control token: a trigger in a question, say, would call a head."""
    said = (row.question, *row.options, row.answer or "")
    for word in control_words:
        if any(word in part for part in said):
            row.reject(f"its words hold {word!r}, which is a control token of the model")


def _check_options(row: TaskRow) -> None:
    if len(row.options) > len(LETTERS):
        row.reject(f"it has {len(row.options)} options; there are letters for {len(LETTERS)}")
    if len(set(row.options)) < len(row.options):
        row.reject(f"two of its options are alike: {list(row.options)}")
    if row.answer not in row.options:
        row.reject(f"the answer {row.answer!r} is not among the {len(row.options)} options")


def _check_dialogue(row: TaskRow) -> None:
    if row.answer is None or not row.answer.strip():
        row.reject("the answer is empty")


def _check_moment(row: TaskRow) -> None:
    if row.video is None:
        row.reject("it asks for a moment and has no video")
    if not row.spans:
        row.reject("it asks for a moment and has no span")
    if row.answer is not None and not row.answer.strip():
        row.reject("the answer is empty")
    for start, end in row.spans:
        check_span(row, start, end, row.duration_seconds)
    if row.ratings and (row.clip_seconds is None or row.clip_seconds <= 0):
        row.reject(f"it has ratings of clips of {row.clip_seconds} s; their length must be known")
    if len({len(clip) for clip in row.ratings}) > 1:
        row.reject("its clips have ratings of different numbers of annotators")


def check_span(row: TaskRow, start: float, end: float, duration_seconds: float | None) -> None:
    """Rejects the row of a span that is none: not finite, reversed, empty, or not inside a clip of this length."""
    if not (math.isfinite(start) and math.isfinite(end)):
        row.reject(f"the span {start} to {end} s is not finite")
    if end <= start:
        row.reject(f"the span {start} to {end} s does not end after its start")
    last = math.inf if duration_seconds is None else duration_seconds
    if start < -SPAN_SLACK_SECONDS or end > last + SPAN_SLACK_SECONDS or end <= 0 or start >= last:
        row.reject(f"the span {start} to {end} s is not inside the clip of {duration_seconds} s")


def _check_box(row: TaskRow) -> None:
    if row.video is None and row.image is None:
        row.reject("it asks for a box and has neither video nor image")
    if row.box is None:
        row.reject("it asks for a box and has none")
    if row.width_px is None or row.height_px is None:
        row.reject("the width and height of the frame are not known")
    check_box(row, row.box)


def check_box(row: TaskRow, box: Sequence[float]) -> None:
    """Rejects the row of a box that is none: not finite, without an area, or not inside the frame."""
    left, top, right, bottom = box
    if not all(map(math.isfinite, box)):
        row.reject(f"the box {list(box)} is not finite")
    if right <= left or bottom <= top:
        row.reject(f"the box {list(box)} has no area; it is left, top, right, bottom")
    width, height = (math.inf if side is None else side for side in (row.width_px, row.height_px))
    reaches_over = max(-left, -top, right - width, bottom - height)
    is_beside = right <= 0 or bottom <= 0 or left >= width or top >= height
    if reaches_over > BOX_SLACK_PX or is_beside:
        row.reject(f"the box {list(box)} is not inside the frame of {row.width_px} x {row.height_px} px")


def _check_mask(row: TaskRow) -> None:
    if row.video is None and row.image is None:
        row.reject("it asks for masks and has neither video nor image")
    if len(row.masks) != len(row.mask_seconds):
        row.reject(f"it has {len(row.masks)} masks and {len(row.mask_seconds)} times")
    if not any(row.masks):
        row.reject("no frame has a mask")
    times = row.mask_seconds
    if not all(map(math.isfinite, times)) or any(later <= sooner for sooner, later in itertools.pairwise(times)):
        row.reject("the times of its masks do not grow")
    if times[0] < 0 or (row.duration_seconds is not None and times[-1] > row.duration_seconds):
        row.reject(f"masks from {times[0]} to {times[-1]} s are not inside the clip of {row.duration_seconds} s")


def _measure_masks(row: TaskRow) -> TaskRow:
    """The row with the size of its masks. Decodes them, which takes a millisecond or so each."""
    if not row.masks:
        return row
    given = row.width_px is not None and row.height_px is not None
    sizes: set[tuple[int | None, int | None]] = {(row.height_px, row.width_px)} if given else set()
    is_seen = False
    for mask in filter(None, row.masks):
        try:
            size, area = measure_mask(mask, row.width_px, row.height_px)
        except (ValueError, OSError) as error:
            row.reject(f"a mask cannot be read: {error}")
        sizes.add(size)
        is_seen = is_seen or area > 0
    if len(sizes) > 1:
        row.reject(f"its masks and frames have different sizes (height, width): {sorted(map(str, sizes))}")
    if not is_seen:
        row.reject("its masks are empty in every frame")
    ((height, width),) = sizes
    return replace(row, width_px=width, height_px=height)


def _root_media(row: TaskRow, root: str | os.PathLike[str] | None) -> TaskRow:
    if root is None:
        return row
    masks = tuple(mask if not mask or mask.lstrip()[:1] in "{[" else _root_path(mask, root) for mask in row.masks)
    media = {name: _root_path(getattr(row, name), root) for name in ("video", "image", "features")}
    return replace(row, masks=masks, **media)


def _root_path(path: Any, root: str | os.PathLike[str]) -> Any:
    if not isinstance(path, (str, os.PathLike)) or "://" in os.fspath(path):
        return path
    return str(Path(root) / path)


def _freeze(value: Any) -> Any:
    return tuple(_freeze(part) for part in value) if isinstance(value, (list, tuple)) else value
