"""An example seen through a view: what an answerer is shown, and nothing else.

A prompt never carries the gold answer, so no answerer can read it by accident.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidground_hf.schema import BLIND_VIEWS, LETTERS, Example, ProblemType, View

# How to answer, by problem type, and what goes before it where a model may think first. Our own wording: VidGround's
# text-only prompt is not published.
INSTRUCTIONS: dict[ProblemType, str] = {
    "multiple_choice": "Answer with the letter of one option.",
    "numerical": "Answer with one number.",
    "ocr": "Answer with the text only.",
    "free_form": "Answer in one sentence.",
    "regression": "Answer with one number.",
}
REASONING = "Think it through between <think> and </think>, then answer between <answer> and </answer>."


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One question as an answerer sees it.

    Attributes:
        example_id (`str`): the example it was made from.
        view (`str`): the evidence shown; one of `schema.VIEWS`.
        problem_type (`str`): one of `schema.PROBLEM_TYPES`.
        question (`str`, *optional*): `None` under `options_only`.
        options (`tuple[str, ...]`): in the order shown.
        order (`tuple[int, ...]`): `options[k]` is the example's option `order[k]`.
        group (`str`, *optional*): the example's fold group.
        subtitles (`str`, *optional*): given under the `subtitles` view only.
        trial_index (`int`, *optional*, defaults to 0): which of several answers to the same prompt this asks for.
    """

    example_id: str
    view: View
    problem_type: ProblemType
    question: str | None
    options: tuple[str, ...] = ()
    order: tuple[int, ...] = ()
    group: str | None = None
    subtitles: str | None = None
    trial_index: int = 0

    @property
    def text(self) -> str:
        """The prompt as plain text (`str`), to be answered at once."""
        return self.render()

    def render(self, *, reasoning: bool = False) -> str:
        """The prompt as plain text.

        Args:
            reasoning (`bool`, *optional*, defaults to `False`): let the model think first, inside `<think>` tags.

        Returns:
            `str`: evidence, question, options and how to answer, in this order, so that two orders of the options
            share all that comes before them.
        """
        parts = []
        if self.subtitles is not None:
            parts.append(f"Subtitles of the video:\n{self.subtitles}")
        if self.question is not None:
            parts.append(f"Question: {self.question}")
        parts.extend(f"{LETTERS[k]}. {option}" for k, option in enumerate(self.options))
        if reasoning:
            parts.append(REASONING)
        parts.append(INSTRUCTIONS[self.problem_type])
        return "\n".join(parts)


def make_prompt(
    example: Example, view: View = "text", order: tuple[int, ...] | None = None, trial_index: int = 0
) -> Prompt:
    """Shows an example through a blind view.

    Args:
        example (`Example`): the question.
        view (`str`, *optional*, defaults to `"text"`): one of `schema.BLIND_VIEWS`.
        order (`tuple[int, ...]`, *optional*): a permutation of the option positions; defaults to the data's order.
        trial_index (`int`, *optional*, defaults to 0): which of several answers to the same prompt this asks for.

    Returns:
        `Prompt`: without the gold answer.

    Raises:
        `ValueError`: for a view that needs pixels, a view the row lacks, or an order that is no permutation.

    Example:
        >>> example = Example(id="1", question="Sky?", problem_type="multiple_choice", options=("red", "blue"))
        >>> print(make_prompt(example, order=(1, 0)).text)
        Question: Sky?
        A. blue
        B. red
        Answer with the letter of one option.
    """
    if view not in BLIND_VIEWS:
        raise ValueError(f"{view = } needs pixels; a text-only prompt allows {', '.join(BLIND_VIEWS)}")
    if view == "subtitles" and example.subtitles is None:
        raise ValueError(f"{view = } asks for subtitles, and row {example.id!r} has none; use view='text'")
    order = tuple(range(len(example.options))) if order is None else order
    if sorted(order) != list(range(len(example.options))):
        raise ValueError(f"{order = } is no permutation of {len(example.options)} options")
    return Prompt(
        example_id=example.id,
        view=view,
        problem_type=example.problem_type,
        question=None if view == "options_only" else example.question,
        options=tuple(example.options[k] for k in order),
        order=order,
        group=example.group,
        subtitles=example.subtitles if view == "subtitles" else None,
        trial_index=trial_index,
    )
