"""What makes a row of training data wrong, as far as nothing must be decoded for it.

The row itself is in `task_row.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

from vidground_hf.schema import LETTERS

if TYPE_CHECKING:
    from vidground_hf.task_preference.task_row import TaskRow

BOX_SLACK_PX = 1.0
"""So far may a box reach over the frame before its row is rejected (some sets count pixels from 1); it is cut. Our
guess."""

SPAN_SLACK_SECONDS = 0.5
"""So far may a span reach over its clip before its row is rejected, for sets round durations to whole seconds (36 of
NExT-GQA's test spans begin before 0, 3 of its validation spans end late); it is cut. Our guess."""


def list_control_words(tokenizer: Any) -> list[str]:
    """The control tokens of a model, which no row may hold in its words (`list[str]`)."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values()]


def check_words(row: TaskRow, control_words: Iterable[str]) -> None:
    """Rejects a row whose words hold a control token: a trigger in a question, say, would call a head."""
    said = (row.question, *row.options, row.answer or "")
    for word in control_words:
        if any(word in part for part in said):
            row.reject(f"its words hold {word!r}, which is a control token of the model")


def check_types(row: TaskRow) -> None:
    """Rejects words that are no text, and labels that are not laid out as they should be."""
    for name, words in (("question", row.question), ("answer", row.answer), *(("option", one) for one in row.options)):
        if not isinstance(words, str) and not (name == "answer" and words is None):
            row.reject(f"the {name} {words!r} is no text; write it as one")
    if not all(_is_numbers(span, 2) for span in row.spans):
        row.reject(f"its spans {row.spans!r} are not pairs of start and end in seconds; give one pair for each span")
    if row.box is not None and not _is_numbers(row.box, 4):
        row.reject(f"its box {row.box!r} is not left, top, right, bottom in pixels; give four numbers")


def _is_numbers(values: Any, count: int) -> bool:
    is_row = isinstance(values, (tuple, list)) and len(values) == count
    return is_row and all(isinstance(value, Real) and not isinstance(value, bool) for value in values)


def check_options(row: TaskRow) -> None:
    """Rejects a row whose options cannot be told apart by letters, or have no right one."""
    if len(row.options) > len(LETTERS):
        row.reject(f"it has {len(row.options)} options; there are letters for {len(LETTERS)}")
    if len(set(row.options)) < len(row.options):
        row.reject(f"two of its options are alike: {list(row.options)}")
    if row.answer not in row.options:
        row.reject(f"the answer {row.answer!r} is not among the {len(row.options)} options")


def check_dialogue_row(row: TaskRow) -> None:
    """Rejects dialogue without an answer."""
    if row.answer is None or not row.answer.strip():
        row.reject("the answer is empty")


def check_moment_row(row: TaskRow) -> None:
    """Rejects a moment row without a video or a span, or with labels that are none."""
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


def check_box_row(row: TaskRow) -> None:
    """Rejects a box row without media, a box or the size of the frame, or with a box that is none."""
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


def check_mask_row(row: TaskRow) -> None:
    """Rejects a mask row without media or a mask, or whose times do not go with its masks."""
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
