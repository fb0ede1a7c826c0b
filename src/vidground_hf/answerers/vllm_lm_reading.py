"""From what vLLM returns to answers: option letters by their log-probabilities, and written text.

vLLM is not imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vidground_hf.answerers.base import Answer
from vidground_hf.schema import LETTERS, classify_options


def find_letters(tokenizer: Any) -> dict[int, int]:
    """Maps the tokens that read as a letter, alone or between spaces, to the letter's position.

    A way of writing that not every letter has is left out, as it would favour the letters that have it.

    Args:
        tokenizer (`PreTrainedTokenizerBase`): of the model.

    Raises:
        `ValueError`: when there is no way of writing every letter with one token.
    """
    forms: dict[str, dict[int, int]] = {}
    for token, text in enumerate(tokenizer.batch_decode([[token] for token in range(len(tokenizer))])):
        letter = text.strip()
        if len(letter) == 1 and letter in LETTERS:
            forms.setdefault(text.replace(letter, "{}"), {}).setdefault(LETTERS.index(letter), token)
    whole = [tokens for tokens in forms.values() if len(tokens) == len(LETTERS)]
    if not whole:
        raise ValueError("the tokenizer has no token for some letters; pass reasoning_tokens to have choices written")
    return {token: letter for tokens in whole for letter, token in tokens.items()}


def read_letters(logprobs: Mapping[int, Any], letters: Mapping[int, int], options: tuple[str, ...]) -> Answer:
    """Answers with the surest option.

    Args:
        logprobs (`Mapping[int, Logprob]`): tokens in the place of the answer.
        letters (`Mapping[int, int]`): as `find_letters` gives them; all tokens of a letter are pooled.
        options (`tuple[str, ...]`): in the order shown.

    Returns:
        `Answer`: an error when a letter is not there.

    Example:
        >>> from types import SimpleNamespace as Logprob
        >>> given = {7: Logprob(logprob=-1.0), 8: Logprob(logprob=-2.0), 9: Logprob(logprob=-2.0)}
        >>> answer = read_letters(given, {7: 0, 8: 1, 9: 1}, ("red", "blue"))
        >>> answer.text, [round(value, 3) for value in answer.option_logprobs]
        ('A', [-0.551, -0.858])
    """
    classes = np.array(classify_options(options))
    tokens = [token for token in logprobs if letters.get(token, len(options)) < len(options)]
    if {letters[token] for token in tokens} != set(range(len(options))):
        return Answer(text=None, error="vLLM left out the log-probability of a letter; use a newer vLLM")
    pooled = np.full(len(options), -np.inf)
    np.logaddexp.at(pooled, classes[[letters[token] for token in tokens]], [logprobs[t].logprob for t in tokens])
    pooled -= np.logaddexp.reduce(pooled)
    return Answer(text=LETTERS[int(pooled.argmax())], option_logprobs=tuple(pooled[classes].tolist()))


def read_text(text: str, finish_reason: str | None, max_tokens: int) -> Answer:
    """Answers with what was written; a thought that was cut off is none."""
    is_thinking = "<think>" in text and "</think>" not in text and "<answer>" not in text
    if finish_reason == "length" and (is_thinking or not text.strip()):
        return Answer(
            text=None, error=f"{max_tokens} tokens were written without an answer; pass more reasoning_tokens"
        )
    if not text.strip():
        return Answer(text=None, error="the model wrote nothing")
    return Answer(text=text, finish_reason=finish_reason)
