"""Option probabilities from the log-probabilities that a server gives with its text.

Only what the server says counts: a letter that is not among the likeliest tokens is unknown, not impossible.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vidground_hf.extraction import extract_choice
from vidground_hf.schema import LETTERS, classify_options

_AROUND = " \t\r\n\"'`*()[]<>.:,"  # what may stand around a letter in its token
_SPACES = str.maketrans("\u2581\u0120\u010a", "  \n")  # how tokenizers write spaces, where a server leaves them so


def read_option_logprobs(content: Sequence[Any], text: str, options: tuple[str, ...]) -> tuple[float, ...] | None:
    """Finds the token that names the answer and reads how likely each option's letter was in its place.

    Args:
        content (`Sequence`): a token a position, each with `token`, `logprob` and `top_logprobs`, as in
            `choices[0].logprobs.content` of a chat completion.
        text (`str`): what was written.
        options (`tuple[str, ...]`): in the order shown.

    Returns:
        `tuple[float, ...]`, *optional*: natural logarithms, as in `Answer.option_logprobs`; `None` when a letter is
        not there, or when the first token that is a letter is not the answer: an article ("A man walks"), or a letter
        in a thought that the text does not show.

    Example:
        >>> from types import SimpleNamespace as Token
        >>> likeliest = [Token(token="B", logprob=-0.5), Token(token=" A", logprob=-1.5), Token(token="A", logprob=-2)]
        >>> logprobs = read_option_logprobs([Token(token="B", logprob=-0.5, top_logprobs=likeliest)], "B", ("x", "y"))
        >>> [round(value, 3) for value in logprobs]
        [-0.99, -0.464]
    """
    positions = {letter: index for index, letter in enumerate(LETTERS[: len(options)])}
    tokens = [part.token.translate(_SPACES) for part in content]
    named = next((index for index, token in enumerate(tokens) if token.strip(_AROUND) in positions), None)
    if named is None or not text.lstrip().startswith("".join(tokens[: named + 1]).lstrip()):
        return None
    classes = classify_options(options)
    answered = extract_choice(text, options)
    if answered is None or classes[answered] != classes[positions[tokens[named].strip(_AROUND)]]:
        return None
    likeliest = {part.token: part.logprob for part in [content[named], *content[named].top_logprobs]}
    found: dict[int, list[float]] = {}
    for token, logprob in likeliest.items():
        letter = token.translate(_SPACES).strip(_AROUND)
        if letter in positions and math.isfinite(logprob):
            found.setdefault(positions[letter], []).append(logprob)
    if len(found) < len(options):
        return None
    pooled = np.full(len(options), -np.inf)
    for option, logprobs in found.items():
        pooled[classes[option]] = np.logaddexp.reduce([pooled[classes[option]], *logprobs])
    pooled -= np.logaddexp.reduce(pooled)
    return tuple(float(pooled[first]) for first in classes)
