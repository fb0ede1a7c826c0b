"""Prediction files of evaluation harnesses, opened as rows with one answer each.

What the columns of a row mean, and which rows belong together, is decided in `predictions.py`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidground_hf.schema import LETTERS
from vidground_hf.stats.checks import UNANSWERED, list_rows

Row = dict[str, Any]

# What harnesses write in place of an answer when a request failed: VLMEvalKit (its constant FAIL_MSG), and Video-R1's
# evaluation script for a whole batch.
FAILED_ANSWERS = ("Failed to obtain answer via API.", "<answer>error</answer>")


# A whole number as csv writers put it; pandas adds ".0" where the column has an empty cell. "007" is a name.
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.0)?")


def read_rows(path: str | Path) -> list[Row]:
    """Reads a prediction file, or a file of references.

    Understood are csv and tsv (also VLMEvalKit's), jsonl (also the samples of lm-evaluation-harness and lmms-eval),
    json (a list of rows, a mapping of ids to rows or answers, or `{"results": rows}` as Video-R1 and EasyVideoR1 write
    it), and inspect_ai logs (`.eval`, or their json).

    Args:
        path (`str` or `Path`): the file.

    Returns:
        `list[dict]`: the columns as they are in the file; in csv, empty cells are `None` and columns of whole numbers
        `int`. Rows of harness logs have `id`, `prediction`, `reference` and, where the log has them, `options` beside
        the columns of the dataset.

    Raises:
        `ValueError`: for another extension, or a file that cannot be read as its extension says.
        `ImportError`: for an inspect_ai log without inspect_ai.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "run.csv")
        ...     _ = path.write_text("id,prediction\\nq1,B\\nq2,\\n")
        ...     read_rows(path)
        [{'id': 'q1', 'prediction': 'B'}, {'id': 'q2', 'prediction': None}]
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"cannot read {path.name!r}; allowed are {', '.join(_READERS)} files")
    try:
        rows = reader(path)
    except (ValueError, RecursionError, csv.Error) as error:
        raise ValueError(f"cannot read {path.name!r} as {path.suffix[1:]}: {error}") from error
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"{path.name!r} holds no rows; pass a file with one question a row")
    return _read_samples(rows) if _is_harness_log(rows[0]) else rows


def _read_csv(path: Path, delimiter: str = ",") -> list[Row]:
    rows: list[Row] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
        for row in reader:
            if None in row:
                raise csv.Error(
                    f"line {reader.line_num} has more cells than the first; put quotes around texts with {delimiter!r}"
                )
            rows.append({name: cell or None for name, cell in row.items()})
    for name in rows[0] if rows else ():
        filled = [row for row in rows if row[name] is not None]
        if all(_WHOLE_NUMBER.fullmatch(row[name]) for row in filled):
            for row in filled:
                row[name] = int(row[name].removesuffix(".0"))
    return rows


def _read_tsv(path: Path) -> list[Row]:
    return _read_csv(path, delimiter="\t")


def _read_jsonl(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _read_json(path: Path) -> list[Row]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return content if isinstance(content, list) else []
    if "eval" in content and "samples" in content:
        return _read_inspect(path)
    if isinstance(content.get("results"), list):
        return content["results"]
    return [{**cell, "id": key} if isinstance(cell, dict) else {"id": key, "prediction": cell}
            for key, cell in content.items()]  # fmt: skip


def _read_inspect(path: Path) -> list[Row]:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise ImportError(f"reading the log {path.name!r} needs inspect_ai: pip install inspect_ai") from error
    log = read_eval_log(str(path))
    samples = log.samples or []
    several = len({sample.epoch for sample in samples}) > 1
    return [
        {
            **sample.metadata,
            "id": f"{sample.id} epoch {sample.epoch}" if several else sample.id,
            "prediction": UNANSWERED if sample.error else sample.output.completion,
            "reference": _read_target(sample.target),
            "options": sample.choices,
        }
        for sample in samples
    ]


def _read_target(target: str | Sequence[str]) -> str | None:
    """The reference of a sample; `None` where several are right, which no scorer here can grade."""
    if isinstance(target, str):
        return target
    return target[0] if len(target) == 1 else None


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".eval": _read_inspect,
}


def _is_harness_log(row: Row) -> bool:
    return "doc_id" in row and ("resps" in row or "filtered_resps" in row)


def _read_samples(rows: Sequence[Row]) -> list[Row]:
    """Samples of lm-evaluation-harness and lmms-eval, which write one row per question and answer filter.

    The unfiltered answer is read where it is logged: it is the same for every filter, so the first one's rows do.
    """
    others = [index for index, row in enumerate(rows) if not _is_harness_log(row)]
    if others:
        raise ValueError(
            f"{list_rows(others)} have no doc_id and answers as the first row has; pass one run's samples"
        )
    filters = [row.get("filter") for row in rows]
    return [_read_sample(row) for row, name in zip(rows, filters, strict=True) if name == filters[0]]


def _read_sample(row: Row) -> Row:
    answers = [_unwrap(answer) for answer in _make_list(row.get("resps") or row.get("filtered_resps"))]
    columns = dict(row["doc"]) if isinstance(row.get("doc"), dict) else {}
    columns |= {"id": row["doc_id"], "reference": row.get("target")}
    if len(answers) > 1 and all(_is_log_likelihood(answer) for answer in answers):
        if len(answers) > len(LETTERS):
            raise ValueError(
                f"sample {row['doc_id']} has {len(answers)} scored options; letters name {len(LETTERS)} at most. "
                "Leave the sample out"
            )
        likeliest = max(range(len(answers)), key=lambda k: float(answers[k][0]))
        columns |= {"prediction": LETTERS[likeliest], "num_options": len(answers)}
        options = _list_continuations(row.get("arguments"))
        return columns | ({"options": options} if len(options) == len(answers) else {})
    first = answers[0] if answers else None
    return columns | {"prediction": first[0] if isinstance(first, list) and first else first}


def _make_list(cell: Any) -> list[Any]:
    """A list as it is, the values of a mapping, nothing for a missing cell, and anything else alone."""
    if isinstance(cell, dict):
        return list(cell.values())
    return cell if isinstance(cell, list) else [] if cell is None else [cell]


def _unwrap(answer: Any) -> Any:
    while isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return answer


def _is_log_likelihood(answer: Any) -> bool:
    """Whether an answer is a pair of log-likelihood and greediness, written as `["-1.25", "False"]`."""
    if not isinstance(answer, list) or len(answer) != 2 or str(answer[1]) not in ("True", "False"):
        return False
    try:
        float(answer[0])
    except (TypeError, ValueError):
        return False
    return True


def _list_continuations(arguments: Any) -> list[str]:
    """The options that were scored: the second argument of each request, logged as a mapping or a list."""
    pairs = [_make_list(request) for request in _make_list(arguments)]
    return [str(pair[1]).strip() for pair in pairs if len(pair) > 1]
