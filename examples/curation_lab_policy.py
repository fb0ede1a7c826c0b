"""The toy model as a policy over option letters: GRPO with answers of one token, and what it answers when held out.

The rows of a clip share one pass over its frames; `VideoGRPOTrainer` would show the clip to each completion, which is
right for long answers and many times dearer here. A test holds that the loss is TRL's.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from toy_vlm_data import Asker, ToySet, make_example
from toy_vlm_hints import Hints
from toy_vlm_training import Learner
from transformers import AutoModelForImageTextToText, AutoProcessor

from vidground_hf.answerers.base import Answer
from vidground_hf.callbacks_refresh import judge_blind
from vidground_hf.judging import make_trial
from vidground_hf.schema import LETTERS
from vidground_hf.set_rules import Calibrated
from vidground_hf.trials import Trial

GROUP_SIZE = 8  # completions of a question, as Video-R1 and VidGround have it
NUM_BLIND_TRIES = 4  # of a question, for the look reward and for asking anew what is known blind
ALPHA = 0.05  # of the rule that finds them
EPSILON = 1e-4  # beside the spread of a group, as in TRL
LEARNING_RATE = 3e-4
CLIPS_PER_STEP, QUESTIONS_PER_CLIP = 16, 4
Questions = list[tuple[int, list[dict[str, Any]]]]


class Asked(NamedTuple):
    """Questions under a view.

    Attributes:
        orders (`list[tuple[int, ...]]`): of the options of each of R questions, as shown.
        log_probs (`float[R, V]`): of each token as the answer.
        right (`int64[R]`): the token of the right option.
    """

    orders: list[tuple[int, ...]]
    log_probs: torch.Tensor
    right: torch.Tensor


class Policy:
    """Chooses letters, and learns from what they earn.

    Args:
        folder (`Path`): of the base model.
        toy_set (`ToySet`): that is learned from.
        seed (`int`): of the orders of options and of what is sampled.
    """

    def __init__(self, folder: Path, toy_set: ToySet, seed: int) -> None:
        processor = AutoProcessor.from_pretrained(folder)
        model = AutoModelForImageTextToText.from_pretrained(folder)
        self.learner = Learner(model, processor, Hints(model.config.get_text_config().hidden_size))
        self.asker = Asker(toy_set, processor, questions_per_clip=QUESTIONS_PER_CLIP, seed=seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.letter_ids = torch.tensor(self.learner.letter_ids)
        self.letters = dict(zip(self.learner.letter_ids, LETTERS, strict=False))
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)

    def ask(self, questions: Questions, view: str, asker: Asker | None = None) -> Asked:
        """Asks under a view, each question with its options in an order drawn afresh."""
        clips, rows = zip(*questions, strict=True)
        group = (asker or self.asker).show(clips, rows, view)
        orders = [tuple(order) for order in group.asked.orders]
        return Asked(orders, self.learner.read_tokens(group), self.letter_ids[group.asked.right])

    def step(self, questions: Questions, *, look: bool = False, weights: dict[str, float] | None = None) -> float:
        """One step of GRPO.

        Args:
            questions (`list[tuple[int, list[dict]]]`): clips, and as many questions about each.
            look (`bool`): take off what a right choice earns what the policy earns blind.
            weights (`dict[str, float]`, *optional*): of questions' advantages, by id.

        Returns:
            `float`: the mean reward before anything is taken off.
        """
        blind = self.measure_blind(questions) if look else None
        asked = self.ask(questions, "video")
        chosen, advantages, reward = sample_group(asked, blind, self.generator)
        if weights:
            rows = [row for _, part in questions for row in part]
            advantages = advantages * torch.tensor([weights.get(row["id"], 1.0) for row in rows])[:, None]
        self.optimizer.zero_grad()
        compute_loss(asked.log_probs, chosen, advantages).backward()
        torch.nn.utils.clip_grad_norm_(self.learner.model.parameters(), 1.0)
        self.optimizer.step()
        return reward

    @torch.no_grad()
    def measure_blind(self, questions: Questions) -> torch.Tensor:
        """The share of right ones among a few sampled answers without the clip (`float[R]`)."""
        asked = self.ask(questions, "text")
        return (self._sample(asked, NUM_BLIND_TRIES) == asked.right[:, None]).float().mean(1)

    @torch.no_grad()
    def find_known(self, questions: Questions) -> set[str]:
        """The ids of the questions that it has come to know blind, found as `RefreshGrounding` finds them."""
        examples = [make_example(row) for _, part in questions for row in part]
        trials: list[list[Trial]] = [[] for _ in examples]
        for _ in range(NUM_BLIND_TRIES):
            found = []
            for start in range(0, len(questions), CLIPS_PER_STEP):
                asked = self.ask(questions[start : start + CLIPS_PER_STEP], "text")
                found += zip(self._sample(asked, 1)[:, 0].tolist(), asked.orders, strict=True)
            for example, row, (token, order) in zip(examples, trials, found, strict=True):
                letter = self.letters.get(token)
                row.append(make_trial(example, Answer(text=letter or ""), order))
        verdicts = judge_blind(examples, trials, Calibrated(ALPHA))
        known = zip(examples, verdicts, strict=True)
        return {example.id for example, verdict in known if verdict.is_visually_grounded is False}

    def _sample(self, asked: Asked, number: int) -> torch.Tensor:
        return torch.multinomial(asked.log_probs.exp(), number, replacement=True, generator=self.generator)

    @torch.no_grad()
    def grade(self, toy_set: ToySet, view: str, seed: int) -> NDArray[np.bool_]:
        """Whether the likeliest letter is right, for each question of each clip in turn."""
        asker = Asker(toy_set, self.learner.processor, questions_per_clip=QUESTIONS_PER_CLIP, seed=seed)
        questions = list(enumerate(toy_set.rows))
        found = []
        for start in range(0, len(questions), CLIPS_PER_STEP):
            asked = self.ask(questions[start : start + CLIPS_PER_STEP], view, asker)
            letters = self.letter_ids[asked.log_probs[:, self.letter_ids].argmax(1)]
            found.append((letters == asked.right).numpy())
        return np.concatenate(found)


def sample_group(
    asked: Asked, blind: torch.Tensor | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Samples completions: the tokens (`int64[R, 8]`), their advantages (`float[R, 8]`), and the mean accuracy."""
    chosen = torch.multinomial(asked.log_probs.detach().exp(), GROUP_SIZE, replacement=True, generator=generator)
    is_right = (chosen == asked.right[:, None]).float()
    rewards = is_right if blind is None else (is_right - blind[:, None]).clamp(min=0)
    spread = rewards.std(1, keepdim=True)
    return chosen, (rewards - rewards.mean(1, keepdim=True)) / (spread + EPSILON), float(is_right.mean())


def compute_loss(log_probs: torch.Tensor, chosen: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """The loss of GRPO for completions of one token and one update (`float[]`).

    Before its only update a policy is its own old one: the ratio of the two is 1, and no clipping reaches it.
    """
    taken = log_probs.gather(1, chosen)
    return -(advantages * (taken - taken.detach()).exp()).mean()


def draw_batches(rows: Sequence[Sequence[dict[str, Any]]], seed: int) -> Iterator[Questions]:
    """Batches of questions for ever: a clip's are shuffled and cut into fours, which come in an order of their own.

    What is left over of a clip waits for the next shuffle; every question comes up equally often, but for clips with
    fewer than four, which are repeated to four.

    Args:
        rows (sequence of sequences of `dict`): of each clip.
        seed (`int`): the same one, the same batches.
    """
    rng = random.Random(seed)
    waiting: Questions = []
    while True:
        for clip, part in enumerate(rows):
            mixed = rng.sample(part, len(part))
            mixed += rng.choices(part, k=QUESTIONS_PER_CLIP - len(part)) if 0 < len(part) < QUESTIONS_PER_CLIP else []
            stops = range(QUESTIONS_PER_CLIP, len(mixed) + 1, QUESTIONS_PER_CLIP)
            waiting += [(clip, mixed[stop - QUESTIONS_PER_CLIP : stop]) for stop in stops]
        if not waiting:
            raise ValueError("no questions are left to train on; make a larger set")
        rng.shuffle(waiting)
        while len(waiting) >= CLIPS_PER_STEP:
            yield [waiting.pop() for _ in range(CLIPS_PER_STEP)]
