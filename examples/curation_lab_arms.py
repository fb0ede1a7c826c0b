"""The arms of the curation lab: which of the training questions each of them learns from.

What the base model knows blind is asked and judged by the library, as for any dataset and model.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from toy_vlm_data import ToySet

from vidground_hf import calibrated, curate, load_answerer, open_dataset, single_shot

ARMS = {
    "full": "all questions",
    "random": "as many as calibrated keeps, drawn by the seed of the run",
    "single_shot": "those that one blind try of the base model gets wrong (VidGround's rule)",
    "calibrated": "those that the base model's blind answers do not show it knows",
    "probe": "those that a probe of the text does not answer",
    "planted": "those that were made to need the video",
    "refresh": "all questions; those known blind, asked anew every 25 steps, weigh nothing",
    "look": "all questions; a right choice earns what it earns with the clip less what it earns blind",
}
STANDARD_ARMS = ("full", "random", "single_shot", "calibrated", "planted")
CONTROL_ARMS = ("full", "single_shot", "calibrated", "planted")


def judge_questions(base: Path, questions: Path, arms: list[str]) -> dict[str, list[str]]:
    """Asks the base model and the probe blind, and lists the questions that each rule keeps.

    Args:
        base (`Path`): folder of the base model.
        questions (`Path`): folder of the training questions.
        arms (`list[str]`): of the lab; only what they need is asked.

    Returns:
        `dict[str, list[str]]`: by rule, the ids kept; questions left undecided are kept too.
    """
    dataset = open_dataset(questions)
    kept = {}
    for name, rule in (("single_shot", single_shot()), ("calibrated", calibrated())):
        done = curate(dataset, answerer=load_answerer(f"transformers:{base}"), rule=rule)
        kept[name] = list_kept(done.splits)
    if "probe" in arms:
        kept["probe"] = list_kept(curate(dataset).splits)
    return kept


def list_kept(splits: Any) -> list[str]:
    """The ids of all rows but the text-answerable ones."""
    return [row_id for name in splits if name != "text_answerable" for row_id in splits[name]["id"]]


def choose_questions(arm: str, toy_set: ToySet, kept: dict[str, list[str]], seed: int) -> set[str]:
    """The ids of the questions of an arm.

    Args:
        arm (`str`): a key of `ARMS`.
        toy_set (`ToySet`): of training.
        kept (`dict[str, list[str]]`): from `judge_questions`.
        seed (`int`): of the run; the random arm draws by it.
    """
    rows = [row for part in toy_set.rows for row in part]
    if arm == "random":
        return set(random.Random(seed).sample([row["id"] for row in rows], len(kept["calibrated"])))
    if arm == "planted":
        return {row["id"] for row in rows if row["needs"] != "text"}
    return set(kept[arm]) if arm in kept else {row["id"] for row in rows}


def describe_kept(toy_set: ToySet, kept: set[str]) -> dict[str, int]:
    """How many questions of each kind are kept."""
    needs = {row["id"]: row["needs"] == "text" for part in toy_set.rows for row in part}
    num_text = sum(needs[row_id] for row_id in kept)
    return {
        "num_kept": len(kept),
        "num_text_left": num_text,
        "num_visual_lost": sum(not n for n in needs.values()) - len(kept) + num_text,
    }
