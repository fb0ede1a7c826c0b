"""Row-to-example functions, one per known dataset layout.

How a layout is recognised is in `adapters.py`. A row may be dirty; none of these raises for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vidground_hf.benchmark_layouts import BENCHMARK_ADAPTERS
from vidground_hf.examples import build_example
from vidground_hf.options import clean_cell
from vidground_hf.schema import Example

Row = Mapping[str, Any]


def convert_nextqa(row: Row) -> Example:
    """NExT-QA csv, multiple choice (`video, question, answer, qid, type, a0..a4`; MIT), and NExT-GQA csv.

    NExT-GQA writes the answer as text; its spans are in a second file; `open_dataset` joins them as `evidence_spans`.
    """
    video = row.get("video_id", row.get("video"))
    return build_example(
        row_id=f"{video}_{row['qid']}",
        question=row["question"],
        options=[row[f"a{k}"] for k in range(5)],
        answer=row["answer"],
        video=video,
        category=row["type"],
        evidence_spans=row.get("evidence_spans"),
    )


def convert_nextqa_oe(row: Row) -> Example:
    """NExT-QA csv, open-ended (`video, question, answer, qid, type`; MIT)."""
    return build_example(
        row_id=f"{row['video']}_{row['qid']}",
        question=row["question"],
        answer=row["answer"],
        problem_type="free_form",
        video=row["video"],
        category=row["type"],
    )


def convert_mlvu(row: Row) -> Example:
    """MLVU json (`video, duration, question, candidates, answer, question_type`; CC BY-NC-SA 4.0).

    Rows without candidates are its two generation tasks.
    """
    return build_example(
        row_id=f"{row['question_type']}_{row['video']}_{row['question']}",
        question=row["question"],
        options=row.get("candidates"),
        answer=row["answer"],
        video=row["video"],
        category=row["question_type"],
    )


def convert_social_iq(row: Row) -> Example:
    """Social-IQ 2 jsonl (`qid, q, vid_name, ts, a0..a3`, and `answer_idx` but in the test split; MIT)."""
    return build_example(
        row_id=row["qid"],
        question=row["q"],
        options=[row[f"a{k}"] for k in range(4)],
        answer=row.get("answer_idx"),
        video=row["vid_name"],
    )


def convert_video_r1(row: Row) -> Example:
    """Video-R1 json (`problem_id, problem, problem_type, options, solution, path, data_source`).

    `solution` reads `<answer>B</answer>`; `path` is relative to the downloaded media.
    """
    return build_example(
        row_id=row["problem_id"],
        question=row["problem"],
        options=row["options"],
        answer=row["solution"],
        problem_type=row["problem_type"],
        video=row["path"],
        category=row["problem_type"],
        source=row["data_source"],
    )


def convert_easy_video_r1(row: Row) -> Example:
    """EasyVideoR1 json (`problem, answer, videos, problem_type`, and `options` for multiple choice)."""
    videos = row["videos"]
    video = (videos[0] if videos else None) if isinstance(videos, (list, tuple)) else videos
    return build_example(
        row_id=row.get("problem_id") or f"{video}_{row['problem']}",
        question=row["problem"],
        options=row.get("options"),
        answer=row["answer"],
        problem_type=row["problem_type"],
        video=video,
        category=row["problem_type"],
    )


def convert_generic(row: Row, *, named: Mapping[str, tuple[str, ...]]) -> Example:
    """Any layout with a question, options as a list or as columns, and an answer as letter, position or text."""

    def cell(key: str) -> Any:
        return row[named[key][0]] if named.get(key) else None

    option_columns = named["options"]
    several = len(option_columns) > 1
    options = [row[column] for column in option_columns] if several else cell("options")
    while several and options and clean_cell(options[-1]) in (None, ""):
        options.pop()
    video = cell("video")
    video = (video[0] if video else None) if isinstance(video, (list, tuple)) else video
    return build_example(
        row_id=cell("id") if cell("id") is not None else f"{video}_{cell('question')}",
        question=cell("question"),
        options=options,
        answer=cell("answer"),
        problem_type=cell("type"),
        video=video,
        group=cell("group"),
        category=cell("category"),
        source=cell("source"),
        subtitles=cell("subtitles"),
        evidence_spans=cell("evidence_spans"),
    )


# name: (function, columns a dataset must have, columns it may have)
ADAPTERS: dict[str, tuple[Callable[[Row], Example], tuple[str, ...], tuple[str, ...]]] = {
    "nextqa": (
        convert_nextqa,
        ("question", "answer", "qid", "type", "a0", "a1", "a2", "a3", "a4"),
        ("video", "video_id", "evidence_spans"),
    ),
    "nextqa_oe": (convert_nextqa_oe, ("video", "frame_count", "question", "answer", "qid", "type"), ()),
    "mlvu": (convert_mlvu, ("video", "duration", "question", "answer", "question_type"), ("candidates",)),
    "social_iq": (convert_social_iq, ("qid", "q", "vid_name", "a0", "a1", "a2", "a3"), ("answer_idx",)),
    "video_r1": (
        convert_video_r1,
        ("problem_id", "problem", "problem_type", "options", "solution", "path", "data_source"),
        (),
    ),
    "easy_video_r1": (
        convert_easy_video_r1,
        ("problem", "answer", "videos", "problem_type"),
        ("options", "problem_id"),
    ),
}
ADAPTERS |= BENCHMARK_ADAPTERS
