"""The heads of the task preference lab alone: an oracle query in place of the task state, on features that stay.

What they do not find, no arm can.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from task_preference_lab_arms import load_base, make_fresh
from task_preference_lab_scores import BATCH_SIZE, make_collator, read_trait, score
from torch import Tensor, nn
from torch.nn.functional import interpolate

from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.generation import TaskPreferenceAnswer
from vidground_hf.task_preference.grading import grade_heads
from vidground_hf.task_preference.losses import WEIGHTS
from vidground_hf.task_preference.media_facts import MediaFacts
from vidground_hf.task_preference.modeling import TaskPreferenceOutput
from vidground_hf.task_preference.targets import Targets
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.task_preference.vision import lay_out, look
from vidground_hf.toy_world import COLOURS, PLACES, SHAPES

TRAITS = {"colour": COLOURS, "shape": SHAPES, "place": ("", *PLACES)}
LEARNING_RATE = 1e-3


class Seen(NamedTuple):
    """A batch of task rows, looked at once.

    Attributes:
        traits (`int64[B, 3]`): colour, shape and place of the references.
        rows (`dict[str, int64[N]]`): of each task its rows.
        vision (`VisionFeatures`): B rows.
        media (`list[MediaFacts]`): B.
        targets (`Targets`): of the batch.
    """

    traits: Tensor
    rows: dict[str, Tensor]
    vision: VisionFeatures
    media: list[MediaFacts]
    targets: Targets


class OracleQuery(nn.Module):
    """A vector for each reference, learned: the sum of one for its colour, one for its shape and one for its place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.vectors = nn.ModuleList(nn.Embedding(len(names), width) for names in TRAITS.values())

    def forward(self, traits: Tensor) -> Tensor:
        return torch.stack([own(traits[:, k]) for k, own in enumerate(self.vectors)]).sum(0)


def train_detector(
    base: Path, train: Sequence[TaskRow], rows: Sequence[TaskRow], *, num_steps: int, seed: int
) -> dict[str, Any]:
    """Trains all heads side by side and scores them on other rows.

    Args:
        base (`Path`): of the warmed-up model.
        train (`Sequence[TaskRow]`), rows (`Sequence[TaskRow]`): of the three tasks; those of dialogue are left out.
        num_steps (`int`), seed (`int`): of the training.

    Returns:
        `dict`: see `task_preference_lab_scores.score`.
    """
    vlm, processor = load_base(base)
    model = make_fresh(vlm, processor, seed)
    oracle = OracleQuery(model.config.vlm_config.get_text_config().hidden_size)
    rng = random.Random(seed)
    drawn = [row for row in train if row.task != "dialogue"]
    rng.shuffle(drawn)
    seen = [look_once(model, processor, own) for own in cut(drawn)]
    parts = [*model.heads.values(), oracle]
    optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=LEARNING_RATE, weight_decay=0.0)
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min((step + 1) / 20, 2 * (1 - step / num_steps), 1.0)
        batch = rng.choice(seen)
        output = find(model, oracle, batch)
        shown = model.choose_features(batch.vision, None)
        terms = grade_heads(model.heads, model.config.mask_loss, output, batch.targets, shown)
        optimizer.zero_grad()
        torch.stack([WEIGHTS[name] * term for name, term in terms.items()]).sum().backward()
        for part in parts:
            nn.utils.clip_grad_norm_(part.parameters(), 1.0)
        optimizer.step()
    held_out = [row for row in rows if row.task != "dialogue"]
    answers = [answer for own in cut(held_out) for answer in _answer(model, oracle, look_once(model, processor, own))]
    return score(held_out, answers)


def cut(rows: Sequence[TaskRow]) -> list[Sequence[TaskRow]]:
    return [rows[start : start + BATCH_SIZE] for start in range(0, len(rows), BATCH_SIZE)]


@torch.no_grad()
def look_once(model: Any, processor: Any, rows: Sequence[TaskRow]) -> Seen:
    """Runs the vision tower over rows."""
    batch = make_collator(processor, "heads")(rows)
    targets, media = batch["targets"], batch["media"]
    inputs = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    vision = lay_out(model.config.vlm_config, inputs, look(model.vlm, inputs)[0], media)
    traits = [[names.index(read_trait(row, name)) for name, names in TRAITS.items()] for row in rows]
    own = {"moment": targets.moment_rows, "box": targets.box_rows, "mask": targets.mask_rows}
    return Seen(torch.tensor(traits), {task: at for task, at in own.items() if len(at)}, vision, media, targets)


def find(model: Any, oracle: OracleQuery, batch: Seen) -> TaskPreferenceOutput:
    """What the heads find for the oracle's queries."""
    states = {task: oracle(batch.traits[rows]) for task, rows in batch.rows.items()}
    found = model.run_heads(states, batch.rows, model.choose_features(batch.vision, None))
    return TaskPreferenceOutput(states=states, rows=batch.rows, **found)


@torch.no_grad()
def _answer(model: Any, oracle: OracleQuery, batch: Seen) -> list[TaskPreferenceAnswer]:
    output = find(model, oracle, batch)
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
                large = interpolate(output.mask.logits[k : k + 1], (facts.height, facts.width), mode="bilinear")
                is_there = (output.mask.object_logits[k : k + 1] > 0)[..., None, None]
                found = {"masks": (large > 0) & is_there, "mask_seconds": torch.tensor(facts.times_seconds)}
            answers[row] = TaskPreferenceAnswer(text="", tasks=(task,), **found)
    return [answers[row] for row in range(len(batch.media))]
