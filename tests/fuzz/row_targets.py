"""The target of adapters: a row of any cells becomes an example, whatever layout it is taken for.

Files are not opened here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.fuzz.outcomes import own_errors, read_json
from vidground_hf.adapters import ADAPTERS, find_adapter
from vidground_hf.layouts import Row
from vidground_hf.prompts import make_prompt
from vidground_hf.schema import Example
from vidground_hf.scoring import score_answer

_CELLS: dict[str, Any] = {
    "options": ["A. red", "B. blue"],
    "candidates": ["red", "blue", "green"],
    "answer": "B",
    "solution": "<answer>B</answer>",
    "problem_type": "multiple choice",
    "videos": ["clip.mp4"],
    "answer_idx": 1,
    "evidence_spans": [[0.0, 1.5], [2, 3]],
    "duration": 12.5,
}


def make_seeds() -> list[bytes]:
    """A row of every known layout, one with the usual names, and one in which each cell is odd."""
    rows = [{c: _CELLS.get(c, f"{c} 1") for c in (*needed, *more)} for _, needed, more in ADAPTERS.values()]
    usual = {"question": "Sky?", "options": "['red', 'blue']", "answer": 1, "video": ["v.mp4"], "group": "g", "id": 7}
    odd = {"question": None, "options": {"A": 1, "B": None}, "answer": 1e400, "evidence_spans": [[1]], "id": ""}
    return [json.dumps(row).encode() for row in [*rows, usual, odd]]


def check_rows(data: bytes, _: Path) -> None:
    """Every adapter takes every row; what cannot be judged says why, and what can is asked and scored."""
    row = read_json(data)
    if not isinstance(row, dict):
        return
    for name, (convert, needed, more) in ADAPTERS.items():
        filled: Row = dict.fromkeys(needed) | {column: row[column] for column in (*needed, *more) if column in row}
        _check_example(convert(filled), name)
    with own_errors(ValueError):
        adapter = find_adapter(list(row))
        _check_example(adapter.convert({column: row[column] for column in adapter.columns}), adapter.name)


def _check_example(example: Example, name: str) -> None:
    assert all(isinstance(text, str) for text in (example.id, example.question, *example.options)), name
    if example.defect is None:
        make_prompt(example, "text", tuple(range(len(example.options))))
        assert example.answer_index is None or 0 <= example.answer_index < len(example.options), name
        score = score_answer(example.answer or "", example)
        assert score is None or 0 <= score <= 1, name
