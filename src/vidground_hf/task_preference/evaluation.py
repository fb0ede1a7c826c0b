"""How right a model's answers are: every task by its own metric, and which head was called for which request.

Answers are made by `TaskPreferenceModel.generate`; the figures are those of `metrics/`, from `vidground_hf.stats`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import send_to_device

from vidground_hf.stats.gap import run_mcnemar
from vidground_hf.stats.intervals import bootstrap_mean
from vidground_hf.task_preference.answers import TaskPreferenceAnswer
from vidground_hf.task_preference.collating import TaskPreferenceCollator
from vidground_hf.task_preference.configuration import TASKS
from vidground_hf.task_preference.evaluation_scores import (
    is_right,
    name_media,
    score_boxes,
    score_highlight_rows,
    score_masks,
    score_moments,
    score_reasoning,
    score_tracks,
)
from vidground_hf.task_preference.row_text import read_written_labels
from vidground_hf.task_preference.task_rows import TaskRow

Answers = Sequence[TaskPreferenceAnswer]


@torch.no_grad()
def answer_rows(
    model: Any,
    collator: TaskPreferenceCollator,
    rows: Sequence[TaskRow],
    *,
    batch_size: int = 8,
    max_new_tokens: int = 640,
    **settings: Any,
) -> list[TaskPreferenceAnswer]:
    """Asks a model every row.

    Args:
        model (`TaskPreferenceModel`): in evaluation mode for the time.
        collator (`TaskPreferenceCollator`): for its words and frames; one with `wording="held_out"` asks in words that
            were not trained on. With `answers="text"` the labels are read from what was written, and no head answers.
        rows (`Sequence[TaskRow]`): of any tasks.
        batch_size (`int`, *optional*, defaults to 8): rows of one generation.
        max_new_tokens (`int`, *optional*, defaults to 640): of each answer; masks written out for 16 frames have
            fewer characters. An answer that is cut off is not `is_finished`.
        settings: what else `generate` takes; `do_sample=False` and `repetition_penalty=1.0` unless they say otherwise,
            whatever the checkpoint's own are.

    Returns:
        `list[TaskPreferenceAnswer]`: one for each row.

    Example:
        >>> answers = answer_rows(model, collator, rows)  # doctest: +SKIP
        >>> score_answers(rows, answers)["routing"]["accuracy"]  # doctest: +SKIP
        0.98
    """
    settings = {"do_sample": False, "repetition_penalty": 1.0} | settings
    was_training = model.training
    model.eval()
    answers: list[TaskPreferenceAnswer] = []
    try:
        for start in range(0, len(rows), batch_size):
            asked = rows[start : start + batch_size]
            inputs = send_to_device(collator.collate_prompts(asked), model.device)
            if collator.answers == "text":
                inputs.pop("media")  # heads rest, whatever is written
            found = model.generate(
                **inputs, tokenizer=collator.processor.tokenizer, max_new_tokens=max_new_tokens, **settings
            )
            if collator.answers == "text":
                found = [read_written_labels(row, answer) for row, answer in zip(asked, found, strict=True)]
            answers += found
    finally:
        model.train(was_training)
    return answers


def score_answers(rows: Sequence[TaskRow], answers: Answers) -> dict[str, dict[str, Any]]:
    """Scores answers to rows of any tasks.

    A row that was not answered by its head counts as wrong, and is counted in `num_missing`.

    Args:
        rows (`Sequence[TaskRow]`): N rows.
        answers (`Sequence[TaskPreferenceAnswer]`): N answers.

    Returns:
        `dict[str, dict]`: `routing` (see `score_routing`), and by what the rows hold the figures of a metric:
        `moments` (`temporal_grounding`), `highlights` (`highlight_detection`), `reasoning` (`grounded_qa`), `boxes`
        (`box_grounding`), `masks` (`video_segmentation`, and `j_present` over frames that show the object), `tracks`
        (`object_tracking`, of rows whose masks are boxes), `dialogue` (`accuracy`, `num_examples`). Fractions in
        [0, 1].

    Raises:
        `ValueError`: for another number of answers than rows.
    """
    if len(rows) != len(answers):
        raise ValueError(f"got {len(rows)} rows and {len(answers)} answers; pass one answer for each row")
    scores: dict[str, dict[str, Any]] = {"routing": score_routing(rows, answers)}
    pairs = list(zip(rows, answers, strict=True))
    for name, is_meant, score in (
        ("moments", lambda row: row.task == "moment", score_moments),
        ("highlights", lambda row: bool(row.ratings), score_highlight_rows),
        ("reasoning", lambda row: row.task == "moment" and row.answer is not None, score_reasoning),
        ("boxes", lambda row: row.task == "box", score_boxes),
        ("masks", lambda row: row.task == "mask" and not _is_track(row), score_masks),
        ("tracks", lambda row: row.task == "mask" and _is_track(row), score_tracks),
        ("dialogue", lambda row: row.task == "dialogue", _score_dialogue),
    ):
        meant = [pair for pair in pairs if is_meant(pair[0])]
        if meant:
            scores[name] = score([row for row, _ in meant], [answer for _, answer in meant])
    return scores


def score_routing(rows: Sequence[TaskRow], answers: Answers) -> dict[str, Any]:
    """Says whether the right head was called, which the paper does not report.

    Args:
        rows (`Sequence[TaskRow]`): N rows.
        answers (`Sequence[TaskPreferenceAnswer]`): N answers.

    Returns:
        `dict`: `accuracy`, the share of task rows whose answer calls their head once and no other; `accuracy_<task>`;
        `false_triggers`, the share of dialogue rows whose answer calls any head; `num_tasks` and `num_dialogue`, rows
        behind these; `unforced`, the share of task tokens that the model would have written behind their trigger by
        itself, and `num_forced`, the others; `num_unfinished`, answers to any rows that were cut off; `called`, by
        task of the row how often each head was called (`"none"`, `"several"` among them). `None` where there is
        nothing to count.

    Example:
        >>> row = TaskRow(id="1", task="dialogue", question="Who?", answer="A dog.")
        >>> score_routing([row], [TaskPreferenceAnswer(text="", tasks=("box",))])["false_triggers"]
        1.0
    """
    called: dict[str, dict[str, int]] = {}
    for row, answer in zip(rows, answers, strict=True):
        name = "none" if not answer.tasks else answer.tasks[0] if len(answer.tasks) == 1 else "several"
        counts = called.setdefault(row.task, {})
        counts[name] = counts.get(name, 0) + 1
    totals = {task: sum(counts.values()) for task, counts in called.items()}
    right = {task: called[task].get(task, 0) for task in TASKS if task in called}
    num_tasks, num_dialogue = sum(totals[task] for task in right), totals.get("dialogue", 0)
    silent = called.get("dialogue", {}).get("none", 0)
    unforced = [own for answer in answers for own in answer.unforced]
    return {
        "accuracy": sum(right.values()) / num_tasks if num_tasks else None,
        **{f"accuracy_{task}": right[task] / totals[task] if task in right else None for task in TASKS},
        "false_triggers": (num_dialogue - silent) / num_dialogue if num_dialogue else None,
        "num_tasks": num_tasks,
        "num_dialogue": num_dialogue,
        "unforced": sum(unforced) / len(unforced) if unforced else None,
        "num_forced": unforced.count(False),
        "num_unfinished": sum(not answer.is_finished for answer in answers),
        "called": called,
    }


def measure_forgetting(
    rows: Sequence[TaskRow], before: Answers, after: Answers, *, num_resamples: int = 10_000, seed: int = 0
) -> dict[str, Any]:
    """Compares dialogue before and after training, row by row.

    Args:
        rows (`Sequence[TaskRow]`): N rows; those of other tasks are left out.
        before (`Sequence[TaskPreferenceAnswer]`), after (`Sequence[TaskPreferenceAnswer]`): N answers each.
        num_resamples (`int`, *optional*, defaults to 10000): of the bootstrap.
        seed (`int`, *optional*, defaults to 0): of the same.

    Returns:
        `dict`: `accuracy_before`, `accuracy_after`, `change` with `change_low` and `change_high` (95 %, bootstrap over
        videos and images), `p_value` (McNemar's exact test), `num_forgotten` rows that only the model before got
        right, `num_learned` the reverse, `num_examples`, `num_other_tasks` rows that are no dialogue.

    Raises:
        `ValueError`: for no dialogue rows, and other numbers of answers than rows.
    """
    if not len(rows) == len(before) == len(after):
        raise ValueError(f"got {len(rows)} rows, {len(before)} answers before and {len(after)} after; pass one each")
    asked = [place for place, row in enumerate(rows) if row.task == "dialogue"]
    if not asked:
        raise ValueError(f"none of {len(rows)} rows is dialogue; pass rows whose answers in words are known")
    was_right = [is_right(rows[place], before[place]) for place in asked]
    now_right = [is_right(rows[place], after[place]) for place in asked]
    pairs = list(zip(was_right, now_right, strict=True))
    clusters = [name_media(rows[place]) for place in asked]
    change = bootstrap_mean(
        [float(now) - float(was) for was, now in pairs], clusters=clusters, num_resamples=num_resamples, seed=seed
    )
    forgotten, learned = pairs.count((True, False)), pairs.count((False, True))
    return {
        "accuracy_before": sum(was_right) / len(asked),
        "accuracy_after": sum(now_right) / len(asked),
        "change": change.value,
        "change_low": change.low,
        "change_high": change.high,
        "p_value": run_mcnemar(forgotten, learned),
        "num_forgotten": forgotten,
        "num_learned": learned,
        "num_examples": len(asked),
        "num_other_tasks": len(rows) - len(asked),
    }


def _score_dialogue(rows: Sequence[TaskRow], answers: Answers) -> dict[str, Any]:
    right = [is_right(row, answer) for row, answer in zip(rows, answers, strict=True)]
    return {"accuracy": sum(right) / len(right), "num_examples": len(right)}


def _is_track(row: TaskRow) -> bool:
    return any(mask and mask.startswith("[") for mask in row.masks)
