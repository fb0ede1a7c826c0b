"""What asking would take: questions, answers that are there already, requests and tokens. Nothing is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.base import ModelAnswerer
from vidground_hf.asking import Asking, find_gap
from vidground_hf.cache import AnswerCache, make_keys
from vidground_hf.schema import Example

_ROWS_PER_PART = 1000  # our guess: keeps what is held at once small
# What is held of each prompt: the first half of its key, and what is counted of it.
_PROMPT = np.dtype([("key", "S16"), ("num_characters", np.int32), ("is_first", np.bool_), ("is_known", np.bool_)])


def count_requests(asking: Asking, examples: Sequence[Example], cache: AnswerCache) -> dict[str, int | None]:
    """What asking would take, without asking.

    Rows are read a part at a time; of each prompt 22 bytes are held.

    Returns:
        `dict`: `num_questions`; `num_cached`, answers that are there already; `min_requests`, one answer a question;
        `max_requests`, if no verdict stands early (both without tries that fail); `num_prompt_tokens` of the latter
        (about: four characters a token, our guess for English) and its `max_answer_tokens` (`None` where a model sets
        no bound).
    """
    models = [answerer for answerer in asking.answerers if isinstance(answerer, ModelAnswerer)]
    found: list[list[NDArray[Any]]] = [[np.empty(0, _PROMPT)] for _ in models]
    num_questions = 0
    for start in range(0, len(examples), _ROWS_PER_PART):
        part = examples[start : start + _ROWS_PER_PART]
        rows = [example for example in part if example.defect is None and find_gap(example, asking.view) is None]
        num_questions += len(rows)
        for own, model in zip(found, models, strict=True):
            own.append(_list_prompts(asking, model, rows, cache))
    num_cached = min_requests = max_requests = num_characters = 0
    answer_tokens: list[int | None] = []
    for own, model in zip(found, models, strict=True):
        joined = np.concatenate(own)
        distinct = joined[np.unique(joined["key"], return_index=True)[1]]
        missing = distinct[~distinct["is_known"]]
        num_cached += len(distinct) - len(missing)
        max_requests += len(missing)
        num_characters += int(missing["num_characters"].sum())
        if model is asking.answerers[0]:
            min_requests = int(missing["is_first"].sum())
        bound = model.sampling.get("max_tokens")
        if len(missing):
            answer_tokens.append(None if bound is None else bound * len(missing))
    return {
        "num_questions": num_questions,
        "num_cached": num_cached,
        "min_requests": min_requests,
        "max_requests": max_requests,
        "num_prompt_tokens": -(-num_characters // 4),
        "max_answer_tokens": None if None in answer_tokens else sum(number or 0 for number in answer_tokens),
    }


def _list_prompts(asking: Asking, model: ModelAnswerer, rows: Sequence[Example], cache: AnswerCache) -> NDArray[Any]:
    """The prompts that a model may be asked about some rows, as `_PROMPT` has them."""
    way = asking.find_way(model)
    shown = [
        (prompt, place == 0)
        for row in rows
        for place, prompt in enumerate(
            prompt for trial in asking.list_trials(row, way) for prompt in asking.make_prompts(row, *trial)
        )
    ]
    keys = make_keys(model, [prompt for prompt, _ in shown], cache)
    known = cache.get_many(keys)
    return np.array(
        [
            (key[:16], len(prompt.text), is_first, key in known)
            for key, (prompt, is_first) in zip(keys, shown, strict=True)
        ],
        _PROMPT,
    )
