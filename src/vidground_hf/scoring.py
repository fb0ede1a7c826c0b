"""Grades one answer to one example: one scorer per problem type.

A bad prediction is worth 0; a bad reference is worth `None`. Nothing here asks a model.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from rapidfuzz.distance import Levenshtein

from vidground_hf.extraction import extract_answer, extract_choice, extract_number
from vidground_hf.schema import Example


def score_choice(prediction: str, example: Example) -> float | None:
    """1.0 if the answer means the gold option (or one with the same text), else 0.0."""
    if example.answer_index is None:
        return None
    choice = extract_choice(prediction, example.options)
    classes = example.option_classes
    return float(choice is not None and classes[choice] == classes[example.answer_index])


def score_number(prediction: str, example: Example) -> float | None:
    """1.0 if both numbers agree when rounded to 2 decimals (Video-R1, `accuracy_reward`), else 0.0."""
    gold, value = extract_number(example.answer or ""), extract_number(prediction)
    if gold is None:
        return None
    return float(value is not None and round(value, 2) == round(gold, 2))


def score_ocr(prediction: str, example: Example) -> float | None:
    """1 - word error rate, at least 0: word edits over the number of words in the reference (Video-R1)."""
    gold = (example.answer or "").split()
    if not gold:
        return None
    return max(0.0, 1.0 - Levenshtein.distance(gold, extract_answer(prediction).split()) / len(gold))


@cache
def _load_rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def score_free_form(prediction: str, example: Example) -> float | None:
    """Mean F-measure of ROUGE-1, ROUGE-2 and ROUGE-L with stemming (Video-R1, `compute_rouge_score`)."""
    if not (example.answer or "").strip():
        return None
    scores = _load_rouge().score(example.answer, extract_answer(prediction))
    return sum(score.fmeasure for score in scores.values()) / len(scores)


def _read_relative_error(prediction: str, example: Example) -> float | None:
    """|value - gold| / |gold|, for a gold of 0 either 0 or infinite.

    Infinite too for a prediction without a number; `None` for a reference without one.
    """
    gold, value = extract_number(example.answer or ""), extract_number(prediction)
    if gold is None:
        return None
    if value is None:
        return float("inf")
    if gold == 0:
        return 0.0 if value == 0 else float("inf")
    return abs(value - gold) / abs(gold)


def score_regression(prediction: str, example: Example) -> float | None:
    """1 - relative error, clipped to [0, 1] (Video-R1, `accuracy_reward`)."""
    error = _read_relative_error(prediction, example)
    return None if error is None else max(0.0, 1.0 - error)


def score_mean_relative_accuracy(prediction: str, example: Example) -> float | None:
    """Share of the tolerances 0.50, 0.45, ... 0.05 that hold (VSI-Bench, arXiv 2412.14171, equation 1).

    Example:
        >>> example = Example(id="1", question="How far?", problem_type="regression", answer="10")
        >>> score_mean_relative_accuracy("9", example)
        0.8
    """
    error = _read_relative_error(prediction, example)
    if error is None:
        return None
    tolerances = [round(0.5 - 0.05 * step, 2) for step in range(10)]
    return sum(error < tolerance - 1e-6 for tolerance in tolerances) / len(tolerances)


_SCORERS = {
    "multiple_choice": score_choice,
    "numerical": score_number,
    "ocr": score_ocr,
    "free_form": score_free_form,
    "regression": score_regression,
}


def score_answer(prediction: str | None, example: Example) -> float | None:
    """Grades an answer by the example's own problem type.

    Args:
        prediction (`str`, *optional*): the answer; `None` where there is none (the request failed).
        example (`Example`): the question with its gold answer.

    Returns:
        `float`, *optional*: in [0, 1]; `None` when there is no answer, or the reference cannot be scored.

    Example:
        >>> example = Example(id="1", question="How many?", problem_type="numerical", answer="1,200")
        >>> score_answer("It is 1200.", example)
        1.0
    """
    if prediction is None or example.defect is not None:
        return None
    return _SCORERS[example.problem_type](prediction, example)
