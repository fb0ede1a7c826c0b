"""One run of the curation lab: a base model is post-trained on the questions of one arm and asked what it can.

Which questions an arm has is decided in `curation_lab_arms.py`, from the base model and before any run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from curation_lab_policy import Policy, draw_batches
from toy_vlm_data import ToySet

REFRESH_STEPS = 25  # between two times that the policy is asked what it knows blind


@dataclass(frozen=True, slots=True, kw_only=True)
class LabSets:
    """The questions of the lab.

    Attributes:
        train (`ToySet`): to learn from.
        held_out (`ToySet`): other clips and questions, with as many cues.
        moved (`ToySet`): still others, where every cue points to a wrong option.
    """

    train: ToySet
    held_out: ToySet
    moved: ToySet


def post_train(
    policy: Policy, sets: LabSets, arm: str, kept: set[str], seed: int, num_steps: int, mark_steps: int
) -> dict[str, Any]:
    """Trains on an arm and measures on the way and at the end.

    Args:
        policy (`Policy`): the base model.
        sets (`LabSets`): questions.
        arm (`str`): a key of `ARMS`.
        kept (`set[str]`): ids of the training questions of this arm.
        seed (`int`): of batches, the same one for each arm.
        num_steps (`int`): of GRPO, a multiple of `mark_steps`.
        mark_steps (`int`): after so many steps each, the held-out questions are asked with the clip.

    Returns:
        `dict`: `curve` (step and accuracies of each mark) and the accuracies at the end, see `measure_views`.
    """
    rows = [[row for row in part if row["id"] in kept] for part in sets.train.rows]
    batches = draw_batches(rows, seed)
    weights: dict[str, float] = {}
    curve: list[dict[str, Any]] = []
    rewards = []
    for step in range(num_steps):
        if arm == "refresh" and step % REFRESH_STEPS == 0:
            weights = dict.fromkeys(policy.find_known(list_questions(rows)), 0.0)
        rewards.append(policy.step(next(batches), look=arm == "look", weights=weights))
        if (step + 1) % mark_steps == 0:
            curve.append({"step": step + 1, **measure_views(policy, sets.held_out, ["video"])})
    result = measure_views(policy, sets.held_out, ["text"])
    result |= {name: value for name, value in curve[-1].items() if name != "step"}
    result |= {f"moved_{name}": value for name, value in measure_views(policy, sets.moved, ["video", "text"]).items()}
    return {"arm": arm, "seed": seed, "num_steps": num_steps, "curve": curve, "rewards": rewards, **result}


def measure_views(policy: Policy, toy_set: ToySet, views: list[str]) -> dict[str, float]:
    """Accuracies of all questions, those that text answers, and those that need the video.

    Returns:
        `dict[str, float]`: for each view `full_`, `ta_` and `vg_` with its name; a set without such questions has none
        of that.
    """
    is_text = np.array([row["needs"] == "text" for rows in toy_set.rows for row in rows])
    chosen = {"full": np.ones_like(is_text), "ta": is_text, "vg": ~is_text}
    found = {}
    for view in views:
        is_right = policy.grade(toy_set, view, seed=0)
        found |= {f"{name}_{view}": float(is_right[part].mean()) for name, part in chosen.items() if part.any()}
    return found


def list_questions(rows: list[list[dict[str, Any]]]) -> list[tuple[int, list[dict[str, Any]]]]:
    """Every question, one a group, under a clip that does not matter: they are asked blind."""
    return [(clip, [row]) for clip, part in enumerate(rows) for row in part]


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Writes a result whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, indent=1), encoding="utf-8")
    partial.replace(path)
