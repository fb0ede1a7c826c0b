"""The rows of a set as the probe holds them: folds, labels beside the prompts, and answers fold by fold.

It brings the multiple-choice and the open-ended half together; what users see is in `probe.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.probe_choices import ChoiceModel, ChoiceRows, ChoiceTally
from vidground_hf.answerers.probe_text import Ints, PromptBatch
from vidground_hf.answerers.probe_votes import Vote, VoteModel, VoteRows
from vidground_hf.prompts import Prompt, make_prompt
from vidground_hf.schema import Example, View

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labels:
    """Gold answers, kept apart from the prompts.

    Attributes:
        gold (`int64[R]`): the gold option of each multiple-choice row; -1 where there is none to train on.
        texts (`list[str | None]`): the gold answer of each open-ended row; `None` where there is none to train on.
    """

    gold: Ints
    texts: list[str | None]


@dataclass(frozen=True, slots=True)
class ProbeModel:
    """One trained model; a half is `None` where there was nothing to train it on."""

    choices: ChoiceModel | None
    votes: VoteModel | None

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers unseen prompts."""
        answers = [_refuse(prompt) for prompt in prompts]
        chosen = [k for k, prompt in enumerate(prompts) if is_choice(prompt)]
        if chosen and self.choices is not None:
            batch = PromptBatch([prompts[k] for k in chosen])
            scores = self.choices.score(batch)
            for row, k in enumerate(chosen):
                span = slice(batch.starts[row], batch.starts[row + 1])
                answers[k] = make_choice(prompts[k], batch.classes[row], batch.positions[span], scores[span])
        voted = [k for k, prompt in enumerate(prompts) if is_open(prompt)]
        if voted and self.votes is not None:
            for k, vote in zip(voted, self.votes.vote([prompts[k] for k in voted]), strict=True):
                answers[k] = make_vote(vote)
        return answers

    def explain(self, prompt: Prompt, answer: Answer) -> list[tuple[str, float]]:
        """What speaks for an answer, as names and worth, the largest first."""
        if answer.text is None:
            return []
        if is_choice(prompt) and self.choices is not None and answer.option_logprobs is not None:
            clues = self.choices.explain(prompt, int(np.argmax(answer.option_logprobs)))
            return [clue for clue in clues if clue[1] > 0]
        if is_open(prompt) and self.votes is not None:
            return self.votes.explain(prompt, answer.text)
        return []


class ProbeRows:
    """A set, read once for any number of fits.

    Args:
        examples (`Sequence[Example]`): N rows.
        view (`str`): a blind view.

    Attributes:
        prompts (`list[Prompt | None]`): what is shown of each row; `None` where a row lacks the view.
        groups (`int64[N]`): each row's group as a number.
        labels (`Labels`): the gold answers.
    """

    def __init__(self, examples: Sequence[Example], view: View) -> None:
        self.examples = examples
        self.prompts = [
            None if view == "subtitles" and example.subtitles is None else make_prompt(example, view)
            for example in examples
        ]
        codes: dict[object, int] = {}
        self.groups = np.array([codes.setdefault(_find_group(e), len(codes)) for e in examples], np.int64)
        asked = [(k, prompt) for k, prompt in enumerate(self.prompts) if prompt is not None]
        self.chosen = np.array([k for k, prompt in asked if is_choice(prompt)], np.int64)
        self.voted = np.array([k for k, prompt in asked if is_open(prompt)], np.int64)
        self._choices = ChoiceRows(self._pick(self.chosen), self.groups[self.chosen]) if len(self.chosen) else None
        self._votes = VoteRows(self._pick(self.voted)) if len(self.voted) else None
        gold = [None if examples[k].defect is not None else examples[k].answer_index for k in self.chosen]
        self.labels = Labels(
            np.array([-1 if index is None else index for index in gold], np.int64),
            [None if examples[k].defect is not None else examples[k].answer for k in self.voted],
        )

    def _pick(self, indices: Ints) -> list[Prompt]:
        return [prompt for prompt in (self.prompts[k] for k in indices) if prompt is not None]

    def cross_fit(
        self, labels: Labels, folds: Ints, held_out: Sequence[int]
    ) -> tuple[list[Answer | None], list[ProbeModel]]:
        """Answers each of some folds by a model trained on the rest.

        Args:
            labels (`Labels`): what to train on.
            folds (`int64[N]`): each row's fold; -1 leaves a row out altogether.
            held_out (`Sequence[int]`): the folds to answer.

        Returns:
            `tuple[list[Answer | None], list[ProbeModel]]`: N answers, `None` outside those folds, and the models.
        """
        answers: list[Answer | None] = [None] * len(self.examples)
        for k in np.flatnonzero(np.isin(folds, held_out)):
            answers[k] = _refuse(self.prompts[k])
        tally = self._tally(labels, folds)
        models = []
        for fold in held_out:
            choices = None
            if tally is not None and tally.can_fit(fold):
                choices, scores = tally.fit(fold)
                self._answer_choices(tally.rows, scores, folds == fold, answers)
            votes = self._fit_votes(labels, folds, fold)
            if votes is not None and self._votes is not None:
                rows = np.flatnonzero(folds[self.voted] == fold)
                for k, vote in zip(self.voted[rows], votes.count(self._votes.parts[rows]), strict=True):
                    answers[k] = make_vote(vote)
            models.append(ProbeModel(choices, votes))
        return answers, models

    def fit(self, labels: Labels, folds: Ints) -> ProbeModel:
        """Trains on all folds."""
        tally = self._tally(labels, folds)
        choices = tally.fit(None)[0] if tally is not None and tally.can_fit(None) else None
        return ProbeModel(choices, self._fit_votes(labels, folds, None))

    def exchange_labels(self, folds: Ints, fold: int, seed: int) -> Labels:
        """The labels, with another option drawn as gold for each row of a fold, and its texts put into other rows."""
        rng = np.random.default_rng(seed)
        gold, texts = self.labels.gold.copy(), list(self.labels.texts)
        for row in np.flatnonzero((folds[self.chosen] == fold) & (gold >= 0)):
            num_options = len(self.examples[self.chosen[row]].options)
            if num_options > 1:
                gold[row] = (gold[row] + rng.integers(1, num_options)) % num_options
        labelled = [row for row in np.flatnonzero(folds[self.voted] == fold) if texts[row] is not None]
        shuffled = [texts[row] for row in np.roll(labelled, 1)]
        for row, text in zip(labelled, shuffled, strict=True):
            texts[row] = text
        return replace(self.labels, gold=gold, texts=texts)

    def list_labelled(self) -> Ints:
        """The rows that are trained on."""
        texts = [k for k, text in zip(self.voted, self.labels.texts, strict=True) if text is not None]
        return np.array([*self.chosen[self.labels.gold >= 0], *texts], np.int64)

    def _tally(self, labels: Labels, folds: Ints) -> ChoiceTally | None:
        if self._choices is None:
            return None
        order = self._choices.order
        return ChoiceTally(self._choices, self._choices.find_gold(labels.gold), folds[self.chosen][order])

    def _fit_votes(self, labels: Labels, folds: Ints, held_out: int | None) -> VoteModel | None:
        if self._votes is None:
            return None
        fold_of_row = folds[self.voted]
        is_training = (fold_of_row >= 0) & np.array([text is not None for text in labels.texts])
        if held_out is not None:
            is_training &= fold_of_row != held_out
        return self._votes.fit(labels.texts, is_training) if is_training.any() else None

    def _answer_choices(
        self, rows: ChoiceRows, scores: Floats, is_asked: NDArray[np.bool_], answers: list[Answer | None]
    ) -> None:
        for held, k in enumerate(self.chosen[rows.order]):
            prompt = self.prompts[k]
            if is_asked[k] and prompt is not None:
                span = slice(rows.starts[held], rows.starts[held + 1])
                answers[k] = make_choice(prompt, rows.classes[held], rows.positions[span], scores[span])


def assign_folds(groups: Ints, keep: NDArray[np.bool_], num_folds: int, seed: int) -> Ints:
    """Deals shuffled groups out to folds; there are fewer folds where there are fewer groups.

    Args:
        groups (`int64[N]`): each row's group.
        keep (`bool[N]`): the rows to deal out.
        num_folds (`int`): 2 or more.
        seed (`int`): shuffles the groups.

    Returns:
        `int64[N]`: folds from 0 on; -1 for rows not kept.

    Raises:
        `ValueError`: for fewer than 2 groups.

    Example:
        >>> assign_folds(np.array([0, 0, 1, 2]), np.array([True, True, True, False]), 5, seed=0).tolist()
        [0, 0, 1, -1]
    """
    present, codes = np.unique(groups[keep], return_inverse=True)
    if len(present) < 2:
        raise ValueError(
            f"got {int(keep.sum())} rows in {len(present)} groups; out-of-fold answers take 2 groups or more. "
            "Pass more rows, or rows of more than one group"
        )
    dealt = np.empty(len(present), np.int64)
    dealt[np.random.default_rng(seed).permutation(len(present))] = np.arange(len(present)) % num_folds
    folds = np.full(len(groups), -1, np.int64)
    folds[keep] = dealt[codes]
    return folds


def make_choice(prompt: Prompt, classes: Sequence[int], positions: Ints, scores: Floats) -> Answer:
    """The answer to a multiple-choice prompt, from the log-probability of each of its distinct options."""
    of_class = dict(zip(positions.tolist(), scores.tolist(), strict=True))
    best = int(np.argmax(scores))
    others = np.delete(scores, best)
    confidence = None
    if len(others):
        # The runner-up alone, not all the rest, as it ranks sure answers better; see docs/design/probe.md.
        confidence = float(scores[best] - others.max())
    return Answer(
        text=prompt.options[positions[best]],
        option_logprobs=tuple(of_class[index] for index in classes),
        confidence=confidence,
    )


def make_vote(vote: Vote) -> Answer:
    """The answer to an open-ended prompt."""
    if vote.text is None:
        return Answer(text=None, error="no_similar_question")
    return Answer(text=vote.text, confidence=vote.confidence)


def is_choice(prompt: Prompt) -> bool:
    """Whether a prompt has options to choose from."""
    return prompt.problem_type == "multiple_choice" and bool(prompt.options)


def is_open(prompt: Prompt) -> bool:
    """Whether a prompt is to be answered freely."""
    return prompt.problem_type != "multiple_choice"


def _refuse(prompt: Prompt | None) -> Answer:
    """What is answered when no model can."""
    if prompt is None:
        return Answer(text=None, error="no_subtitles")
    is_empty = prompt.problem_type == "multiple_choice" and not prompt.options
    return Answer(text=None, error="no_options" if is_empty else "nothing_learned")


def _find_group(example: Example) -> object:
    # Rows without a group would teach each other their answers if they are the same question, in whatever order its
    # options stand.
    return (example.question, *sorted(example.options)) if example.group is None else example.group
