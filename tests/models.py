"""Stand-ins for language models whose knowledge is known, for tests and benchmarks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vidground_hf.answerers.base import Answer, collect_answers
from vidground_hf.prompts import Prompt
from vidground_hf.schema import LETTERS


def draw(*parts: object) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


@dataclass
class SimulatedModel:
    """Knows some questions and guesses at the others, afresh under every order of the options.

    Attributes:
        known (`Mapping[str, str]`): the answer to each question it knows, in the words of the option.
        name (`str`): two models with different names guess differently.
        temperature (`float`): above 0, guesses differ from trial to trial, too.
        fails (`Callable`): which prompts get no answer.
    """

    known: Mapping[str, str]
    name: str = "simulated"
    temperature: float = 0.0
    fails: Callable[[Prompt], bool] = lambda prompt: False
    asked: list[Prompt] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.name

    @property
    def sampling(self) -> dict[str, Any]:
        return {"temperature": self.temperature}

    @property
    def num_in_flight(self) -> int:
        return 0

    def describe(self) -> dict[str, Any]:
        return {"device": "none"}

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        return collect_answers(self, prompts)

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        for index, prompt in enumerate(prompts):
            self.asked.append(prompt)
            on_answer(index, Answer(text=None, error="timed out") if self.fails(prompt) else self._answer(prompt))

    def _answer(self, prompt: Prompt) -> Answer:
        wanted = self.known.get(prompt.question or "")
        if not prompt.options:
            return Answer(text=wanted or "nobody knows")
        if wanted in prompt.options:
            return Answer(text=f"<answer>{LETTERS[prompt.options.index(wanted)]}</answer>")
        share = draw(self.name, prompt.text, prompt.trial_index)
        return Answer(text=LETTERS[int(share * len(prompt.options))])
