"""From examples to verdicts: ask, score, decide, in the order of the rows.

Knows nothing of datasets, files or columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from vidground_hf.answerers.base import Answer, Answerer
from vidground_hf.prompts import make_prompt
from vidground_hf.rules import Trial
from vidground_hf.schema import Example, Verdict, View
from vidground_hf.scoring import score_answer

# Our guess at a batch that keeps any answerer busy and the progress bar moving.
_ROWS_PER_BATCH = 1000


class AnswerError(RuntimeError):
    """Some answers could not be had; the message says how many and why the first one failed."""


def lacks_view(example: Example, view: View) -> bool:
    """Whether a row has not got what a view shows."""
    return view == "subtitles" and example.subtitles is None


def answer_examples(
    answerer: Answerer, examples: Sequence[Example], view: View, *, progress: bool = False
) -> list[Answer]:
    """Asks an answerer every question once, in the data's option order.

    Args:
        answerer (`Answerer`): who is asked.
        examples (`Sequence[Example]`): N questions.
        view (`str`): a blind view; rows that lack it get an answer with the error `no_subtitles`.
        progress (`bool`, *optional*, defaults to `False`): show a bar on stderr.

    Returns:
        `list[Answer]`: N answers in the same order.
    """
    answers = [Answer(text=None, error="no_subtitles")] * len(examples)
    asked = [index for index, example in enumerate(examples) if not lacks_view(example, view)]
    with tqdm(total=len(asked), desc="Asking", unit=" questions", disable=not progress) as bar:
        for start in range(0, len(asked), _ROWS_PER_BATCH):
            batch = asked[start : start + _ROWS_PER_BATCH]
            given = answerer.answer([make_prompt(examples[index], view) for index in batch])
            for index, answer in zip(batch, given, strict=True):
                answers[index] = answer
            bar.update(len(batch))
    return answers


def make_trial(example: Example, answer: Answer) -> Trial:
    """Scores one answer; nothing but the score and the bias score looks at the gold.

    Where an answer gives option probabilities, the surest option is what was answered; its text is not searched for
    letters.
    """
    logprobs = answer.option_logprobs
    gold = example.answer_index
    bias_score = None
    if logprobs is not None and example.defect is None and gold is not None:
        classes = example.option_classes
        score: float | None = float(classes[int(np.argmax(logprobs))] == classes[gold])
        bias_score = math.exp(logprobs[gold])
    else:
        score = score_answer(answer.text, example)
    return Trial(
        score=score,
        confidence=answer.confidence,
        bias_score=bias_score,
        num_options=example.num_distinct_options,
        error=answer.error,
    )


def judge(example: Example, trials: Sequence[Trial], rule: Callable[[Sequence[Trial]], Verdict]) -> Verdict:
    """Applies a rule to a row's trials; a defect or a failed answer comes before the rule."""
    if example.defect is not None:
        return Verdict(None, example.defect)
    failed = next((trial.error for trial in trials if trial.error is not None), None)
    return Verdict(None, failed) if failed is not None else rule(trials)


def list_row(answer: Answer, trial: Trial, verdict: Verdict) -> dict[str, Any]:
    """One row of the added columns; a row that is kept has no drop reason."""
    return {
        "blind_answers": [answer.text],
        "blind_scores": [trial.score],
        "bias_score": trial.bias_score,
        "is_visually_grounded": verdict.is_visually_grounded,
        "drop_reason": None if verdict.is_visually_grounded else verdict.reason,
    }


def check_answers(answers: Sequence[Answer]) -> None:
    """Raises `AnswerError` if an answer failed."""
    errors = [answer.error for answer in answers if answer.error not in (None, "no_subtitles")]
    if errors:
        raise AnswerError(
            f"{len(errors)} of {len(answers)} questions got no answer, the first because: {errors[0]}. "
            "Run again, or pass on_error='undecided' to keep such rows as undecided"
        )
