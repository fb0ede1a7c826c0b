"""How the base model of the task preference lab comes to see and to talk: cells, then single frames, then clips.

The model that learns is in `task_preference_lab_learner.py`; the arms are trained by the library's own trainer.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from task_preference_lab_learner import NUM_TOLD_TOKENS, TRAITS, UNKNOWN, Asked, Learner, Lessons, View
from task_preference_lab_model import make_lab_model, make_lab_processor, save
from task_preference_lab_world import CELL_PX, NUM_SHOWN, OFFSETS_PX, SHOWN, make_rows, write_clips
from torch import Tensor, nn
from train_toy_vlm import keep, resume

from vidground_hf.media import FrameBudget
from vidground_hf.task_preference.row_media import read_row_media
from vidground_hf.task_preference.templates import TEMPLATES
from vidground_hf.toy_world import GRID_CELLS, Clip, label_cells

BUDGET = FrameBudget(num_frames=NUM_SHOWN, size=None)
LEARNING_RATE, NUM_RISING_STEPS = 3e-3, 50
DECAY_SHARE = 0.4  # of the steps, the last ones, in which the learning rate falls to 0
LOOKING_CLIPS, FRAME_CLIPS, TALKING_CLIPS = 16, 24, 8  # of a step
NUM_QUESTIONS, NUM_REFERENCES = 5, 1  # of a clip
KEPT_STEPS = REPORT_STEPS = 100
WORDS = sorted({word for own in TEMPLATES.values() for text in own for word in text.split() if word.isalpha()})


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUpSizes:
    """How long is warmed up.

    Attributes:
        num_clips (`int`): to learn from.
        num_looking_steps (`int`): first steps, of the vision tower alone.
        num_frame_steps (`int`): next ones, which ask about single frames.
        num_clip_steps (`int`): last ones, which ask about whole clips.
    """

    num_clips: int
    num_looking_steps: int
    num_frame_steps: int
    num_clip_steps: int

    @property
    def num_steps(self) -> int:
        return self.num_looking_steps + self.num_frame_steps + self.num_clip_steps


def read_lessons(folder: Path, clips: Sequence[Clip]) -> Lessons:
    """Reads the clips of a folder back, as any model is shown them."""
    rows = [[row for row in make_rows(clip, folder) if row.task == "dialogue"] for clip in clips]
    return Lessons(
        frames=np.stack([read_row_media(own[0], BUDGET).data for own in rows]),
        cells=torch.tensor(np.stack([label_cells(clip)[list(SHOWN)] for clip in clips])),
        offsets=torch.tensor(np.stack([_label_offsets(clip) for clip in clips])),
        phases=torch.tensor([[np.searchsorted(clip.phase_starts, k, "right") - 1 for k in SHOWN] for clip in clips]),
        rows=rows,
    )


def _label_offsets(clip: Clip) -> NDArray[np.int64]:
    labels = np.full((NUM_SHOWN, GRID_CELLS, GRID_CELLS, 2), UNKNOWN)
    for thing in clip.objects:
        for shown, frame in enumerate(SHOWN):
            at = thing.corners[frame]
            if at is not None:
                inside = [OFFSETS_PX.index(k % CELL_PX) for k in at]
                labels[shown, at[1] // CELL_PX, at[0] // CELL_PX] = inside
    return labels


def draw_questions(lessons: Lessons, view: View, rng: random.Random) -> list[Asked]:
    """Questions, those of a clip together: dialogue that the view can answer, then references as tasks ask."""
    asked = []
    for clip in view.clips:
        rows = lessons.rows[clip]
        if len(view.frames) == 1:
            # Traits and the still object's quarter, and that of the visitor who is there: by the order of the rows.
            visitor = 5 + int(lessons.phases[clip, view.frames[0]])
            rows = [*rows[:5], rows[visitor]]
        asked += [Asked(row.question, row.answer) for row in rng.sample(rows, NUM_QUESTIONS)]
        asked += [_draw_reference(rng) for _ in range(NUM_REFERENCES)]
    return asked


def _draw_reference(rng: random.Random) -> Asked:
    traits = tuple(rng.randrange(len(names)) for names in TRAITS)
    *words, task = (names[k] for names, k in zip(TRAITS, traits, strict=True))
    template = rng.choice(TEMPLATES[task])
    question = template.format(media="video", query=" ".join(filter(None, words)))
    return Asked(question, " ".join(rng.choices(WORDS, k=NUM_TOLD_TOKENS)), traits)


def warm_up(output: Path, clips_folder: Path, sizes: WarmUpSizes, *, seed: int) -> None:
    """Trains a base model; one that was cut off goes on.

    Args:
        output (`Path`): gets the model and its processor.
        clips_folder (`Path`): of its clips, made if they are missing.
        sizes (`WarmUpSizes`): how long.
        seed (`int`): of clips and weights.
    """
    lessons = read_lessons(clips_folder, write_clips(clips_folder, 1000 + seed, sizes.num_clips))
    torch.manual_seed(seed)
    processor = make_lab_processor()
    learner = Learner(make_lab_model(processor), processor)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    output.mkdir(parents=True, exist_ok=True)
    kept = output / "training.pt"
    num_steps = sizes.num_steps
    for step in range(resume(kept, learner, optimizer) if kept.exists() else 0, num_steps):
        if step % KEPT_STEPS == 0 and step > 0:
            keep(kept, learner, optimizer, step)
        rate = min((step + 1) / NUM_RISING_STEPS, (num_steps - step) / num_steps / DECAY_SHARE, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * rate
        losses, right = take_lesson(learner, lessons, step, sizes, random.Random(f"{seed} {step}"))
        optimizer.zero_grad()
        torch.stack([*losses.values()]).sum().backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % REPORT_STEPS == 0:
            shares = ", ".join(f"{name} {float(loss.detach()):.2f}" for name, loss in losses.items())
            print(f"warm-up {step + 1} of {num_steps}: right {right}, losses {shares}", file=sys.stderr, flush=True)
    save(output, learner.model, processor)
    kept.unlink(missing_ok=True)


def take_lesson(
    learner: Learner, lessons: Lessons, step: int, sizes: WarmUpSizes, rng: random.Random
) -> tuple[dict[str, Tensor], float | None]:
    """The losses of a step, and the share of first words that are right where something is asked."""
    num_clips = len(lessons.rows)
    if step < sizes.num_looking_steps:
        view = View(rng.sample(range(num_clips), min(LOOKING_CLIPS, num_clips)), range(NUM_SHOWN))
        return learner.look(lessons, view)[0], None
    if step < sizes.num_looking_steps + sizes.num_frame_steps:
        view = View(rng.sample(range(num_clips), min(FRAME_CLIPS, num_clips)), [rng.randrange(NUM_SHOWN)])
    else:
        view = View(rng.sample(range(num_clips), min(TALKING_CLIPS, num_clips)), range(NUM_SHOWN))
    return learner.talk(lessons, view, draw_questions(lessons, view, rng))
