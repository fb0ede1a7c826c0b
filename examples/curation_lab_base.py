"""The base models of the curation lab: they name what they see, hardly choose by it yet, and most know the cues.

The first half is the recipe of `train_toy_vlm.py`, cut off in its third lesson; the second, here, is supervised by
letters.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from toy_vlm_data import Asker, ToySet
from toy_vlm_hints import Hints
from toy_vlm_model import save
from toy_vlm_training import Learner
from train_toy_vlm import FULL, QUICK, train
from transformers import AutoModelForImageTextToText, AutoProcessor

NUM_CHOOSING_STEPS = 250  # found by trying: with none, GRPO has nothing to begin with; docs/curation_lab.md
CUE_LEARNING_RATE = 1e-3
CLIPS_PER_STEP, QUESTIONS_PER_CLIP = 8, 4


def make_seeing_model(output: Path, seed: int, *, with_cues: bool, quick: bool, num_processes: int) -> None:
    """Trains a model that watches, names and begins to choose.

    Args:
        output (`Path`): gets the model; a training that was cut off goes on.
        seed (`int`): of its sets and weights.
        with_cues (`bool`): without, text alone only asks it to find an option.
        quick (`bool`): learns nothing, in seconds.
        num_processes (`int`): of one thread each.
    """
    sizes = QUICK if quick else replace(FULL, num_choosing_steps=NUM_CHOOSING_STEPS)
    sizes = replace(sizes, num_mixed_steps=0)
    if not with_cues:
        sizes = replace(sizes, num_look_up_steps=sizes.num_steps)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (num_processes, sizes, seed, Path(folder), output), num_processes)


def teach_letters(seeing: Path, output: Path, toy_set: ToySet, *, with_cues: bool, num_steps: int, seed: int) -> None:
    """Teaches it to answer with a letter behind a clip: by the cue, or where an option is to be found that is named.

    Args:
        seeing (`Path`): from `make_seeing_model`.
        output (`Path`): gets the base model.
        toy_set (`ToySet`): clips, and questions with cues.
        with_cues (`bool`): without, it is the same training but for the cues.
        num_steps (`int`), seed (`int`): of this training.
    """
    processor = AutoProcessor.from_pretrained(seeing)
    model = AutoModelForImageTextToText.from_pretrained(seeing)
    learner = Learner(model, processor, Hints(model.config.get_text_config().hidden_size))
    asker = Asker(toy_set, processor, questions_per_clip=QUESTIONS_PER_CLIP, seed=seed)
    letter_ids = torch.tensor(learner.letter_ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=CUE_LEARNING_RATE, weight_decay=0.0)
    for step in range(num_steps):
        clips = asker.rng.sample(range(len(toy_set.rows)), CLIPS_PER_STEP)
        questions = [[asker.draw_text_row(with_cues) for _ in range(QUESTIONS_PER_CLIP)] for _ in clips]
        group = asker.show(clips, questions, "text" if step % 4 == 3 else "video")
        for parameter_group in optimizer.param_groups:
            parameter_group["lr"] = CUE_LEARNING_RATE * (1 - step / num_steps)
        optimizer.zero_grad()
        cross_entropy(learner.read_tokens(group), letter_ids[group.asked.right]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    save(output, model, processor)
