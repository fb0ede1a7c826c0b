"""Reads sets of rows, and keeps apart what cannot be trained on.

Reading the layouts of known sets is in `row_moments.py` and `row_objects.py`; nothing is decoded here but masks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidground_hf.task_preference.row_checks import (
    BOX_SLACK_PX,
    SPAN_SLACK_SECONDS,
    check_box,
    check_span,
    check_words,
    list_control_words,
)
from vidground_hf.task_preference.row_masks import measure_mask
from vidground_hf.task_preference.task_row import ROW_TASKS, BadRowError, TaskRow

__all__ = [
    "BOX_SLACK_PX",
    "ROW_TASKS",
    "SPAN_SLACK_SECONDS",
    "BadRowError",
    "ReadRows",
    "TaskRow",
    "check_box",
    "check_span",
    "check_words",
    "list_control_words",
    "read_rows",
]


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
        # What a malformed row makes of a reader.
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            rejected.append(BadRowError(f"#{place}", f"it cannot be read, {type(error).__name__}: {error}"))
        else:
            rows.extend(made)
    return ReadRows(rows, rejected)


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
