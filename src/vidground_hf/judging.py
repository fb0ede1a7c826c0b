"""From examples to scored answers, in the order of the rows.

What they lead to is decided in `deciding.py`; datasets, files and columns are not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from vidground_hf.answerers.base import Answer, Answerer, ModelAnswerer
from vidground_hf.cache import AnswerCache, answer_through_cache, make_key
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
    answerer: Answerer,
    examples: Sequence[Example],
    view: View,
    *,
    cache: AnswerCache | None = None,
    progress: bool = False,
) -> list[Answer]:
    """Asks an answerer every question once, in the data's option order.

    Args:
        answerer (`Answerer`): who is asked.
        examples (`Sequence[Example]`): N questions.
        view (`str`): a blind view; rows that lack it get an answer with the error `no_subtitles`.
        cache (`AnswerCache`, *optional*): where a model's answers are looked up, and kept one by one as they come.
        progress (`bool`, *optional*, defaults to `False`): show a bar on stderr.

    Returns:
        `list[Answer]`: N answers in the same order.
    """
    answers = [Answer(text=None, error="no_subtitles")] * len(examples)
    asked = [index for index, example in enumerate(examples) if not lacks_view(example, view)]
    prompts = [make_prompt(examples[index], view) for index in asked]
    with tqdm(total=len(asked), desc="Asking", unit=" questions", disable=not progress) as bar:
        if cache is not None and isinstance(answerer, ModelAnswerer):
            given = answer_through_cache(answerer, prompts, cache, on_answer=bar.update)
        else:
            given = []
            for start in range(0, len(asked), _ROWS_PER_BATCH):
                given += answerer.answer(prompts[start : start + _ROWS_PER_BATCH])
                bar.update(len(given) - start)
    for index, answer in zip(asked, given, strict=True):
        answers[index] = answer
    return answers


def count_requests(
    answerer: ModelAnswerer, examples: Sequence[Example], view: View, cache: AnswerCache
) -> dict[str, int | None]:
    """What asking would take, without asking.

    Returns:
        `dict`: `num_questions`, `num_cached`, `num_requests` (without tries that fail), `num_prompt_tokens` (about:
        four characters a token, our guess for English) and `max_answer_tokens` (`None` where the model sets no bound).
    """
    prompts = [make_prompt(example, view) for example in examples if not lacks_view(example, view)]
    keys = [make_key(answerer.id, answerer.sampling, prompt) for prompt in prompts]
    found = cache.get_many(keys)
    missing = {key: len(prompt.text) for key, prompt in zip(keys, prompts, strict=True) if key not in found}
    max_tokens = answerer.sampling.get("max_tokens")
    return {
        "num_questions": len(prompts),
        "num_cached": sum(key in found for key in keys),
        "num_requests": len(missing),
        "num_prompt_tokens": -(-sum(missing.values()) // 4),
        "max_answer_tokens": None if max_tokens is None else len(missing) * max_tokens,
    }


def find_bias_score(example: Example, answer: Answer) -> float | None:
    """The probability an answer gives to the gold option; `None` where it states none or the row cannot be scored."""
    if answer.option_logprobs is None or example.answer_index is None or example.defect is not None:
        return None
    return math.exp(answer.option_logprobs[example.answer_index])


def make_trial(example: Example, answer: Answer) -> Trial:
    """Scores one answer; nothing but the score and the bias score looks at the gold.

    Where an answer gives option probabilities, the surest option is what was answered; its text is not searched for
    letters.
    """
    bias_score = find_bias_score(example, answer)
    if bias_score is not None and answer.option_logprobs is not None and example.answer_index is not None:
        classes = example.option_classes
        surest = int(np.argmax(answer.option_logprobs))
        score: float | None = float(classes[surest] == classes[example.answer_index])
    else:
        score = score_answer(answer.text, example)
    return Trial(
        score=score,
        confidence=answer.confidence,
        bias_score=bias_score,
        num_options=example.num_distinct_options,
        error=answer.error,
    )


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
