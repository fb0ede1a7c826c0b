"""Small question sets with a known shortcut, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from vidground_hf.answerers.base import Answer
from vidground_hf.prompts import Prompt

NOUNS = ["cup", "hat", "dog", "tree", "lamp", "road", "bird", "coat", "ship", "stone", "chair", "river"]


def make_rows(num_rows: int = 120, *, shortcut_share: float = 0.5, seed: int = 0) -> list[dict[str, Any]]:
    """Four-option questions, four a video; in `shortcut_share` of them the gold alone says "because"."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(num_rows):
        first = rng.permutation(NOUNS)[:4]  # so that no two options are the same
        options = [f"{noun} {' '.join(rng.choice(NOUNS, size=2))}" for noun in first]
        gold = int(rng.integers(4))
        has_shortcut = bool(rng.random() < shortcut_share)
        if has_shortcut:
            options[gold] = f"because {options[gold]}"
        rows.append(
            {
                "id": f"q{index}",
                "video": f"clip_{index // 4}.mp4",
                "question": f"why does the {rng.choice(NOUNS)} {rng.choice(NOUNS)} {index}",
                "options": options,
                "answer": "ABCD"[gold],
                "needs": "text" if has_shortcut else "video",
            }
        )
    return rows


def make_dataset(num_rows: int = 120, **settings: Any) -> Dataset:
    return Dataset.from_list(make_rows(num_rows, **settings))


class LetterAnswerer:
    """Answers with the letter that a question names last, and fails where the question says so."""

    id = "letter"

    def __init__(self) -> None:
        self.num_asked = 0

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        self.num_asked += len(prompts)
        return [
            Answer(text=None, error="timed out") if "fail" in (prompt.question or "") else Answer(text="A")
            for prompt in prompts
        ]
