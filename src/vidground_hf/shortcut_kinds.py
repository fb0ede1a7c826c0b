"""Why a question could be answered without its video: a second question to the model that answered it.

The four kinds are VidGround's (arXiv 2604.05117); what is said of each is our own wording. It is the model's own
account, one label a row, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from vidground_hf.answerers.base import Answerer
from vidground_hf.asking import Asking, ask_rows
from vidground_hf.judging import check_answers
from vidground_hf.rules import single_shot
from vidground_hf.schema import Example
from vidground_hf.trials import Trial

SHORTCUT_KINDS = {
    "textual_shortcut": "The wording of the question or of the options gives the answer away.",
    "external_knowledge": "The answer is known about the world, whatever this video shows.",
    "inferential_elimination": "Reasoning rules the other answers out.",
    "imagined_content": "What such a video usually shows can be imagined from the question.",
}


def make_kind_example(example: Example, trial: Trial) -> Example:
    """Makes the second question about a row: what was asked, what was answered, and four reasons to choose from.

    Example:
        >>> example = Example(id="1", question="What colour is snow?", problem_type="free_form")
        >>> print(make_kind_example(example, Trial(score=1.0, text="white")).question)
        This question about a video was answered without the video.
        Its question: What colour is snow?
        The answer given: white
        What made that possible?
    """
    lines = ["This question about a video was answered without the video.", f"Its question: {example.question}"]
    lines += [f"An option: {option}" for option in example.options]
    lines += [f"The answer given: {trial.text}", "What made that possible?"]
    return Example(
        id=example.id,
        question="\n".join(lines),
        problem_type="multiple_choice",
        options=tuple(SHORTCUT_KINDS.values()),
        group=example.group,
    )


def ask_kinds(
    answerer: Answerer,
    examples: Sequence[Example],
    trials: Sequence[Trial],
    *,
    seed: int,
    raises: bool,
    progress: bool = False,
) -> list[str | None]:
    """Asks a model why it could answer.

    Args:
        answerer (`Answerer`): the model that answered.
        examples (`Sequence[Example]`): N rows.
        trials (`Sequence[Trial]`): what it answered to each.
        seed (`int`): of the order in which the kinds are shown.
        raises (`bool`): whether an answer that failed is an exception.
        progress (`bool`, *optional*, defaults to `False`): show a bar on stderr.

    Returns:
        `list[str | None]`: a key of `SHORTCUT_KINDS` a row; `None` where none of them was chosen.

    Raises:
        `AnswerError`: when questions got no answer and `raises` is set.
    """
    asking = Asking(answerers=(answerer,), rule=single_shot(), view="text", seed=seed)
    questions = [make_kind_example(*row) for row in zip(examples, trials, strict=True)]
    answered = ask_rows(asking, questions, progress=progress).trials
    if raises:
        check_answers(answered)
    names = list(SHORTCUT_KINDS)
    return [None if row[0].choice is None else names[row[0].choice] for row in answered]
