"""The rows of a set as the probe holds them: folds, labels beside the prompts, and answers fold by fold.

It brings the multiple-choice and the open-ended half together; what users see is in `probe.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.probe_choices import ChoiceModel, ChoiceRows, ChoiceTally
from vidground_hf.answerers.probe_scratch import take
from vidground_hf.answerers.probe_text import Ints, PromptBatch
from vidground_hf.answerers.probe_votes import Vote, VoteModel, VoteRows
from vidground_hf.numbering import hash_values, number_values
from vidground_hf.prompts import Prompt, make_prompt
from vidground_hf.schema import Example, View

Floats = NDArray[np.float64]
CHOICE, OPEN, NO_OPTIONS, NO_SUBTITLES = 1, 0, -1, -2
_REFUSALS = {NO_OPTIONS: "no_options", NO_SUBTITLES: "no_subtitles"}
_NOTHING = Answer(text=None, error="nothing_learned")
_ROWS_PER_BATCH = 2048


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
                answers[k] = make_choice(prompts[k].options, batch.classes[row], batch.positions[span], scores[span])
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


class ShownRows(Sequence[Prompt]):
    """What is shown of some rows, made each time it is needed; nothing is held."""

    def __init__(self, examples: Sequence[Example], view: View, places: Ints) -> None:
        self._examples, self._view, self._places = examples, view, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        return self.take(list(range(len(self)))[index]) if isinstance(index, slice) else self.take([index])[0]

    def take(self, indices: Sequence[int]) -> list[Prompt]:
        """Some of them, in any order."""
        return [make_prompt(example, self._view) for example in take(self._examples, self._places[indices])]


class ProbeRows:
    """A set, read a few times and kept as numbers, for any number of fits.

    Args:
        examples (`Sequence[Example]`): N rows; one that reads them from the disk may have a `take`, for many at once.
        view (`str`): a blind view.

    Attributes:
        kinds (`int8[N]`): what each row is to the probe: `CHOICE`, `OPEN`, or why it is not asked.
        groups (`int64[N]`): each row's group as a number.
        questions (`uint64[N]`): equal for rows of one group with the same question and options.
        labels (`Labels`): the gold answers.
        chosen, voted (`int64[R]`): the rows that are multiple choice, and those that are open-ended.
    """

    def __init__(self, examples: Sequence[Example], view: View) -> None:
        self.examples, self.view = examples, view
        kinds, groups, questions, gold, texts = [], [], [], [], []
        for example in examples:
            kind = _find_kind(example, view)
            kinds.append(kind)
            groups.append(hash_values(_find_group(example)))
            questions.append(hash_values(identify(example, view)))
            if kind == CHOICE:
                is_usable = example.defect is None and example.answer_index is not None
                gold.append(example.answer_index if is_usable else -1)
            elif kind == OPEN:
                texts.append(example.answer if example.defect is None else None)
        self.kinds = np.array(kinds, np.int8)
        self.groups = number_values(np.array(groups, np.uint64))
        self.questions = np.array(questions, np.uint64)
        self.labels = Labels(np.array(gold, np.int64), texts)
        self.chosen, self.voted = np.flatnonzero(self.kinds == CHOICE), np.flatnonzero(self.kinds == OPEN)
        self.choices = (
            ChoiceRows(ShownRows(examples, view, self.chosen), self.groups[self.chosen]) if len(self.chosen) else None
        )
        self._votes = VoteRows(ShownRows(examples, view, self.voted)) if len(self.voted) else None

    @property
    def starts(self) -> Ints:
        """Where the choices of each multiple-choice row as held start."""
        return np.zeros(1, np.int64) if self.choices is None else self.choices.starts

    def find_fold(self, prompt: Prompt, folds: Ints) -> int | None:
        """The fold of the rows that ask what a prompt asks; `None` where there are none."""
        rows = np.flatnonzero(self.questions == np.uint64(hash_values(identify(prompt, self.view))))
        return int(folds[rows[-1]]) if len(rows) else None

    def place_held(self) -> Ints:
        """For each of the N rows which of the held ones it is; -1 for those that are not multiple choice."""
        held = np.full(len(self.kinds), -1, np.int64)
        if self.choices is not None:
            held[self.chosen[self.choices.order]] = np.arange(len(self.chosen))
        return held

    def cross_fit(
        self, labels: Labels, folds: Ints, held_out: Sequence[int | None]
    ) -> tuple[CrossAnswers, list[ChoiceModel | None]]:
        """Answers each of some folds by a model trained on the rest.

        Args:
            labels (`Labels`): what to train on.
            folds (`int64[N]`): each row's fold; -1 leaves a row out altogether.
            held_out (`Sequence[int | None]`): the folds to answer; `None` trains on all of them and answers none.

        Returns:
            `tuple[CrossAnswers, list[ChoiceModel | None]]`: the answers to the rows of those folds, and the
            multiple-choice half of each model. The other half is made again by `fit_votes` when it is wanted: it takes
            more memory than the rows, and less time than a tenth of the first half.
        """
        found = CrossAnswers(self, np.isin(folds, [fold for fold in held_out if fold is not None]))
        tally = self._tally(labels, folds)
        models: list[ChoiceModel | None] = []
        for fold in held_out:
            choices = None
            if tally is not None and tally.can_fit(fold):
                choices, scores = tally.fit(fold)
                is_scored = ~np.isnan(scores)
                found.scores[is_scored] = scores[is_scored]
            models.append(choices)
            votes = None if fold is None else self.fit_votes(labels, folds, fold)
            if votes is not None and self._votes is not None:
                rows = np.flatnonzero(folds[self.voted] == fold)
                found.set_votes(rows, self._votes.count(votes, rows))
        return found, models

    def exchange_labels(self, folds: Ints, fold: int, seed: int) -> Labels:
        """The labels, with another option drawn as gold for each row of a fold, and its texts put into other rows."""
        rng = np.random.default_rng(seed)
        gold, texts = self.labels.gold.copy(), list(self.labels.texts)
        if self.choices is not None:
            num_options = np.empty(len(self.chosen), np.int64)
            num_options[self.choices.order] = self.choices.num_options
            for row in np.flatnonzero((folds[self.chosen] == fold) & (gold >= 0) & (num_options > 1)):
                gold[row] = (gold[row] + rng.integers(1, num_options[row])) % num_options[row]
        labelled = [row for row in np.flatnonzero(folds[self.voted] == fold) if texts[row] is not None]
        shuffled = [texts[row] for row in np.roll(labelled, 1)]
        for row, text in zip(labelled, shuffled, strict=True):
            texts[row] = text
        return replace(self.labels, gold=gold, texts=texts)

    def list_labelled(self) -> Ints:
        """The rows that are trained on."""
        has_text = np.array([text is not None for text in self.labels.texts], bool)
        return np.concatenate([self.chosen[self.labels.gold >= 0], self.voted[has_text]])

    def _tally(self, labels: Labels, folds: Ints) -> ChoiceTally | None:
        if self.choices is None:
            return None
        order = self.choices.order
        return ChoiceTally(self.choices, self.choices.find_gold(labels.gold), folds[self.chosen][order])

    def fit_votes(self, labels: Labels, folds: Ints, held_out: int | None) -> VoteModel | None:
        """Trains the open-ended half on all folds but one, or on all; `None` where there is nothing to train on."""
        if self._votes is None:
            return None
        fold_of_row = folds[self.voted]
        is_training = fold_of_row >= 0
        if held_out is not None:
            is_training &= fold_of_row != held_out
        return self._votes.fit(labels.texts, is_training) if self._votes.can_fit(labels.texts, is_training) else None

    @property
    def num_voters(self) -> int:
        """How many open-ended rows may have a vote."""
        return 0 if self._votes is None else len(self._votes.voters)


class CrossAnswers:
    """Out-of-fold answers as numbers; iterated, each row with its `Answer`, in order, and `None` where it has none.

    Args:
        rows (`ProbeRows`): N rows.
        is_asked (`bool[N]`): those that are answered.

    Attributes:
        scores (`float64[C]`): the log-probability of each choice as held; nan where there is none.
        texts (`list[str | None]`), shares (`float64[V]`): of each open-ended row the answer with most votes and the
            logarithm of its share of them; nan where no model was asked.
    """

    def __init__(self, rows: ProbeRows, is_asked: NDArray[np.bool_]) -> None:
        self.rows, self.is_asked = rows, is_asked
        self.scores = np.full(0 if rows.choices is None else len(rows.choices.rows), np.nan)
        self.texts: list[str | None] = [None] * len(rows.voted)
        self.shares = np.full(len(rows.voted), np.nan)

    def set_votes(self, rows: Ints, votes: Sequence[Vote]) -> None:
        """Sets the votes of some open-ended rows."""
        for row, vote in zip(rows.tolist(), votes, strict=True):
            self.texts[row], self.shares[row] = vote.text, vote.confidence or 0.0

    def __iter__(self) -> Iterator[tuple[Example, Answer | None]]:
        rows = self.rows
        held, nth = rows.place_held(), np.cumsum(rows.kinds == OPEN) - 1
        for start in range(0, len(self.is_asked), _ROWS_PER_BATCH):
            places = range(start, min(start + _ROWS_PER_BATCH, len(self.is_asked)))
            for k, example in zip(places, take(rows.examples, places), strict=True):
                yield example, self._answer(k, example, int(held[k]), int(nth[k])) if self.is_asked[k] else None

    def _answer(self, k: int, example: Example, held: int, nth: int) -> Answer:
        kind = int(self.rows.kinds[k])
        if kind in _REFUSALS:
            return Answer(text=None, error=_REFUSALS[kind])
        if kind == OPEN:
            return _NOTHING if np.isnan(self.shares[nth]) else make_vote(_read_vote(self.texts[nth], self.shares[nth]))
        starts = self.rows.starts
        scores = self.scores[starts[held] : starts[held + 1]]
        if np.isnan(scores).any():
            return _NOTHING
        positions = np.array(sorted(set(example.option_classes)), np.int64)
        return make_choice(example.options, example.option_classes, positions, scores)

    def find_same(self, other: CrossAnswers, sample: Ints) -> NDArray[np.bool_]:
        """Whether some rows have the same answers in both, but for rounding."""
        same = np.zeros(len(self.is_asked), bool)
        rows = self.rows
        if rows.choices is not None:
            starts, order = rows.choices.starts, rows.chosen[rows.choices.order]
            close = np.isclose(self.scores, other.scores, rtol=0, atol=1e-6, equal_nan=True)
            tops = _find_top(self.scores, starts) == _find_top(other.scores, starts)
            same[order] = np.logical_and.reduceat(close, starts[:-1]) & tops
        shares = np.isclose(self.shares, other.shares, rtol=0, atol=1e-6, equal_nan=True)
        texts = np.array([one == two for one, two in zip(self.texts, other.texts, strict=True)], bool)
        same[rows.voted] = shares & texts
        return same[sample]


def _find_top(scores: Floats, starts: Ints) -> Ints:
    """The place of the first of the largest scores of each question."""
    values = np.where(np.isnan(scores), -np.inf, scores)
    largest = np.repeat(np.maximum.reduceat(values, starts[:-1]), np.diff(starts))
    places = np.where(values == largest, np.arange(len(scores)), len(scores))
    return np.asarray(np.minimum.reduceat(places, starts[:-1]))


def _read_vote(text: str | None, share: float) -> Vote:
    return Vote(text, None if text is None else float(share))


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


def make_choice(options: Sequence[str], classes: Sequence[int], positions: Ints, scores: Floats) -> Answer:
    """The answer to a multiple-choice prompt, from the log-probability of each of its distinct options."""
    of_class = dict(zip(positions.tolist(), scores.tolist(), strict=True))
    best = int(np.argmax(scores))
    others = np.delete(scores, best)
    confidence = None
    if len(others):
        # The runner-up alone, not all the rest, as it ranks sure answers better; see docs/design/probe.md.
        confidence = float(scores[best] - others.max())
    return Answer(
        text=options[positions[best]],
        option_logprobs=tuple(of_class[index] for index in classes),
        confidence=confidence,
    )


def make_vote(vote: Vote) -> Answer:
    """The answer to an open-ended prompt."""
    if vote.text is None:
        return Answer(text=None, error="no_similar_question")
    return Answer(text=vote.text, confidence=vote.confidence)


def identify(row: Example | Prompt, view: View) -> tuple[str | None, ...]:
    """What tells a row from all that could have been answered by another model; a prompt and its row have the same."""
    return row.group, None if view == "options_only" else row.question, *sorted(row.options)


def is_choice(prompt: Prompt) -> bool:
    """Whether a prompt has options to choose from."""
    return prompt.problem_type == "multiple_choice" and bool(prompt.options)


def is_open(prompt: Prompt) -> bool:
    """Whether a prompt is to be answered freely."""
    return prompt.problem_type != "multiple_choice"


def _refuse(prompt: Prompt) -> Answer:
    """What is answered when no model can."""
    is_empty = prompt.problem_type == "multiple_choice" and not prompt.options
    return Answer(text=None, error=_REFUSALS[NO_OPTIONS]) if is_empty else _NOTHING


def _find_kind(example: Example, view: View) -> int:
    if view == "subtitles" and example.subtitles is None:
        return NO_SUBTITLES
    if example.problem_type != "multiple_choice":
        return OPEN
    return CHOICE if example.options else NO_OPTIONS


def _find_group(example: Example) -> tuple[str, ...]:
    # Rows without a group would teach each other their answers if they are the same question, in whatever order its
    # options stand.
    return (
        ("question", example.question, *sorted(example.options)) if example.group is None else ("group", example.group)
    )
