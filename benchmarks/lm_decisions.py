"""Whole decisions for `lm_vs_harness.py`: rows asked in turn until their verdicts stand, at models that know a share.

Every question asked costs its forward pass; what it says is then replaced, so that the share known is known.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from vidground_hf import GroundFilter
from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.transformers_lm import TransformersAnswerer
from vidground_hf.prompts import Prompt
from vidground_hf.report import count_calls
from vidground_hf.rules import circular
from vidground_hf.schema import LETTERS, Example
from vidground_hf.set_rules import calibrated

KNOWN_SHARES = (0.0, 0.3, 0.5, 0.8)


@dataclass(frozen=True)
class SimulatedAnswerer:
    """Runs a model, and answers right where the row is known, else with a letter drawn anew for each order.

    Attributes:
        model (`TransformersAnswerer`): what each answer costs.
        gold (`Mapping`): the right option by question and sorted options.
        share_known (`float`): in [0, 1].
    """

    model: TransformersAnswerer
    gold: Mapping[tuple[str | None, ...], str]
    share_known: float
    id: str = "simulated"

    @property
    def sampling(self) -> dict[str, Any]:
        return {"share_known": self.share_known}

    @property
    def num_in_flight(self) -> int:
        return self.model.num_in_flight

    def describe(self) -> dict[str, Any]:
        return self.model.describe()

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        self.model.answer(prompts)
        return [Answer(text=self._choose(prompt)) for prompt in prompts]

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        self.model.answer_each(prompts, lambda index, _: on_answer(index, Answer(text=self._choose(prompts[index]))))

    def _choose(self, prompt: Prompt) -> str:
        key = name_row(prompt.question, prompt.options)
        if random.Random(f"known {key}").random() < self.share_known:
            return LETTERS[prompt.options.index(self.gold[key])]
        return random.Random(f"guess {key} {prompt.options}").choice(LETTERS[: len(prompt.options)])


def name_row(question: str | None, options: Sequence[str]) -> tuple[str | None, ...]:
    """What is the same for a row under every order of its options."""
    return question, *sorted(options)


def measure_decisions(model: TransformersAnswerer, rows: Dataset, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Questions decided a second by two rules at each share known, with the calls made and the fewest possible."""
    gold = {name_row(e.question, e.options): e.options[e.answer_index or 0] for e in examples}
    found = []
    for rule in (circular(), calibrated(alpha=0.05)):
        for share_known in KNOWN_SHARES:
            ground_filter = GroundFilter(SimulatedAnswerer(model, gold, share_known, f"simulated {rule}"), rule)
            started = time.perf_counter()
            judgement = ground_filter.judge(rows)
            seconds = time.perf_counter() - started
            calls = count_calls(judgement) or {}
            all_calls = sum(len(example.options) for example in examples)
            found.append(
                {
                    "rule": str(rule),
                    "share_known": share_known,
                    "questions_per_second": round(len(examples) / seconds, 2),
                    "calls_over_all": round(calls["asked"] / all_calls, 3),
                    "minimum_over_all": round(calls["minimum"] / all_calls, 3),
                }
            )
    return found
