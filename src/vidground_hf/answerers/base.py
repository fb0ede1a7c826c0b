"""What an answerer is: prompts in, answers out. No answerer is implemented here but the constant one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from vidground_hf.prompts import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to one prompt.

    Attributes:
        text (`str`, *optional*): what was answered; `None` when the request failed.
        option_logprobs (`tuple[float, ...]`, *optional*): natural logarithm of the probability of each option, in
            the prompt's order. Options with the same text share one value; over distinct options the probabilities
            sum to 1.
        confidence (`float`, *optional*): how sure the answerer is of `text`, without having seen the gold answer;
            comparable across option counts, higher is surer.
        finish_reason (`str`, *optional*): why a model stopped writing; `"length"` means that `text` was cut off.
        error (`str`, *optional*): why there is no answer.
        num_frames (`int`, *optional*): frames that reached the model; `None` for a blind prompt.
        num_visual_tokens (`int`, *optional*): what the model's processor made of them; `None` where a server does not
            tell.
        num_prompt_tokens (`int`, *optional*), num_answer_tokens (`int`, *optional*): what was read, visual tokens
            included, and written.
        seconds (`float`, *optional*): time it took; of a batch, its share.
        decoder (`str`, *optional*): which library decoded the frames.
    """

    text: str | None
    option_logprobs: tuple[float, ...] | None = None
    confidence: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    num_frames: int | None = None
    num_visual_tokens: int | None = None
    num_prompt_tokens: int | None = None
    num_answer_tokens: int | None = None
    seconds: float | None = field(default=None, compare=False)
    decoder: str | None = None


class Answerer(Protocol):
    """Anything that turns prompts into answers: same length out as in, in the same order.

    A failed request is an `Answer` with `error`, never an exception for the batch and never a made-up text.
    """

    @property
    def id(self) -> str:
        """Model and revision; part of the cache key and of the card."""

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers a batch of prompts."""


@runtime_checkable
class ModelAnswerer(Answerer, Protocol):
    """An answerer whose answers cost enough to be kept: it hands each of them over as soon as it is there.

    One of them keeps its model or server busy; it is not used from several processes at once.
    """

    @property
    def sampling(self) -> Mapping[str, Any]:
        """What changes an answer besides model and prompt, as JSON; part of the cache key."""

    def describe(self) -> Mapping[str, Any]:
        """What a report says of how it answered, as JSON."""

    @property
    def num_in_flight(self) -> int:
        """How many prompts are being answered at this moment."""

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        """Answers prompts in any order and calls `on_answer(position, answer)` once for each, one call at a time.

        The next question is not asked before `on_answer` has returned, so that what it saves is never asked again.
        """


def takes_frames(answerer: object) -> bool:
    """Whether an answerer may be shown pixels: those that can say so, in a property of this name."""
    return bool(getattr(answerer, "takes_frames", False))


def describe_answerer(answerer: Answerer, *, looks: bool) -> dict[str, Any]:
    """What a report says of how a model answered, as JSON; nothing for answerers without settings.

    Args:
        answerer (`Answerer`): who was asked.
        looks (`bool`): whether it was shown frames; `visual` then says how.
    """
    if not isinstance(answerer, ModelAnswerer):
        return {}
    visual = getattr(answerer, "visual_sampling", {}) if looks else {}
    return {**answerer.describe(), **({"visual": dict(visual)} if visual else {})}


def check_seen(prompt: Prompt, answer: Answer) -> Answer:
    """Turns an answer that was to look and was given without a frame into an error."""
    if prompt.frames is None or answer.error is not None or answer.num_frames:
        return answer
    return Answer(text=None, error=f"no frame reached the model for view {prompt.view!r}; its answer is not used")


def collect_answers(model: ModelAnswerer, prompts: Sequence[Prompt]) -> list[Answer]:
    """What `answer_each` hands over, in the order of the prompts: `answer` of every model."""
    answers: dict[int, Answer] = {}
    model.answer_each(prompts, answers.__setitem__)
    return [answers[index] for index in range(len(prompts))]


@dataclass(frozen=True, slots=True)
class ConstantAnswerer:
    """Gives the same text to every prompt: a floor, and a stand-in for a model in tests.

    Args:
        text (`str`): the answer, for example `"A"`.

    Example:
        >>> ConstantAnswerer("A").id
        'constant:A'
    """

    text: str

    @property
    def id(self) -> str:
        return f"constant:{self.text}"

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        return [Answer(text=self.text) for _ in prompts]
