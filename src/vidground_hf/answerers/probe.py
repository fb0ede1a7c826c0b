"""The text-bias probe: learns from a set's own answers which questions their wording gives away, out of fold.

It sees text only. How the features are made is in `probe_features.py`, how they are weighed in `probe_choices.py`
(multiple choice) and `probe_votes.py` (open-ended). What was tried is in `docs/design/probe.md`.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.probe_choices import ChoiceModel
from vidground_hf.answerers.probe_rows import CrossAnswers, ProbeModel, ProbeRows, assign_folds, is_open
from vidground_hf.answerers.probe_text import Ints
from vidground_hf.answerers.probe_votes import VoteModel
from vidground_hf.prompts import Prompt
from vidground_hf.schema import BLIND_VIEWS, Example, View

_VERSION = 1
_ROWS_PER_BATCH = 2048
_NUM_CLUES = 5  # named for a row; our guess at what a reader takes in


@dataclass(frozen=True, kw_only=True)
class TextBiasProbe:
    """Settings of the probe; `fit` learns and answers.

    Args:
        num_folds (`int`, *optional*, defaults to 5): 2 or more; a set with fewer groups gets one fold for each. With
            2, no training fold is left to count words in, and lengths, overlaps and the like are all that is weighed.
        seed (`int`, *optional*, defaults to 0): shuffles the groups into folds.

    Example:
        >>> TextBiasProbe().id
        'probe@1(folds=5,seed=0)'
    """

    num_folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_folds < 2:
            raise ValueError(f"num_folds = {self.num_folds} leaves nothing to train on; pass 2 or more")

    @property
    def id(self) -> str:
        """Version and settings."""
        return f"probe@{_VERSION}(folds={self.num_folds},seed={self.seed})"

    def fit(self, examples: Sequence[Example], *, view: View = "text") -> ProbeFit:
        """Answers every example by a model that was trained on other groups, then trains one on all.

        Rows without a gold answer and rows with a defect are answered but not trained on.

        Args:
            examples (`Sequence[Example]`): N rows of at least 2 groups; a row without a group shares one with the
                rows of the same question and options alone.
            view (`str`, *optional*, defaults to `"text"`): one of `schema.BLIND_VIEWS`. A row without subtitles gets
                the error `no_subtitles` under `"subtitles"`.

        Returns:
            `ProbeFit`: out-of-fold answers, and a model for unseen rows.

        Raises:
            `ValueError`: for fewer than 2 groups, or a view that needs pixels.

        Example:
            >>> examples = [
            ...     Example(
            ...         id=f"{k}",
            ...         question=f"What is number {k}?",
            ...         problem_type="multiple_choice",
            ...         options=(f"a cup of {k}", f"surely a hat of {k}"),
            ...         answer_index=1,
            ...     )
            ...     for k in range(20)
            ... ]
            >>> fit = TextBiasProbe().fit(examples)
            >>> fit.answers[7].text, fit.label_invariance
            ('surely a hat of 7', 1.0)
        """
        if view not in BLIND_VIEWS:
            raise ValueError(
                f"{view = } needs pixels, which the probe cannot read; allowed are {', '.join(BLIND_VIEWS)}"
            )
        rows = ProbeRows(examples, view)
        folds = assign_folds(rows.groups, np.ones(len(examples), bool), self.num_folds, self.seed)
        found, models = rows.cross_fit(rows.labels, folds, [*range(folds.max() + 1), None])
        return ProbeFit(
            probe=self,
            choices=models,
            found=found,
            label_invariance=_measure_invariance(rows, folds, found, self.seed),
            folds=folds,
        )


class ProbeFit:
    """What the probe learned from a set. Made by `TextBiasProbe.fit` or `ProbeFit.from_bytes`.

    Attributes:
        examples (`Sequence[Example]`): the N rows; empty when read from bytes.
        answers (`list[Answer]`): for each row the answer of the model that did not see its group. Multiple choice:
            the text of an option, with `option_logprobs` and a confidence that is comparable across option counts:
            its log-odds against the next likeliest option. Open-ended: the training answer with most
            votes, and the logarithm of its share of them. Errors: `no_options`, `no_subtitles`, `nothing_learned`
            (no row to train on), `no_similar_question`. Empty when read from bytes. Of a large set they are better
            taken one by one, from `iterate_answers`.
        label_invariance (`float`, *optional*): share of the labelled rows of one fold whose answer stays the same
            when their gold answers are exchanged: 1.0, or gold answers leak into their own predictions. `None`
            without labelled rows.
        num_folds (`int`): the folds that were made.
    """

    def __init__(
        self,
        *,
        probe: TextBiasProbe,
        choices: Sequence[ChoiceModel | None],
        found: CrossAnswers | None,
        label_invariance: float | None,
        folds: Ints,
        votes: VoteModel | None = None,
    ) -> None:
        self.probe = probe
        self.label_invariance = label_invariance
        self.num_folds = len(choices) - 1
        self._choices = choices  # one per fold, then the one that was trained on all
        self._votes = votes  # of a fit read from bytes; one that has its rows makes them again from these
        self._found = found
        self._rows = None if found is None else found.rows
        self.examples: Sequence[Example] = [] if self._rows is None else self._rows.examples
        self._folds = folds

    @cached_property
    def answers(self) -> list[Answer]:
        return [answer for _, answer in self.iterate_answers()]

    def iterate_answers(self) -> Iterator[tuple[Example, Answer]]:
        """Yields the rows and their `answers` one by one."""
        for example, answer in self._found or ():
            if answer is not None:
                yield example, answer

    @cached_property
    def id(self) -> str:
        """The probe's, and the beginning of the sha256 of what it learned."""
        return f"{self.probe.id}#{hashlib.sha256(self.to_bytes()).hexdigest()[:12]}"

    def describe(self) -> dict[str, Any]:
        """What a report says of how it learned, as JSON: something only where a sample of a large set had to do."""
        rows = self._rows
        if rows is None or rows.num_voters == len(rows.voted):
            return {}
        return {"num_open_ended": len(rows.voted), "num_open_ended_trained_on": rows.num_voters}

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """Answers unseen rows by the model that was trained on all labelled rows.

        Args:
            prompts (`Sequence[Prompt]`): as many as there are, options in any order.

        Returns:
            `list[Answer]`: one each, in the prompts' order and option order; see `answers`.
        """
        answers: list[Answer] = []
        for start in range(0, len(prompts), _ROWS_PER_BATCH):
            answers += self._model.answer(prompts[start : start + _ROWS_PER_BATCH])
        return answers

    def explain(self, prompts: Sequence[Prompt], answers: Sequence[Answer]) -> list[list[tuple[str, float]]]:
        """Names what made the answered options win: words, pairs of words ("asked → said"), lengths, overlaps.

        A row of the fitted set is explained by the model that answered it, which did not see its gold answer.

        Args:
            prompts (`Sequence[Prompt]`): questions.
            answers (`Sequence[Answer]`): this fit's answers to them.

        Returns:
            `list[list[tuple[str, float]]]`: for each up to five clues with their worth, the largest first:
            log-odds against the average option, or shares of the votes. Empty where there is no answer.
        """
        of_fold: dict[int | None, list[int]] = {}
        for k, (prompt, _) in enumerate(zip(prompts, answers, strict=True)):
            fold = None if self._rows is None else self._rows.find_fold(prompt, self._folds)
            of_fold.setdefault(fold, []).append(k)
        found: dict[int, list[tuple[str, float]]] = {}
        for fold, places in of_fold.items():
            model = self._make_model(fold, with_votes=any(is_open(prompts[k]) for k in places))
            found.update({k: model.explain(prompts[k], answers[k])[:_NUM_CLUES] for k in places})
        return [found[k] for k in range(len(prompts))]

    def refit(self, keep: NDArray[np.bool_], *, seed: int) -> list[Answer | None]:
        """Answers a part of the rows by models trained on that part alone, with new folds.

        Label-free counts of words still come from the whole set.

        Args:
            keep (`bool[N]`): the rows to train on and to answer, of at least 2 groups.
            seed (`int`): shuffles the groups into folds.

        Returns:
            `list[Answer | None]`: N out-of-fold answers, `None` for rows not kept.

        Raises:
            `RuntimeError`: on a fit read from bytes.
            `ValueError`: when `keep` has another length, or fewer than 2 groups.
        """
        return [answer for _, answer in self.iterate_refit(keep, seed=seed)]

    def iterate_refit(self, keep: NDArray[np.bool_], *, seed: int) -> Iterator[tuple[Example, Answer | None]]:
        """Yields the rows and what `refit` gives for them one by one."""
        if self._rows is None:
            raise RuntimeError("this fit was read from bytes, which hold no rows; fit again on the set to refit")
        keep = np.asarray(keep, dtype=bool)
        if keep.shape != (len(self.examples),):
            raise ValueError(f"keep has shape {keep.shape}; pass one value for each of the {len(self.examples)} rows")
        folds = assign_folds(self._rows.groups, keep, self.probe.num_folds, seed)
        return iter(self._rows.cross_fit(self._rows.labels, folds, range(folds.max() + 1))[0])

    def to_bytes(self) -> bytes:
        """What `answer` needs, as a numpy archive without pickles; the same fit gives the same bytes."""
        model = self._model
        arrays: dict[str, NDArray[Any]] = {}
        if model.choices is not None:
            arrays |= {f"choices/{name}": array for name, array in model.choices.to_arrays().items()}
        if model.votes is not None:
            arrays |= {f"votes/{name}": array for name, array in model.votes.to_arrays().items()}
        settings = {
            "version": _VERSION,
            "num_folds": self.probe.num_folds,
            "seed": self.probe.seed,
            "label_invariance": self.label_invariance,
            "answers": model.votes.answers if model.votes is not None else [],
        }
        arrays["settings"] = np.frombuffer(json.dumps(settings, sort_keys=True).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> ProbeFit:
        """Reads what `to_bytes` gave; the result answers and explains unseen rows.

        Raises:
            `ValueError`: when another version of the probe wrote it.
        """
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = dict(archive)
        settings = json.loads(arrays.pop("settings").tobytes())
        if settings["version"] != _VERSION:
            raise ValueError(f"the fit is of probe version {settings['version']}, this is {_VERSION}; fit again")
        parts: dict[str, dict[str, NDArray[Any]]] = {"choices": {}, "votes": {}}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = array
        return cls(
            probe=TextBiasProbe(num_folds=settings["num_folds"], seed=settings["seed"]),
            choices=[ChoiceModel.from_arrays(parts["choices"]) if parts["choices"] else None],
            found=None,
            label_invariance=settings["label_invariance"],
            folds=np.zeros(0, np.int64),
            votes=VoteModel.from_arrays(parts["votes"], settings["answers"]) if parts["votes"] else None,
        )

    @cached_property
    def _model(self) -> ProbeModel:
        """The one that was trained on all labelled rows."""
        return self._make_model(None, with_votes=True)

    def _make_model(self, fold: int | None, *, with_votes: bool) -> ProbeModel:
        """The one that was trained on all folds but one, or on all."""
        votes = self._votes
        if self._rows is not None and with_votes:
            votes = self._rows.fit_votes(self._rows.labels, self._folds, fold)
        return ProbeModel(self._choices[-1 if fold is None else fold], votes)


def _measure_invariance(rows: ProbeRows, folds: Ints, found: CrossAnswers, seed: int) -> float | None:
    """Answers one fold again with its gold answers exchanged, by everything that goes from labels to answers."""
    labelled = rows.list_labelled()
    if not len(labelled):
        return None
    fold = int(folds[labelled[0]])
    again, _ = rows.cross_fit(rows.exchange_labels(folds, fold, seed), folds, [fold])
    return float(found.find_same(again, labelled[folds[labelled] == fold]).mean())
