"""Rows for benchmarks: questions made from a small vocabulary, some with a wording shortcut. Seeded, no files."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

_WORDS = 4000
_TEMPLATES = (
    "why does the {} {}",
    "what did the {} do after the {}",
    "how many {} are near the {}",
    "where is the {} {}",
)


def make_rows(num_rows: int, *, seed: int = 0, shortcut_share: float = 0.3, rows_per_video: int = 8) -> Dataset:
    """Multiple-choice rows with four options; in `shortcut_share` of them the gold is the only option with `because`.

    Example:
        >>> make_rows(8).column_names
        ['id', 'video', 'question', 'options', 'answer', 'category']
    """
    rng = np.random.default_rng(seed)
    words = np.array([f"w{k}" for k in range(_WORDS)])
    frequency = 1.0 / np.arange(1, _WORDS + 1)
    drawn = words[rng.choice(_WORDS, size=(num_rows, 18), p=frequency / frequency.sum())]
    gold = rng.integers(4, size=num_rows)
    has_shortcut = rng.random(num_rows) < shortcut_share
    template = rng.integers(len(_TEMPLATES), size=num_rows)
    rows: dict[str, list[object]] = {name: [] for name in ("id", "video", "question", "options", "answer", "category")}
    for index in range(num_rows):
        line = drawn[index]
        options = [" ".join(line[2 + 4 * k : 6 + 4 * k]) for k in range(4)]
        if has_shortcut[index]:
            options[gold[index]] = "because " + options[gold[index]]
        rows["id"].append(str(index))
        rows["video"].append(f"clip_{index // rows_per_video}.mp4")
        rows["question"].append(_TEMPLATES[template[index]].format(line[0], line[1]))
        rows["options"].append(options)
        rows["answer"].append("ABCD"[gold[index]])
        rows["category"].append(f"kind_{template[index]}")
    return Dataset.from_dict(rows)
