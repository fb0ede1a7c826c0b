"""One answer to a scored trial, and the trials of a row to what they say together.

Who is asked what is `asking.py`'s; what it leads to is decided in `deciding.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from vidground_hf.answerers.base import Answer
from vidground_hf.extraction import extract_choice
from vidground_hf.schema import Example, Verdict
from vidground_hf.scoring import score_answer
from vidground_hf.stats.agreement import measure_agreement, measure_log_odds
from vidground_hf.trials import KILLED_WORKER, VIEW_GAPS, Trial

# Servers write nothing, -inf or -9999 for a probability of 0; this is beyond what 32-bit floats can tell from it.
_LEAST_LOGPROB = -1000.0


_ADVICE = (
    "What was answered is kept: run again to ask for the rest, or pass --on-error undecided (in Python "
    "on_error='undecided') to keep such rows as undecided"
)


class AnswerError(RuntimeError):
    """Some answers could not be had; the message says how many and why the first one failed."""


def make_trial(example: Example, answer: Answer, order: tuple[int, ...] | None = None, *, answerer: int = 0) -> Trial:
    """Scores one answer; nothing but the score and the bias score looks at the gold.

    Where an answer gives option probabilities, the surest option is what was answered; its text is not searched for
    letters.

    Args:
        example (`Example`): the question.
        answer (`Answer`): what was answered to it.
        order (`tuple[int, ...]`, *optional*): the options as they were shown; the data's order when left out.
        answerer (`int`, *optional*, defaults to 0): which of several gave the answer.

    Returns:
        `Trial`: in terms of the options as the data has them.

    Example:
        >>> example = Example(
        ...     id="1", question="Sky?", problem_type="multiple_choice", options=("red", "blue"), answer_index=1
        ... )
        >>> trial = make_trial(example, Answer(text="A"), order=(1, 0))
        >>> trial.text, trial.choice, trial.score
        ('blue', 1, 1.0)
    """
    logprobs = _restore_order(answer.option_logprobs, order)
    choice = _find_choice(example, answer, order)
    if choice is None or example.answer_index is None or example.defect is not None:
        score = score_answer(answer.text, example)
    else:
        score = float(choice == example.option_classes[example.answer_index])
    return Trial(
        score=score,
        confidence=answer.confidence,
        bias_score=find_bias_score(example, logprobs),
        num_options=example.num_distinct_options,
        error=answer.error,
        text=answer.text if choice is None or order is None else example.options[choice],
        choice=choice,
        option_logprobs=logprobs,
        answerer=answerer,
    )


def _restore_order(shown: Sequence[float] | None, order: tuple[int, ...] | None) -> tuple[float, ...] | None:
    if shown is None or order is None:
        return None if shown is None else tuple(shown)
    values = dict(zip(order, shown, strict=True))
    return tuple(values[position] for position in range(len(order)))


def _find_choice(example: Example, answer: Answer, order: tuple[int, ...] | None) -> int | None:
    """The position, in the data's order, of the option that was chosen; of equal ones the first."""
    if example.problem_type != "multiple_choice" or answer.text is None:
        return None
    order = tuple(range(len(example.options))) if order is None else order
    if answer.option_logprobs is not None:
        shown: int | None = int(np.argmax(answer.option_logprobs))
    else:
        shown = extract_choice(answer.text, tuple(example.options[position] for position in order))
    return None if shown is None else example.option_classes[order[shown]]


def find_bias_score(example: Example, option_logprobs: Sequence[float] | None) -> float | None:
    """The probability given to the gold option; `None` where none is stated or the row cannot be scored."""
    if option_logprobs is None or example.answer_index is None or example.defect is not None:
        return None
    return math.exp(option_logprobs[example.answer_index])


def weigh_trials(
    examples: Sequence[Example], rows: Sequence[Sequence[Trial]], *, confident: Sequence[bool]
) -> list[list[Trial]]:
    """Gives the first trial of each row the confidence and the bias score that all of its trials have together.

    The confidence is what the first answer gains from being repeated under other orders and by other answerers (see
    [`~vidground_hf.stats.agreement.measure_agreement`]); the bias score is the mean over the trials. An answerer that
    states a confidence of its own keeps it.

    Args:
        examples (`Sequence[Example]`): N rows.
        rows (`Sequence[Sequence[Trial]]`): the trials of each, in the order they were asked.
        confident (`Sequence[bool]`): N; which rows to give a confidence.

    Returns:
        `list[list[Trial]]`: the same trials, but for the first of each row.
    """
    weighed = [list(trials) for trials in rows]
    for trials in weighed:
        scores = [trial.bias_score for trial in trials if trial.bias_score is not None]
        if scores:
            trials[0] = replace(trials[0], bias_score=float(np.mean(scores)))
    wanted = [
        index
        for index, trials in enumerate(rows)
        if confident[index] and trials[0].choice is not None and trials[0].confidence is None
    ]
    if not wanted:
        return weighed
    choices = np.full((len(wanted), max(len(rows[index]) for index in wanted)), np.nan)
    is_stated = np.zeros(choices.shape, dtype=bool)
    stated: list[list[float]] = []
    for place, index in enumerate(wanted):
        for turn, trial in enumerate(rows[index]):
            if trial.choice is not None:
                # What counts is whether an answer is the first one, so 1 may stand for all the others.
                choices[place, turn] = float(trial.choice != rows[index][0].choice)
            if trial.option_logprobs is not None:
                is_stated[place, turn] = True
                stated.append(_list_logprobs(examples[index], trial.option_logprobs, rows[index][0]))
    log_odds = np.full(choices.shape, np.nan)
    if stated:
        width = max(len(values) for values in stated)
        padded = np.array([values + [-np.inf] * (width - len(values)) for values in stated])
        log_odds[is_stated] = measure_log_odds(padded, np.zeros(len(stated), dtype=np.int64))
    counts = [rows[index][0].num_options for index in wanted]
    for index, confidence in zip(wanted, measure_agreement(choices, counts, log_odds), strict=True):
        weighed[index][0] = replace(weighed[index][0], confidence=float(confidence))
    return weighed


def _list_logprobs(example: Example, logprobs: Sequence[float], first: Trial) -> list[float]:
    """The log-probabilities of the distinct options, that of the first answer first."""
    classes = dict.fromkeys(example.option_classes)
    others = [logprobs[option] for option in classes if option != first.choice]
    return [max(value, _LEAST_LOGPROB) for value in (logprobs[first.choice or 0], *others)]


def list_row(trials: Sequence[Trial], verdict: Verdict) -> dict[str, Any]:
    """One row of the added columns; a row that is kept has no drop reason."""
    return {
        "blind_answers": [trial.text for trial in trials],
        "blind_scores": [trial.score for trial in trials],
        "bias_score": trials[0].bias_score,
        "is_visually_grounded": verdict.is_visually_grounded,
        "drop_reason": None if verdict.is_visually_grounded else verdict.reason,
    }


def list_errors(rows: Sequence[Sequence[Trial]]) -> list[str]:
    """Why rows lack an answer that was asked for, one reason a row."""
    found = [next((trial.error for trial in trials if trial.error is not None), None) for trials in rows]
    return [error for error in found if error is not None and error not in (*VIEW_GAPS, KILLED_WORKER)]


def describe_errors(errors: Sequence[str], num_rows: int) -> str:
    """How many rows lack an answer, and why the first one does."""
    return f"{len(errors)} of {num_rows} questions lack an answer, the first because: {errors[0]}"


def make_error(errors: Sequence[str], num_rows: int) -> AnswerError:
    """The error for rows that lack an answer."""
    return AnswerError(f"{describe_errors(errors, num_rows)}. {_ADVICE}")


def check_answers(rows: Sequence[Sequence[Trial]]) -> None:
    """Raises `AnswerError` if an answer failed."""
    errors = list_errors(rows)
    if errors:
        raise make_error(errors, len(rows))
