"""Layouts of sets about time and of dialogue: QVHighlights, Charades-STA, NExT-GQA, and plain questions.

Boxes and masks are read in `row_objects.py`; checks of what is read are in `task_rows.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vidground_hf.schema import Example
from vidground_hf.stats.highlights import fill_saliency
from vidground_hf.task_preference.task_rows import BadRowError, TaskRow

QVHIGHLIGHTS_CLIP_SECONDS = 2.0
"""Of QVHighlights (https://huggingface.co/papers/2107.09609), section 3."""

# A line of Charades-STA's files (https://huggingface.co/papers/1705.02101): video, start, end and sentence.
_CHARADES_LINE = re.compile(r"(?P<video>\S+) (?P<start>\S+) (?P<end>\S+)##(?P<caption>.+)", re.DOTALL)


def read_qvhighlights(row: Mapping[str, Any]) -> list[TaskRow]:
    """Reads a line of QVHighlights: several windows, and ratings of each clip of 2 s.

    Args:
        row (`Mapping`): `qid`, `query`, `vid`, `duration`, `relevant_windows`, and `relevant_clip_ids` with
            `saliency_scores` where they are known. The video is `<vid>.mp4`.

    Returns:
        `list[TaskRow]`: one moment row.

    Raises:
        `BadRowError`: for a window that is none, and for ratings that do not go with the clips.

    Example:
        >>> line = {"qid": 1, "query": "a dog barks", "vid": "v", "duration": 4, "relevant_windows": [[0, 2]]}
        >>> read_qvhighlights(line)[0].spans
        ((0.0, 2.0),)
    """
    ratings: list[list[float]] = []
    if row.get("relevant_clip_ids"):
        try:
            ratings = fill_saliency(
                row["duration"],
                row["relevant_clip_ids"],
                row["saliency_scores"],
                clip_seconds=QVHIGHLIGHTS_CLIP_SECONDS,
            )
        except ValueError as error:
            raise BadRowError(str(row["qid"]), str(error)) from error
    return [
        TaskRow(
            id=str(row["qid"]),
            task="moment",
            question=row["query"],
            video=f"{row['vid']}.mp4",
            duration_seconds=float(row["duration"]),
            spans=_read_spans(row.get("relevant_windows") or ()),
            ratings=tuple(map(tuple, ratings)),
            clip_seconds=QVHIGHLIGHTS_CLIP_SECONDS if ratings else None,
        )
    ]


def read_charades_sta(
    row: str | Mapping[str, Any], *, durations_seconds: Mapping[str, float] | None = None
) -> list[TaskRow]:
    """Reads a line of Charades-STA, or a row with its columns.

    Args:
        row (`str` or `Mapping`): `"<video> <start> <end>##<sentence>"`, or `video`, `caption` and `timestamp`.
        durations_seconds (`Mapping[str, float]`, *optional*): by video id, as Charades' own tables give them (column
            `length`); without them a span beyond the clip is found only when the clip is decoded.

    Returns:
        `list[TaskRow]`: one moment row; its id is the video and the span.

    Raises:
        `BadRowError`: for a line that is not of this form, and for a span that is none.

    Example:
        >>> read_charades_sta("AO8RW 0.0 6.9##a person is putting a book on a shelf.")[0].spans
        ((0.0, 6.9),)
    """
    if isinstance(row, str):
        match = _CHARADES_LINE.fullmatch(row.strip())
        if match is None:
            raise BadRowError(row.strip()[:40], "the line is not '<video> <start> <end>##<sentence>'")
        video, span, caption = match["video"], (match["start"], match["end"]), match["caption"]
    else:
        video, span, caption = str(row["video"]), tuple(row["timestamp"]), row["caption"]
    name = video.removesuffix(".mp4")
    return [
        TaskRow(
            id=f"{name} {span[0]} {span[1]}",
            task="moment",
            question=caption.strip(),
            video=f"{name}.mp4",
            duration_seconds=(durations_seconds or {}).get(name),
            spans=_read_spans([span]),
        )
    ]


def read_nextgqa(
    row: Mapping[str, Any], *, grounding: Mapping[str, Mapping[str, Any]], paths: Mapping[str, str] | None = None
) -> list[TaskRow]:
    """Reads a question of NExT-GQA with the spans that show its answer.

    Args:
        row (`Mapping`): `video_id`, `qid`, `question`, `answer` (the text), `a0` to `a4`, `width` and `height`.
        grounding (`Mapping`): the file `gsub_val.json` or `gsub_test.json`: by video `duration` and `location`.
        paths (`Mapping[str, str]`, *optional*): the file `map_vid_vidorID.json`, of videos in their folders; without
            it they are `<video_id>.mp4`.

    Returns:
        `list[TaskRow]`: one moment row with options and an answer.

    Raises:
        `BadRowError`: for a question without spans, a span that is none, and an answer that is no option.
    """
    name, question = str(row["video_id"]), str(row["qid"])
    known = grounding.get(name, {})
    return [
        TaskRow(
            id=f"{name}_{question}",
            task="moment",
            question=row["question"],
            options=tuple(row[f"a{place}"] for place in range(5)),
            answer=row["answer"],
            video=f"{(paths or {}).get(name, name)}.mp4",
            duration_seconds=known.get("duration"),
            spans=_read_spans(known.get("location", {}).get(question, ())),
        )
    ]


def read_dialogue(row: Mapping[str, Any] | Example) -> list[TaskRow]:
    """Reads a question with its answer.

    Args:
        row (`Mapping` or `Example`): `id`, `question`, `answer`, and where there are some `options`, `video` (with
            `start_seconds` and `end_seconds`) or `image`; or an example of any set that the package's adapters read.

    Returns:
        `list[TaskRow]`: one dialogue row.

    Raises:
        `BadRowError`: for an empty question or answer, and for an answer that is no option.
    """
    if isinstance(row, Example):
        if row.defect is not None:
            raise BadRowError(row.id, f"it cannot be judged: {row.defect}")
        row = {
            "id": row.id,
            "question": row.question,
            "options": row.options,
            "answer": row.answer,
            "video": row.video if row.media_content is None else {"bytes": row.media_content, "path": row.video},
            "start_seconds": row.start_seconds,
            "end_seconds": row.end_seconds,
            "frame_rate": row.frame_rate,
        }
    return [
        TaskRow(
            id=str(row["id"]),
            task="dialogue",
            question=row["question"],
            options=tuple(row.get("options") or ()),
            answer=row.get("answer"),
            video=row.get("video"),
            image=row.get("image"),
            start_seconds=row.get("start_seconds"),
            end_seconds=row.get("end_seconds"),
            frame_rate=row.get("frame_rate"),
        )
    ]


def _read_spans(windows: Any) -> tuple[tuple[float, float], ...]:
    return tuple((float(start), float(end)) for start, end in windows)
