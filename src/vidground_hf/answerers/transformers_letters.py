"""From the logits of the next token to the probabilities of the options, by the letters they are shown with.

Models are not run here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.transformers_tokens import Ids, TextEncoder
from vidground_hf.prompts import Prompt
from vidground_hf.schema import LETTERS, classify_options

FORMS = ("{}", " {}", "({}")
"""The ways of writing a letter; the probabilities of all that take one token are added up."""


def find_letters(encoder: TextEncoder) -> Ids:
    """The token of each letter in each form, behind a prompt.

    Returns:
        `int64[F, 26]`: ids, and -1 from the first letter on that a form does not write with one more token: a form
        that only some letters of a question have would favour them.
    """
    found = encoder.encode_behind([form.format(letter) for form in FORMS for letter in LETTERS])
    ids = np.array([-1 if token is None else token for token in found], np.int64).reshape(len(FORMS), len(LETTERS))
    # Some tokenizers write " A" as they write "A"; it is counted once.
    for form in range(1, len(FORMS)):
        ids[form, np.isin(ids[form], ids[:form])] = -1
    ids[~np.logical_and.accumulate(ids >= 0, axis=1)] = -1
    return ids


def pool_letters(logits: NDArray[np.float32], tokens: Ids, num_options: Ids) -> NDArray[np.float64]:
    """Logarithms of the probabilities of the first letters among themselves, all forms of a letter taken together.

    Args:
        logits (`float32[R, F, 26]`): of the next token.
        tokens (`int64[F, 26]`): as `find_letters` gives them.
        num_options (`int64[R]`): how many letters each row has; some form has them all.

    Returns:
        `float64[R, 26]`: normalised over a row's letters, -inf behind them.

    Example:
        >>> logits = np.log(np.array([[[1, 2, 9], [3, 2, 9]]], np.float32))
        >>> np.exp(pool_letters(logits, np.ones((2, 3), int), np.array([2]))).round(6).tolist()
        [[0.5, 0.5, 0.0]]
    """
    has_all = tokens[:, num_options - 1].T >= 0
    is_shown = np.arange(logits.shape[2]) < num_options[:, None]
    values = np.where(has_all[:, :, None] & is_shown[:, None], logits.astype(np.float64), -np.inf)
    pooled = np.logaddexp.reduce(values, axis=1)
    normalized: NDArray[np.float64] = pooled - np.logaddexp.reduce(pooled, axis=1, keepdims=True)
    return normalized


def make_choice(prompt: Prompt, letter_logprobs: NDArray[np.float64]) -> Answer:
    """Answers with the letter of the surest option.

    Args:
        prompt (`Prompt`): N options.
        letter_logprobs (`float64[N]`): of the letters, normalised.

    Example:
        >>> words = ("red", "Red", "blue")
        >>> prompt = Prompt(example_id="", view="text", problem_type="multiple_choice", question="Sky?", options=words)
        >>> answer = make_choice(prompt, np.log([0.3, 0.3, 0.4]))
        >>> answer.text, [round(float(np.exp(value)), 6) for value in answer.option_logprobs]
        ('A', [0.6, 0.6, 0.4])
    """
    if not np.isfinite(letter_logprobs).all():
        return Answer(text=None, error="the model's numbers are not finite; pass dtype='float32', or 'bfloat16'")
    classes = np.array(classify_options(prompt.options))
    pooled = np.full(len(classes), -np.inf)
    np.logaddexp.at(pooled, classes, letter_logprobs)
    surest = int(pooled.argmax())
    return Answer(text=LETTERS[surest], option_logprobs=tuple(pooled[classes].tolist()))
