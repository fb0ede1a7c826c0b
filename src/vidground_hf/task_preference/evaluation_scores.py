"""The answers of each task brought to the form that its metric takes.

Which rows are scored by which is `evaluation.py`'s; the metrics themselves are in `vidground_hf.stats`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vidground_hf.extraction import extract_choice
from vidground_hf.schema import normalize_text
from vidground_hf.stats.boxes import score_box_grounding
from vidground_hf.stats.checks import UNANSWERED
from vidground_hf.stats.grounded_qa import score_grounded_qa
from vidground_hf.stats.highlights import score_highlights
from vidground_hf.stats.segmentation import region_similarity, score_video_segmentation
from vidground_hf.stats.temporal import score_temporal_grounding
from vidground_hf.stats.tracking import score_object_tracking
from vidground_hf.task_preference.generation import TaskPreferenceAnswer
from vidground_hf.task_preference.row_masks import encode_mask, find_box, read_mask
from vidground_hf.task_preference.task_rows import TaskRow

Rows = Sequence[TaskRow]
Answers = Sequence[TaskPreferenceAnswer]
Mask = NDArray[np.bool_]


def read_answer(row: TaskRow, answer: TaskPreferenceAnswer) -> str:
    """What the words of an answer mean, but for case and punctuation.

    Args:
        row (`TaskRow`): with or without options.
        answer (`TaskPreferenceAnswer`): to it.

    Returns:
        `str`: the option that is meant, or without options the words; `UNANSWERED` where they mean none.

    Example:
        >>> row = TaskRow(id="1", task="dialogue", question="Which?", options=("Blue", "Red"), answer="Red")
        >>> [read_answer(row, TaskPreferenceAnswer(text=text)) for text in ("B.", "A red one", "green")]
        ['red', 'red', '<unanswered>']
    """
    if not row.options:
        return normalize_text(answer.text) or UNANSWERED
    place = extract_choice(answer.text, row.options)
    return UNANSWERED if place is None else normalize_text(row.options[place])


def is_right(row: TaskRow, answer: TaskPreferenceAnswer) -> bool:
    """Whether the words of an answer are right: the right option, or the same text but for case and punctuation.

    Example:
        >>> row = TaskRow(id="1", task="dialogue", question="Who?", answer="A dog.")
        >>> is_right(row, TaskPreferenceAnswer(text=" a dog"))
        True
    """
    return row.answer is not None and read_answer(row, answer) == normalize_text(row.answer)


def score_moments(rows: Rows, answers: Answers) -> dict[str, Any]:
    """Scores spans by `temporal_grounding`."""
    return score_temporal_grounding([_list_windows(answer) for answer in answers], [_list_spans(row) for row in rows])


def score_highlight_rows(rows: Rows, answers: Answers) -> dict[str, Any]:
    """Scores saliency by `highlight_detection`; each clip has that of the temporal patch nearest to its middle."""
    predictions = [_rate_clips(row, answer) for row, answer in zip(rows, answers, strict=True)]
    return score_highlights(
        predictions,
        [[list(clip) for clip in row.ratings] for row in rows],
        windows=[_list_windows(answer) for answer in answers],
        reference_windows=[_list_spans(row) for row in rows],
    )


def score_reasoning(rows: Rows, answers: Answers) -> dict[str, Any]:
    """Scores answers and their first spans by `grounded_qa`."""
    said = [read_answer(row, answer) for row, answer in zip(rows, answers, strict=True)]
    right = [normalize_text(row.answer or "") for row in rows]
    windows = [[] if answer.spans is None else answer.spans[0].tolist() for answer in answers]
    return score_grounded_qa(said, right, windows, [_list_spans(row) for row in rows])


def score_boxes(rows: Rows, answers: Answers) -> dict[str, Any]:
    """Scores the first box of each answer by `box_grounding`, in pixels."""
    predictions = [[] if answer.boxes is None else answer.boxes[0].tolist() for answer in answers]
    return score_box_grounding(predictions, [list(row.box or ()) for row in rows])


def score_masks(rows: Rows, answers: Answers) -> dict[str, Any]:
    """Scores the first object of each answer by `video_segmentation`, in every annotated frame.

    A frame between two drawn ones takes the mask of the nearest. `j_present` is the mean region similarity over frames
    that show the object, then over objects: nothing drawn scores 0 there, where `j` gives 1 for every empty frame.
    """
    predictions, references, present = [], [], []
    for row, answer in zip(rows, answers, strict=True):
        annotated = [read_mask(mask, row.width_px, row.height_px) for mask in row.masks]
        drawn = draw_frames(row, answer)
        references.append(["" if mask is None else encode_mask(mask) for mask in annotated])
        predictions.append([encode_mask(mask) for mask in drawn])
        found = [
            region_similarity(drawn[k], mask) if drawn else 0.0
            for k, mask in enumerate(annotated)
            if mask is not None and mask.any()
        ]
        if found:
            present.append(float(np.mean(found)))
    return score_video_segmentation(predictions, references) | {
        "j_present": float(np.mean(present)) if present else None,
        "num_never_present": len(rows) - len(present),
    }


def score_tracks(rows: Rows, answers: Answers) -> dict[str, Any]:
    """Scores the boxes around masks by `object_tracking`, in every annotated frame."""
    predictions, references, absent = [], [], []
    for row, answer in zip(rows, answers, strict=True):
        annotated = [read_mask(mask, row.width_px, row.height_px) for mask in row.masks]
        boxes = [None if mask is None else find_box(mask) for mask in annotated]
        absent.append([int(box is None) for box in boxes])
        references.append([[0.0, 0.0, 1.0, 1.0] if box is None else _size_box(box) for box in boxes])
        drawn = [find_box(mask) for mask in draw_frames(row, answer)]
        predictions.append([[] if box is None else _size_box(box) for box in drawn])
    return dict(score_object_tracking(predictions, references, absent=absent))


def draw_frames(row: TaskRow, answer: TaskPreferenceAnswer) -> list[Mask]:
    """The first predicted object in each annotated frame of a row, from the nearest frame that was drawn.

    Returns:
        `list[bool[H, W]]`: one for each annotated frame; empty where nothing was answered.
    """
    if answer.masks is None or answer.mask_seconds is None:
        return []
    distances = np.abs(np.asarray(row.mask_seconds)[:, None] - answer.mask_seconds.numpy()[None, :])
    drawn = answer.masks[0].numpy()
    return [drawn[place] for place in distances.argmin(axis=1)]


def name_media(row: TaskRow) -> str:
    """The same for rows that show the same video or image, and only for these.

    Example:
        >>> name_media(TaskRow(id="1", task="dialogue", question="Who?", answer="A dog.", image="a.png"))
        'a.png'
    """
    if isinstance(row.image, Image.Image):
        return hashlib.sha256(row.image.tobytes()).hexdigest()
    return str(row.video or row.image or row.id)


def _list_spans(row: TaskRow) -> list[list[float]]:
    return [list(span) for span in row.spans]


def _list_windows(answer: TaskPreferenceAnswer) -> list[list[float]]:
    if answer.spans is None:
        return []
    scores = [0.0] * len(answer.spans) if answer.scores is None else answer.scores.tolist()
    return [[*span, score] for span, score in zip(answer.spans.tolist(), scores, strict=True)]


def _rate_clips(row: TaskRow, answer: TaskPreferenceAnswer) -> list[float]:
    if answer.saliency is None or answer.times_seconds is None or row.clip_seconds is None:
        return []
    middles = (np.arange(len(row.ratings)) + 0.5) * row.clip_seconds
    nearest = np.abs(middles[:, None] - answer.times_seconds.numpy()[None, :]).argmin(axis=1)
    rated: list[float] = answer.saliency.numpy()[nearest].tolist()
    return rated


def _size_box(box: Sequence[float]) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]
