"""A question set as dirty as real ones, from a seed.

Which rows may be judged is not said here: the first undisturbed run says it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tests.hostile_texts import make_hostile_texts
from tests.questions import make_rows

_DIRT: list[dict[str, Any]] = [
    {"answer": None},
    {"answer": "none of these"},
    {"options": []},
    {"problem_type": "free-form", "options": [], "answer": "two of them ran"},
    {"problem_type": "bbox", "question": ""},
]


def make_messy_rows(num_rows: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of which a third is dirty: without a gold, without options, repeated, hostile or of another type.

    `row` counts them. It is no column that the adapter reads, so that two rows may be equal to all but the counter.
    """
    rng = random.Random(seed)
    hostile = [text.encode(errors="replace").decode() for text in make_hostile_texts(num_rows, seed)]
    rows = make_rows(num_rows, seed=seed)
    for index, row in enumerate(rows):
        kind = rng.randrange(2 * (len(_DIRT) + 4))
        row |= {"problem_type": "multiple choice"} | (_DIRT[kind] if kind < len(_DIRT) else {})
        if kind == len(_DIRT):
            row["options"][1] = row["options"][0]
        elif kind == len(_DIRT) + 1:
            row["question"] = hostile[index]
        elif kind == len(_DIRT) + 2:
            row["options"][rng.randrange(4)] = hostile[index]
        elif kind == len(_DIRT) + 3:
            row |= rows[rng.randrange(index + 1)]
    return [{"row": index, **row} for index, row in enumerate(rows)]


def write_messy_set(path: Path, num_rows: int, seed: int = 0) -> None:
    """Writes the rows as jsonl."""
    lines = (json.dumps(row, ensure_ascii=False) for row in make_messy_rows(num_rows, seed))
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
