"""Row-to-example functions, one per known dataset layout, and how a layout is recognised by its columns.

Nothing here opens a file; `loading.py` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vidground_hf.examples import build_example, clean_cell
from vidground_hf.schema import Example

Row = Mapping[str, Any]

# Names that people give to the same column, likeliest first.
GENERIC_COLUMNS: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "query", "q", "prompt"),
    "options": ("options", "choices", "candidates"),
    "answer": ("answer", "solution", "answer_idx", "answer_index", "label", "correct_answer", "gold"),
    "video": ("video", "video_path", "video_id", "video_name", "vid", "videoID", "path", "videos", "image"),
    "group": ("group",),
    "type": ("problem_type",),
    "id": ("id", "question_id", "qid", "problem_id", "uid"),
    "category": ("category", "question_type", "task_type", "question_category", "type"),
    "source": ("data_source", "source"),
    "subtitles": ("subtitles", "subtitle", "transcript"),
    "evidence_spans": ("evidence_spans",),
}
_OPTION_COLUMNS = (
    tuple(f"a{k}" for k in range(10)),
    tuple(f"option{k}" for k in range(26)),
    tuple(f"option_{k}" for k in range(26)),
    tuple(f"option_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """How to read the rows of one layout.

    Attributes:
        name (`str`): the layout, or `"generic"`.
        columns (`tuple[str, ...]`): the columns it reads; no other column of a dataset is ever touched.
        convert (`Callable`): takes a row (a mapping that holds `columns`) to an `Example`;
            never raises for a dirty row.
    """

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Row], Example]


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


def find_adapter(
    columns: Collection[str], *, name: str | None = None, mapping: Mapping[str, str] | None = None
) -> Adapter:
    """Finds how to read a dataset: by the name of a layout, by a column mapping, or by its columns.

    Args:
        columns (`Collection[str]`): the dataset's column names.
        name (`str`, *optional*): a key of `ADAPTERS`, or `"generic"`.
        mapping (`Mapping[str, str]`, *optional*): which column holds what, with the keys of `GENERIC_COLUMNS`;
            `options` may name several columns separated by commas. What it leaves out is looked for under the
            usual names.

    Returns:
        `Adapter`: with only the columns that the dataset has.

    Raises:
        `ValueError`: for an unknown layout, key or column, or when no layout fits; says which columns there are
            and what to pass.

    Example:
        >>> find_adapter(["question", "choices", "answer"]).name
        'generic'
        >>> find_adapter(["frage", "choices", "answer"], mapping={"question": "frage"}).columns
        ('frage', 'choices', 'answer')
    """
    if name is not None and name != "generic":
        if name not in ADAPTERS:
            raise ValueError(f"unknown adapter {name!r}; allowed are {', '.join([*ADAPTERS, 'generic'])}")
        if mapping:
            raise ValueError(f"a column mapping goes with the generic adapter, got adapter {name!r}; leave one out")
        missing = [column for column in ADAPTERS[name][1] if column not in columns]
        if missing:
            raise ValueError(
                f"adapter {name!r} needs the columns {', '.join(missing)}; found {_list_columns(columns)}. "
                "Pass another adapter, or map columns: question=COLUMN, options=COLUMN, answer=COLUMN"
            )
        return _bind_known(name, columns)
    if name is None and not mapping:
        known = [key for key, (_, required, _) in ADAPTERS.items() if all(column in columns for column in required)]
        if known:
            return _bind_known(known[0], columns)
    return _bind_generic(columns, mapping or {})


def _bind_known(name: str, columns: Collection[str]) -> Adapter:
    convert, required, optional = ADAPTERS[name]
    return Adapter(name, required + tuple(column for column in optional if column in columns), convert)


def _bind_generic(columns: Collection[str], mapping: Mapping[str, str]) -> Adapter:
    unknown = [key for key in mapping if key not in GENERIC_COLUMNS]
    if unknown:
        raise ValueError(f"unknown mapping key {unknown[0]!r}; allowed are {', '.join(GENERIC_COLUMNS)}")
    named = {key: tuple(part.strip() for part in value.split(",")) for key, value in mapping.items()}
    absent = [column for parts in named.values() for column in parts if column not in columns]
    if absent:
        raise ValueError(f"no column {absent[0]!r}; found {_list_columns(columns)}")
    for key, usual in GENERIC_COLUMNS.items():
        taken = {column for parts in named.values() for column in parts}
        found = next((column for column in usual if column in columns and column not in taken), None)
        if key not in named and found is not None:
            named[key] = (found,)
    if "options" not in named:
        families = [tuple(column for column in family if column in columns) for family in _OPTION_COLUMNS]
        named["options"] = next((family for family in families if len(family) > 1), ())
    if "question" not in named or not (named["options"] or "answer" in named):
        raise ValueError(
            f"no known layout has these columns: {_list_columns(columns)}. Say which column is which with "
            "--map question=COLUMN --map options=COLUMN[,COLUMN...] --map answer=COLUMN (in Python: "
            "columns={'question': 'COLUMN', ...}), or name a layout: " + ", ".join(ADAPTERS)
        )
    read = tuple(dict.fromkeys(column for parts in named.values() for column in parts))
    return Adapter("generic", read, partial(convert_generic, named=named))


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


def _list_columns(columns: Collection[str]) -> str:
    names = list(columns)
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "none"
