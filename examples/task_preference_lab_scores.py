"""How right the models of the task preference lab are on held-out clips, and what their task states carry.

Scores are the library's; baselines are in `task_preference_lab_baselines.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from task_preference_lab_baselines import find_clip, read_cue, read_kind
from task_preference_lab_warmup import BUDGET

from vidground_hf.task_preference.collating import Answers, TaskPreferenceCollator
from vidground_hf.task_preference.configuration import TASKS
from vidground_hf.task_preference.evaluation import answer_rows, score_answers
from vidground_hf.task_preference.evaluation_scores import is_right
from vidground_hf.task_preference.generation import TaskPreferenceAnswer
from vidground_hf.task_preference.row_media import ShownMedia
from vidground_hf.task_preference.task_rows import TaskRow

Rows = Sequence[TaskRow]
# The figure of each task that runs are compared by, as `score_answers` names it.
FIGURES = {
    "moment": ("moments", "r1@0.5"),
    "box": ("boxes", "acc@0.5"),
    "mask": ("masks", "j_present"),
    "dialogue": ("dialogue", "accuracy"),
}
BATCH_SIZE = 32
MAX_NEW_TOKENS = {"heads": 6, "text": 110}  # masks of eight frames in words


class LabCollator(TaskPreferenceCollator):
    """The library's collator, for the lab's frames; it reads each of the small clips once."""

    def __init__(self, processor: Any, answers: Answers, **settings: Any) -> None:
        super().__init__(processor, budget=BUDGET, answers=answers, **settings)
        self.shown: dict[Any, ShownMedia | None] = {}

    def _read_media(self, row: TaskRow) -> ShownMedia | None:
        if row.video not in self.shown:
            self.shown[row.video] = super()._read_media(row)
        return self.shown[row.video]


def ask(model: Any, processor: Any, rows: Rows, answers: Answers, **settings: Any) -> list[TaskPreferenceAnswer]:
    """Asks a model every row; those of a task together, for their answers are as long.

    Args:
        model (`TaskPreferenceModel`), processor (`ProcessorMixin`): of an arm.
        rows (`Sequence[TaskRow]`): N rows.
        answers (`str`): as the arm was trained.
        settings: of the collator, such as `wording` or `is_blind`.

    Returns:
        `list[TaskPreferenceAnswer]`: N.
    """
    collator = LabCollator(processor, answers, **settings)
    order = sorted(range(len(rows)), key=lambda k: rows[k].task)
    found = answer_rows(
        model,
        collator,
        [rows[k] for k in order],
        batch_size=BATCH_SIZE,
        max_new_tokens=MAX_NEW_TOKENS[answers],
        do_sample=False,
    )
    by_row = dict(zip(order, found, strict=True))
    return [by_row[k] for k in range(len(rows))]


def swap_clips(rows: Rows) -> list[TaskRow]:
    """The same questions about another clip: the next one that rows have."""
    videos = list(dict.fromkeys(row.video for row in rows))
    following = dict(zip(videos, [*videos[1:], videos[0]], strict=True))
    return [replace(row, video=following[row.video]) for row in rows]


def score(rows: Rows, answers: Sequence[TaskPreferenceAnswer | None]) -> dict[str, Any]:
    """Figures of answers, and what each row counts for.

    Args:
        rows (`Sequence[TaskRow]`): N rows.
        answers (`Sequence[TaskPreferenceAnswer | None]`): N; rows without are left out.

    Returns:
        `dict`: `figures` as `score_answers` gives them, `by_kind` of dialogue, `values`: of each task by row id what
        the mean of is its figure in `FIGURES`.
    """
    pairs = [(row, answer) for row, answer in zip(rows, answers, strict=True) if answer is not None]
    figures = score_answers([row for row, _ in pairs], [answer for _, answer in pairs])
    values: dict[str, dict[str, float]] = {}
    kinds: dict[str, list[bool]] = {}
    for row, answer in pairs:
        name, figure = FIGURES[row.task]
        values.setdefault(row.task, {})[row.id] = float(score_answers([row], [answer])[name][figure])
        if row.task == "dialogue":
            kinds.setdefault(read_kind(row), []).append(is_right(row, answer))
    return {
        "figures": figures,
        "by_kind": {kind: float(np.mean(right)) for kind, right in sorted(kinds.items())},
        "values": values,
    }


@torch.no_grad()
def read_states(model: Any, processor: Any, rows: Rows) -> dict[str, NDArray[np.float32]]:
    """The task states of task rows as training has them, of each task `float32[N, C]` in the order of its rows."""
    collator = LabCollator(processor, "heads")
    found: dict[str, list[NDArray[np.float32]]] = {}
    model.eval()
    for task in TASKS:
        own = [row for row in rows if row.task == task]
        for start in range(0, len(own), BATCH_SIZE):
            batch = collator(own[start : start + BATCH_SIZE])
            batch.pop("targets")  # with labels alone the heads rest
            found.setdefault(task, []).append(model(**batch).states[task].numpy())
    return {task: np.concatenate(states) for task, states in found.items()}


def probe_states(model: Any, processor: Any, train: Rows, rows: Rows) -> dict[str, dict[str, float]]:
    """How well logistic regressions, fitted on training rows, read the reference from the task states of others.

    Returns:
        `dict[str, dict[str, float]]`: of each task the accuracy of `colour`, `shape` and `place`, in [0, 1].
    """
    fitted, tested = (read_states(model, processor, part) for part in (train, rows))
    result: dict[str, dict[str, float]] = {}
    for task in fitted:
        result[task] = {}
        for name in ("colour", "shape", "place"):
            wanted, right = ([read_trait(row, name) for row in part if row.task == task] for part in (train, rows))
            reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, C=0.1))
            result[task][name] = float(reader.fit(fitted[task], wanted).score(tested[task], right))
    return result


def read_trait(row: TaskRow, name: str) -> str:
    """Colour, shape or place that a task row refers to; an empty place where it names none."""
    colour, shape = row.question.split()[-2:]
    return {"colour": colour, "shape": shape, "place": read_cue(row)}[name]


__all__ = ["FIGURES", "LabCollator", "ask", "find_clip", "probe_states", "read_trait", "score", "swap_clips"]
