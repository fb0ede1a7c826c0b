"""Grades one answer to one example: one scorer per problem type.

A bad prediction is worth 0; a bad reference is worth `None`. Nothing here asks a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from rapidfuzz.distance import LCSseq, Levenshtein

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
def _load_tokenizer() -> Any:
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


def score_free_form(prediction: str, example: Example) -> float | None:
    """Mean F-measure of ROUGE-1, ROUGE-2 and ROUGE-L with stemming (Video-R1, `compute_rouge_score`).

    The scores are those of `rouge_score`, whose longest common subsequence takes seconds for an answer of some
    thousand words.
    """
    if not (example.answer or "").strip():
        return None
    gold, said = (_load_tokenizer().tokenize(text) for text in (example.answer, extract_answer(prediction)))
    pairs = [list(pairwise(words)) for words in (gold, said)]
    return (
        _measure_overlap((Counter(gold) & Counter(said)).total(), gold, said)
        + _measure_overlap((Counter(pairs[0]) & Counter(pairs[1])).total(), *pairs)
        + _measure_overlap(LCSseq.similarity(gold, said), gold, said)
    ) / 3


def _measure_overlap(num_shared: int, gold: Sequence[Any], said: Sequence[Any]) -> float:
    """F-measure of what two lists share."""
    precision, recall = num_shared / max(len(said), 1), num_shared / max(len(gold), 1)
    return 2 * precision * recall / (precision + recall) if num_shared else 0.0


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
