"""`RefreshGrounding`: what the policy has come to know blind during its training weighs nothing from then on.

What a weight does is the trainer's; whether answers are luck is decided by `set_rules.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import Trainer, TrainerCallback

from vidground_hf.answerers.base import Answer
from vidground_hf.deciding import judge_rows
from vidground_hf.judging import make_trial, weigh_trials
from vidground_hf.post_training import is_trl, read_trl
from vidground_hf.rewards import cut_thinking
from vidground_hf.rules import Majority
from vidground_hf.schema import Example, Verdict
from vidground_hf.set_rules import Calibrated
from vidground_hf.trials import Trial

_STATE_KEY = "RefreshGrounding.record"


class Refreshed(NamedTuple):
    """What a question's last asking came to.

    Attributes:
        step (`int`): when it was asked.
        num_right (`int`), num_tries (`int`): blind answers.
        is_visually_grounded (`bool`, *optional*), reason (`str`): the verdict, as in `schema.Verdict`.
    """

    step: int
    num_right: int
    num_tries: int
    is_visually_grounded: bool | None
    reason: str


class RefreshGrounding(TrainerCallback):
    """Asks the policy blind every so many steps, and sets the weights of questions that it answers without looking.

    Rows are asked in an order drawn by the seed, `num_rows` at a time, so that each comes up again once all others
    have been: not those to come, because the order of a sampler is the trainer's affair, and because the rule compares
    rows, which only a random part of the set allows. The answers are the policy's own, sampled as in training.

    One right try may be luck, and all tries of a policy that prefers a letter agree. So multiple choice is judged by
    `calibrated`: a right answer counts as known where so few wrong ones are as steady that at most a share `alpha` of
    such right answers is expected to be luck. Open-ended questions, where luck is rare, count as known when more than
    half of the tries are right. A known question gets `weight`, one that is not known any more 1 again; where nothing
    can be said, its weight stays.

    `trainer.add_callback(RefreshGrounding(trainer, every_steps=50))`. What was asked and decided is in the
    checkpoint, and training that is resumed goes on from there.

    Args:
        trainer (`VideoGRPOTrainer`): has `sample_completions` and `row_weights`, and rows that `to_trl` made.
        every_steps (`int`): at least 1.
        num_rows (`int`, *optional*, defaults to 256): asked each time, at least 1. Our guess.
        num_tries (`int`, *optional*, defaults to 4): blind completions of each, at least 2. Our guess.
        alpha (`float`, *optional*, defaults to 0.05): as in `calibrated`.
        weight (`float`, *optional*, defaults to 0): of the advantages of known questions, in [0, 1).
        seed (`int`, *optional*, defaults to 0): of the order of the rows.

    Attributes:
        record (`dict[str, Refreshed]`): by row id, what the last asking of each row came to.
        num_refreshes (`int`): so far.

    Raises:
        `ValueError`: for settings out of range, another trainer, and rows without an id.

    Example:
        >>> trainer.add_callback(RefreshGrounding(trainer, every_steps=50))  # doctest: +SKIP
    """

    def __init__(
        self,
        trainer: Any,
        every_steps: int,
        *,
        num_rows: int = 256,
        num_tries: int = 4,
        alpha: float = 0.05,
        weight: float = 0.0,
        seed: int = 0,
    ) -> None:
        if min(every_steps, num_rows, num_tries - 1) < 1 or not 0 <= weight < 1:
            raise ValueError(
                f"{every_steps = }, {num_rows = }, {num_tries = } or {weight = } is out of range; allowed are 1 or "
                "more, 1 or more, 2 or more, and [0, 1)"
            )
        if not (hasattr(trainer, "sample_completions") and hasattr(trainer, "row_weights")):
            raise ValueError(
                f"{type(trainer).__name__} has no row weights; RefreshGrounding goes with VideoGRPOTrainer"
            )
        rows = trainer.train_dataset
        if not (isinstance(rows, Dataset) and is_trl(rows)):
            raise ValueError(
                "the trainer's train_dataset is not as to_trl makes it; pass to_trl(dataset) to the trainer"
            )
        self.trainer = trainer
        self.every_steps, self.num_rows, self.num_tries = every_steps, min(num_rows, len(rows)), num_tries
        self.rule = Calibrated(alpha)
        self.weight = weight
        self.rows = rows.remove_columns([name for name in ("video", "images") if name in rows.column_names])
        self.examples = read_trl(self.rows)
        self.order = np.random.default_rng(seed).permutation(len(rows))
        self.record: dict[str, Refreshed] = {}
        self.num_refreshes = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Goes on from the checkpoint that training is resumed from, or begins anew."""
        kept = state.stateful_callbacks.get(_STATE_KEY, {"num_refreshes": 0, "record": {}})
        self.num_refreshes = kept["num_refreshes"]
        self.record = {name: Refreshed(*values) for name, values in kept["record"].items()}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Refreshes when it is time; after the last step nothing is left to weigh."""
        if state.global_step % self.every_steps or state.global_step >= state.max_steps:
            return
        start = perf_counter()
        metrics = self.refresh(state.global_step)
        # The trainer writes this with its state into every checkpoint.
        state.stateful_callbacks[_STATE_KEY] = {"num_refreshes": self.num_refreshes, "record": dict(self.record)}
        # Not the trainer's own `log`, which would empty what it gathers between two of its logs; and a log takes back
        # that this step is to be logged.
        should_log = control.should_log
        Trainer.log(self.trainer, metrics | {"refresh_grounding/seconds": perf_counter() - start})
        control.should_log = should_log

    def refresh(self, step: int) -> dict[str, float]:
        """Asks the next rows and sets their weights.

        Args:
            step (`int`): of the training; goes into the record.

        Returns:
            `dict[str, float]`: how many rows were asked, the share of them that is known, and the rows weighed down.
        """
        begin = self.num_refreshes * self.num_rows
        places = [int(self.order[(begin + k) % len(self.order)]) for k in range(self.num_rows)]
        self.num_refreshes += 1
        tries = self._ask(places)
        examples = [self.examples[place] for place in places]
        trials = [
            [make_trial(example, Answer(text=cut_thinking(text))) for text in tries[place]]
            for example, place in zip(examples, places, strict=True)
        ]
        verdicts = judge_blind(examples, trials, self.rule)
        for example, row, verdict in zip(examples, trials, verdicts, strict=True):
            num_right = sum(bool(trial.is_right) for trial in row)
            self.record[example.id] = Refreshed(step, num_right, len(row), *verdict)
            if verdict.is_visually_grounded is False:
                self.trainer.row_weights[example.id] = self.weight
            elif verdict.is_visually_grounded:
                self.trainer.row_weights.pop(example.id, None)
        num_known = sum(verdict.is_visually_grounded is False for verdict in verdicts)
        return {
            "refresh_grounding/num_asked": len(places),
            "refresh_grounding/known_share": num_known / len(places),
            "refresh_grounding/num_weighed_down": sum(weight < 1 for weight in self.trainer.row_weights.values()),
        }

    def _ask(self, places: Sequence[int]) -> dict[int, list[str]]:
        """The policy's blind completions to some rows; every process asks a part."""
        accelerator = self.trainer.accelerator
        mine = list(places[accelerator.process_index :: accelerator.num_processes])
        # All processes ask as many, as the trainer wants it.
        mine += list(places[:1]) * (-(-len(places) // accelerator.num_processes) - len(mine))
        answers = self.trainer.sample_completions(
            list(self.rows.select(mine)), view="text", num_generations=self.num_tries
        )
        return dict(gather_object(list(zip(mine, answers, strict=True))))


def judge_blind(examples: Sequence[Example], trials: Sequence[Sequence[Trial]], rule: Calibrated) -> list[Verdict]:
    """Judges questions by a policy's blind answers.

    Args:
        examples (`Sequence[Example]`): N questions.
        trials (`Sequence[Sequence[Trial]]`): the answers to each, at least 1.
        rule (`Calibrated`): for multiple choice; it is fitted to these answers.

    Returns:
        `list[Verdict]`: N; those of open-ended questions by the majority of their answers.

    Example:
        >>> from vidground_hf.trials import Trial
        >>> example = Example(id="a", question="Who?", problem_type="free_form", answer="Ann")
        >>> judge_blind([example], [[Trial(score=1.0), Trial(score=1.0)]], Calibrated())[0].is_visually_grounded
        False
    """
    choices = [index for index, example in enumerate(examples) if example.options]
    weighed = weigh_trials(
        [examples[index] for index in choices],
        [trials[index] for index in choices],
        confident=[True] * len(choices),
    )
    fitted = rule.fit(weighed)
    verdicts = judge_rows(examples, trials, Majority())
    for index, verdict in zip(choices, judge_rows([examples[k] for k in choices], weighed, fitted), strict=True):
        verdicts[index] = verdict
    return verdicts
