"""Rows of prediction files in one shape, whatever their columns are called, and two runs read side by side.

Files are opened in `prediction_files.py`, joined in `pairing.py` and scored in `gap.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidground_hf.adapters import ADAPTERS
from vidground_hf.examples import name_problem_type
from vidground_hf.options import clean_cell, parse_options, strip_prefixes
from vidground_hf.pairing import PairedPredictions, PredictionRow, cut_list, join_runs
from vidground_hf.prediction_files import FAILED_ANSWERS, Row, read_rows
from vidground_hf.schema import LETTERS, Example, ProblemType
from vidground_hf.stats.checks import UNANSWERED, list_rows

# Names that people give to the same column, likeliest first.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "sample_id", "question_id", "qid", "problem_id", "index", "uid"),
    "prediction": ("prediction", "pred", "response", "output"),
    "reference": ("reference", "gold", "gold_letter", "target", "solution", "answer"),
    "options": ("options", "choices", "candidates"),
    "num_options": ("num_options", "n_options"),
    "problem_type": ("problem_type",),
    "group": ("group", "category", "question_type", "task_type", "type"),
    "video": ("video", "video_id", "video_path", "videoID", "vid", "path", "videos"),
    "question": ("question", "problem"),
}

Roles = Mapping[str, tuple[str, ...]]


def read_pairs(
    blind: str | Path,
    visual: str | Path,
    references: str | Path | None = None,
    *,
    blind_column: str | None = None,
    visual_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    problem_type: ProblemType | None = None,
) -> PairedPredictions:
    """Reads the blind and the visual run of one model and joins them by id, never by row position.

    Args:
        blind (`str` or `Path`): answers without the video, in any layout that `prediction_files.read_rows` opens.
        visual (`str` or `Path`): answers with it; may be the same file, with another column.
        references (`str` or `Path`, *optional*): gold answers, options, categories and videos, for prediction files
            that lack them; also a file of a dataset that `adapters.py` knows. What it has goes before theirs.
        blind_column (`str`, *optional*): which column of `blind` holds the answers.
        visual_column (`str`, *optional*): the same for `visual`.
        columns (`Mapping[str, str]`, *optional*): which column holds what, with the keys of `COLUMNS`, in every file
            that has the column. `id` may name several columns separated by commas.
        problem_type (`str`, *optional*): of the rows whose file does not say.

    Returns:
        `PairedPredictions`: in the order of the visual run, with the ids that are not in every file.

    Raises:
        `ValueError`: when a column is not found, an id is repeated, one id names two questions, or none is in every
            file.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "wide.csv")
        ...     _ = path.write_text("id,text,frames,answer\\nq1,A,B,B\\nq2,C,C,C\\n")
        ...     pairs = read_pairs(path, path, blind_column="text", visual_column="frames")
        >>> pairs.columns["blind_predictions"], pairs.columns["predictions"], pairs.columns["references"]
        (['A', 'C'], ['B', 'C'], ['B', 'C'])
    """
    mapping = columns or {}
    paths = [Path(blind), Path(visual)] + ([Path(references)] if references is not None else [])
    tables = [read_rows(path) for path in paths]
    _check_mapping(mapping, {name for table in tables for row in table for name in row})
    runs = [
        read_table(path.name, table, mapping, answers)
        for path, table, answers in zip(paths, tables, (blind_column or "", visual_column or "", None), strict=False)
    ]
    return join_runs(*runs, problem_type=problem_type)


def _check_mapping(mapping: Mapping[str, str], found: set[str]) -> None:
    for role, named in mapping.items():
        if role not in COLUMNS:
            raise ValueError(f"unknown mapping key {role!r}; allowed are {', '.join(COLUMNS)}")
        absent = [name for name in named.split(",") if name not in found]
        if absent:
            raise ValueError(f"no file has the column {absent[0]!r} mapped to {role}; found {cut_list(sorted(found))}")


def read_table(
    name: str, rows: Sequence[Row], mapping: Mapping[str, str], answers: str | None
) -> dict[str, PredictionRow]:
    """Reads the cells of one file.

    Args:
        name (`str`): the file's, for messages.
        rows (`Sequence[dict]`): as `read_rows` gives them.
        mapping (`Mapping[str, str]`): which column holds what, where the file has the column.
        answers (`str`, *optional*): the column of answers; empty to look for it, `None` when there need be none.

    Returns:
        `dict[str, PredictionRow]`: by id, in the file's order.

    Raises:
        `ValueError`: when ids or answers are not found, or an id is missing or repeated.

    Example:
        >>> read_table("run.csv", [{"qid": "q1", "pred": "B", "gold": "A"}], {}, "")["q1"].answer
        'B'
    """
    found = list(dict.fromkeys(column for row in rows for column in row))
    roles = _find_roles(found, mapping)
    if answers:
        roles["prediction"] = (answers,)
    if answers is not None and roles.get("prediction", ("",))[0] not in found:
        raise ValueError(
            f"{name} has no column {answers or 'of answers'}; found {cut_list(found)}. Name the one that holds them "
            "with --blind-column or --visual-column"
        )
    if "id" not in roles and "question" not in roles:
        raise ValueError(
            f"{name} has no column of ids; found {cut_list(found)}. Say which with --map id=COLUMN, or with "
            "--map id=COLUMN,COLUMN where only several together are unique"
        )
    known = next((convert for convert, needed, _ in ADAPTERS.values() if set(needed) <= set(found)), None)
    if known is not None and not mapping:
        read = [_convert_example(known(dict.fromkeys(found) | row), row, roles) for row in rows]
    else:
        read = [_convert_row(row, roles) for row in rows]
    nameless = [index for index, row in enumerate(read) if not row.id]
    if nameless:
        raise ValueError(f"{name} has no id in {list_rows(nameless)}; fill it in, or leave the row out")
    repeated = [key for key, times in Counter(row.id for row in read).items() if times > 1]
    if repeated:
        raise ValueError(
            f"{name} has repeated ids: {cut_list(repeated)}. Keep one row per question, or say which columns together "
            "are unique with --map id=COLUMN,COLUMN"
        )
    return {row.id: row for row in read}


def _find_roles(found: Sequence[str], mapping: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    roles = {}
    for role, usual in COLUMNS.items():
        named = tuple(mapping.get(role, "").split(","))
        if all(name in found for name in named):
            roles[role] = named
        elif any(name in found for name in usual):
            roles[role] = (next(name for name in usual if name in found),)
    letters = tuple(letter for letter in LETTERS if letter in found)
    if "options" not in roles and len(letters) > 1:
        roles["options"] = letters  # VLMEvalKit has a column per option
    return roles


def _convert_example(example: Example, row: Row, roles: Roles) -> PredictionRow:
    """Takes over what the adapter of a known dataset made of a row."""
    return PredictionRow(
        id=example.id,
        answer=_read_answer(row, roles),
        reference=example.answer,
        options=example.options,
        problem_type=example.problem_type,
        group=example.category,
        video=example.video,
    )


def _convert_row(row: Row, roles: Roles) -> PredictionRow:
    def cell(role: str) -> Any:
        return row.get(roles[role][0]) if role in roles else None

    several = len(roles.get("options", ())) > 1
    options = [row.get(name) for name in roles["options"]] if several else parse_options(cell("options"))
    options = [option for option in options or [] if not several or option is not None]
    video = cell("video")
    video = (video[0] if video else None) if isinstance(video, list) else video
    parts = [clean_cell(row.get(name)) or "" for name in roles.get("id", ())]
    num_options = clean_cell(cell("num_options"))
    if num_options is not None and not num_options.isdecimal():
        raise ValueError(f"{roles['num_options'][0]} must be a number of options; got {num_options!r}")
    return PredictionRow(
        id="_".join(parts) if parts else f"{clean_cell(video)}_{cell('question')}",
        answer=_read_answer(row, roles),
        reference=_read_cell(cell("reference")),
        options=tuple(strip_prefixes([clean_cell(option) or "" for option in options])),
        num_options=None if num_options is None else int(num_options),
        problem_type=name_problem_type(cell("problem_type"), bool(options)) if "problem_type" in roles else None,
        group=clean_cell(cell("group")),
        video=clean_cell(video),
    )


def _read_answer(row: Row, roles: Roles) -> str | int | None:
    """The answer; `None` where the harness wrote that there is none."""
    column = roles.get("prediction", ("",))[0]
    failed = any(str(row.get(name)).strip() in FAILED_ANSWERS for name in (column, "output"))
    return None if failed else _read_cell(row.get(column))


def _read_cell(value: Any) -> str | int | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
        return int(value)
    text = clean_cell(value)
    return None if text in (None, "", UNANSWERED) else text
