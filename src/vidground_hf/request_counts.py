"""What asking would take: questions, answers that are there already, requests and tokens. Nothing is asked."""

from __future__ import annotations

from collections.abc import Sequence

from vidground_hf.answerers.base import ModelAnswerer
from vidground_hf.asking import Asking, find_gap
from vidground_hf.cache import AnswerCache
from vidground_hf.schema import Example

_ROWS_PER_PART = 1000  # our guess: keeps what is held at once small


def count_requests(asking: Asking, examples: Sequence[Example], cache: AnswerCache) -> dict[str, int | None]:
    """What asking would take, without asking.

    Returns:
        `dict`: `num_questions`; `num_cached`, answers that are there already; `min_requests`, one answer a question;
        `max_requests`, if no verdict stands early (both without tries that fail); `num_prompt_tokens` of the latter
        (about: four characters a token, our guess for English) and its `max_answer_tokens` (`None` where a model sets
        no bound).
    """
    rows = [example for example in examples if example.defect is None and find_gap(example, asking.view) is None]
    num_cached = min_requests = num_characters = 0
    missing: dict[bytes, int | None] = {}
    for number, answerer in enumerate(asking.answerers):
        if not isinstance(answerer, ModelAnswerer):
            continue
        way = asking.find_way(answerer)
        max_tokens = answerer.sampling.get("max_tokens")
        for start in range(0, len(rows), _ROWS_PER_PART):
            part = rows[start : start + _ROWS_PER_PART]
            asked = [
                [prompt for trial in asking.list_trials(row, way) for prompt in asking.make_prompts(row, *trial)]
                for row in part
            ]
            keys = [cache.make_keys(answerer, prompts) for prompts in asked]
            found = cache.get_many([key for row in keys for key in row])
            num_cached += len(found)
            for row_keys, prompts in zip(keys, asked, strict=True):
                for key, prompt in zip(row_keys, prompts, strict=True):
                    if key not in found and key not in missing:
                        missing[key] = max_tokens
                        num_characters += len(prompt.text)
                        min_requests += number == 0 and key == row_keys[0]
    bounds = list(missing.values())
    return {
        "num_questions": len(rows),
        "num_cached": num_cached,
        "min_requests": min_requests,
        "max_requests": len(missing),
        "num_prompt_tokens": -(-num_characters // 4),
        "max_answer_tokens": None if None in bounds else sum(bound or 0 for bound in bounds),
    }
