"""The heads of the task preference lab alone: taught on what the warmed-up model gives for task rows, which stays.

So each row is read once, and a step costs no pass of the language model.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from task_preference_lab_arms import Arm, load_base, make_fresh
from task_preference_lab_scores import BATCH_SIZE, LabCollator, score
from torch import Tensor, nn

from vidground_hf.task_preference.answers import size_masks
from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.generation import TaskPreferenceAnswer
from vidground_hf.task_preference.grading import grade_heads
from vidground_hf.task_preference.mask_conv import MaskOutput
from vidground_hf.task_preference.media_facts import MediaFacts
from vidground_hf.task_preference.modeling import TaskPreferenceOutput
from vidground_hf.task_preference.targets import Targets
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.task_preference.vision import lay_out, look

LEARNING_RATE, NUM_RISING_STEPS = 2e-3, 20
REPORT_STEPS = 50


class Seen(NamedTuple):
    """A batch of task rows, read once.

    Attributes:
        states (`dict[str, float[N, C]]`): of each task, at its task tokens.
        rows (`dict[str, int64[N]]`): of each task its rows.
        vision (`VisionFeatures`): B rows.
        media (`list[MediaFacts]`): B.
        targets (`Targets`): of the batch.
    """

    states: dict[str, Tensor]
    rows: dict[str, Tensor]
    vision: VisionFeatures
    media: list[MediaFacts]
    targets: Targets


def start_arm(arm: Arm, base: Path, output: Path, rows: Sequence[TaskRow], *, num_steps: int, seed: int) -> None:
    """Makes the model that an arm starts from, unless it is there: fresh tokens, and heads that were taught alone.

    Args:
        arm (`Arm`): what is learned; the heads of one that does not train them stay fresh.
        base (`Path`): of the warmed-up model.
        output (`Path`): gets the model, the processor and `log.json`.
        rows (`Sequence[TaskRow]`): for the heads.
        num_steps (`int`), seed (`int`): of their training.
    """
    if (output / "log.json").exists():
        return
    vlm, processor = load_base(base)
    model = make_fresh(vlm, processor, seed, arm.heads)
    log = teach_heads(model, processor, rows, num_steps=num_steps, seed=seed) if arm.has_heads else []
    model.save_pretrained(output)
    processor.save_pretrained(output)
    (output / "log.json").write_text(json.dumps(log, indent=1), encoding="utf-8")


def teach_heads(
    model: Any, processor: Any, rows: Sequence[TaskRow], *, num_steps: int, seed: int
) -> list[dict[str, float]]:
    """Trains all heads side by side, and nothing else.

    Returns:
        `list[dict[str, float]]`: the terms of every fiftieth step.
    """
    model.eval()
    rng = random.Random(seed)
    seen = [read_once(model, processor, own) for own in cut(rng.sample(rows, len(rows)))]
    optimizer = torch.optim.AdamW(model.heads.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    log = []
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min((step + 1) / NUM_RISING_STEPS, 2 * (1 - step / num_steps), 1.0)
        batch = rng.choice(seen)
        shown = model.choose_features(batch.vision, None)
        terms = grade_heads(model.heads, model.config.mask_loss, find(model, batch), batch.targets, shown, batch.media)
        optimizer.zero_grad()
        torch.stack([model.loss_weights[name] * term for name, term in terms.items()]).sum().backward()
        for head in model.heads.values():
            nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        if step % REPORT_STEPS == 0:
            log.append({"step": step, **{name: float(term.detach()) for name, term in terms.items()}})
    return log


def cut(rows: Sequence[TaskRow]) -> list[Sequence[TaskRow]]:
    return [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]


@torch.no_grad()
def read_once(model: Any, processor: Any, rows: Sequence[TaskRow]) -> Seen:
    """Runs the model over task rows as training has them, task tokens included."""
    batch = LabCollator(processor, "heads")(rows)
    targets, media = batch.pop("targets"), batch["media"]
    output = model(**batch)  # with labels alone the heads rest
    inputs = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    vision = lay_out(model.config.vlm_config, inputs, look(model.vlm, inputs)[0], media)
    asked = {task: places for task, places in output.rows.items() if len(places)}
    return Seen({task: output.states[task] for task in asked}, asked, vision, media, targets)


def find(model: Any, batch: Seen) -> TaskPreferenceOutput:
    """What the heads find."""
    found = model.run_heads(batch.states, batch.rows, model.choose_features(batch.vision, None))
    return TaskPreferenceOutput(states=batch.states, rows=batch.rows, **found)


def score_heads(model: Any, processor: Any, rows: Sequence[TaskRow]) -> dict[str, Any]:
    """Scores heads where the task tokens are given, as `task_preference_lab_scores.score` does; without dialogue."""
    asked = [row for row in rows if row.task != "dialogue"]
    model.eval()
    return score(asked, [one for own in cut(asked) for one in _answer(model, read_once(model, processor, own))])


@torch.no_grad()
def _answer(model: Any, batch: Seen) -> list[TaskPreferenceAnswer]:
    output = find(model, batch)
    answers: dict[int, TaskPreferenceAnswer] = {}
    for task, rows in batch.rows.items():
        for k, row in enumerate(rows.tolist()):
            facts = batch.media[row]
            if task == "moment":
                scores, order = output.moment.logits[-1, k].sigmoid().sort(descending=True)
                found = {"spans": output.moment.spans[-1, k][order] * facts.duration_seconds, "scores": scores}
            elif task == "box":
                found = {"boxes": output.box[k : k + 1] * torch.tensor([facts.width, facts.height] * 2)}
            else:
                drawn = MaskOutput(*(getattr(output.mask, part.name)[k : k + 1] for part in fields(output.mask)))
                found = size_masks(drawn, facts, is_sam=False) | {"mask_seconds": torch.tensor(facts.times_seconds)}
            answers[row] = TaskPreferenceAnswer(text="", tasks=(task,), **found)
    return [answers[row] for row in range(len(batch.media))]
