"""An example seen through a view: what an answerer is shown, and nothing else.

A prompt never carries the gold answer, so no answerer can read it by accident.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.schema import BLIND_VIEWS, LETTERS, VIEWS, Example, ProblemType, View

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
class Wording:
    """How questions are worded. Only these texts are templates; what rows hold is put into them as it is.

    Attributes:
        head (`str`): before the question; may be empty.
        question (`str`): with `{question}` in it.
        option (`str`): with `{letter}` and `{option}` in it.
        instructions (`Mapping[str, str]`): how to answer, by problem type.
    """

    head: str = ""
    question: str = "Question: {question}"
    option: str = "{letter}. {option}"
    instructions: Mapping[ProblemType, str] = field(default_factory=lambda: INSTRUCTIONS, hash=False)


OURS = Wording()


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
        subtitles (`str`, *optional*): given under the `subtitles` view, and beside frames where they were asked for.
        trial_index (`int`, *optional*, defaults to 0): which of several answers to the same prompt this asks for.
        frames (`FrameRequest`, *optional*): what is seen; `None` under the blind views.
        wording (`Wording`, *optional*, defaults to `OURS`): how the text is put.
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
    frames: FrameRequest | None = None
    wording: Wording = field(default=OURS, repr=False)

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
        wording = self.wording
        parts = [wording.head]
        if self.subtitles is not None:
            parts.append(f"Subtitles of the video:\n{self.subtitles}")
        if self.question is not None:
            parts.append(wording.question.replace("{question}", self.question))
        parts.extend(_word_option(wording.option, LETTERS[k], option) for k, option in enumerate(self.options))
        if reasoning:
            parts.append(REASONING)
        parts.append(wording.instructions[self.problem_type])
        return "\n".join(part for part in parts if part)


def _word_option(template: str, letter: str, option: str) -> str:
    return template.replace("{letter}", letter).replace("{option}", option)


def make_prompt(
    example: Example,
    view: View = "text",
    order: tuple[int, ...] | None = None,
    trial_index: int = 0,
    *,
    budget: FrameBudget | None = None,
    pick: tuple[int, int] | None = None,
    shuffle_seed: int = 0,
    with_subtitles: bool = False,
    wording: Wording = OURS,
) -> Prompt:
    """Shows an example through a view.

    Args:
        example (`Example`): the question; for `wrong_video` with another row's clip put in.
        view (`str`, *optional*, defaults to `"text"`): one of `schema.VIEWS`.
        order (`tuple[int, ...]`, *optional*): a permutation of the option positions; defaults to the data's order.
        trial_index (`int`, *optional*, defaults to 0): which of several answers to the same prompt this asks for.
        budget (`FrameBudget`, *optional*): what a view with pixels shows of the video; 32 frames when left out.
        pick (`tuple[int, int]`, *optional*): for `single_frame`, the i-th of k frames spread over the budget's; the
            middle one when left out.
        shuffle_seed (`int`, *optional*, defaults to 0): of `shuffled_frames`.
        with_subtitles (`bool`, *optional*, defaults to `False`): show the row's subtitles beside the frames.
        wording (`Wording`, *optional*): how the text is put.

    Returns:
        `Prompt`: without the gold answer.

    Raises:
        `ValueError`: for an unknown view, a view the row lacks, or an order that is no permutation.

    Example:
        >>> example = Example(id="1", question="Sky?", problem_type="multiple_choice", options=("red", "blue"))
        >>> print(make_prompt(example, order=(1, 0)).text)
        Question: Sky?
        A. blue
        B. red
        Answer with the letter of one option.
    """
    if view not in VIEWS:
        raise ValueError(f"{view = } is unknown; allowed are {', '.join(VIEWS)}")
    missing = find_missing(example, view)
    if missing is not None or (with_subtitles and example.subtitles is None):
        raise ValueError(
            f"{view = } asks for {missing or 'subtitles'}, and row {example.id!r} has none; use view='text'"
        )
    order = tuple(range(len(example.options))) if order is None else order
    if sorted(order) != list(range(len(example.options))):
        raise ValueError(f"{order = } is no permutation of {len(example.options)} options")
    is_blind = view in BLIND_VIEWS
    return Prompt(
        example_id=example.id,
        view=view,
        problem_type=example.problem_type,
        question=None if view == "options_only" else example.question,
        options=tuple(example.options[k] for k in order),
        order=order,
        group=example.group,
        subtitles=example.subtitles if view == "subtitles" or (with_subtitles and not is_blind) else None,
        trial_index=trial_index,
        frames=None if is_blind else _request_frames(example, view, budget or FrameBudget(), pick, shuffle_seed),
        wording=wording,
    )


def order_by_clip(prompts: Sequence[Prompt]) -> list[int]:
    """Positions of prompts, those of a clip in a row, in the order in which clips and blind prompts first come."""
    firsts: dict[object, int] = {}
    names = [index if prompt.frames is None else prompt.frames.clip_name for index, prompt in enumerate(prompts)]
    for index, name in enumerate(names):
        firsts.setdefault(name, index)
    return sorted(range(len(prompts)), key=lambda index: firsts[names[index]])


def find_missing(example: Example, view: View) -> str | None:
    """What a view shows that a row has not got: `"subtitles"`, `"video"` or `None`."""
    if view == "subtitles":
        return "subtitles" if example.subtitles is None else None
    return "video" if view not in BLIND_VIEWS and not example.video else None


def _request_frames(
    example: Example, view: View, budget: FrameBudget, pick: tuple[int, int] | None, shuffle_seed: int
) -> FrameRequest:
    source = example.video or ""
    if example.media_root is not None and example.media_content is None and "://" not in source:
        source = str(Path(example.media_root, source))
    return FrameRequest(
        source=source,
        content=example.media_content,
        start_seconds=example.start_seconds,
        end_seconds=example.end_seconds,
        frame_rate=example.frame_rate,
        budget=budget,
        pick=(pick or (0, 1)) if view == "single_frame" else None,
        shuffle_seed=shuffle_seed if view == "shuffled_frames" else None,
    )
