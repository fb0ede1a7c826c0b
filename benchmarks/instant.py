"""A model that answers at once or at a set pace, for benchmarks of everything around the model. Asks nobody."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vidground_hf.answerers.base import Answer, collect_answers
from vidground_hf.prompts import Prompt

_SURE_SHARE = 0.05


class InstantAnswerer:
    """Chooses by a hash of the question and the options: in one row of twenty the same option under every order.

    It prefers options with one of the words that `curate_at_scale_data.py` plants, so that a rule has what to drop.

    Args:
        seconds_per_answer (`float`, *optional*, defaults to 0.0): to wait before each answer.
    """

    id = "instant@1"
    sampling: Mapping[str, Any] = {"temperature": 0}
    num_in_flight = 0

    def __init__(self, seconds_per_answer: float = 0.0) -> None:
        self.seconds_per_answer = seconds_per_answer

    def describe(self) -> Mapping[str, Any]:
        return {}

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        return collect_answers(self, prompts)

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        for position, prompt in enumerate(prompts):
            if self.seconds_per_answer:
                time.sleep(self.seconds_per_answer)
            on_answer(position, Answer(text=_choose(prompt)))


def _choose(prompt: Prompt) -> str:
    if not prompt.options:
        return str(zlib.crc32(prompt.question.encode()) % 40)
    planted = [k for k, option in enumerate(prompt.options) if option.startswith(("carefully", "together", "gradual"))]
    if planted:
        return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[planted[0]]
    is_sure = zlib.crc32(prompt.question.encode()) % 1000 < 1000 * _SURE_SHARE
    order = sorted(range(len(prompt.options)), key=prompt.options.__getitem__) if is_sure else range(99)
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[order[zlib.crc32(prompt.question.encode()) // 1000 % len(prompt.options)]]
