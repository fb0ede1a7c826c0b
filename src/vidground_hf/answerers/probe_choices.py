"""The probe's multiple-choice half: which clues went with gold options in the training folds, and a model on top.

Gold answers come in as positions beside the features, fold by fold; open-ended questions are for `probe_votes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from vidground_hf.answerers.conditional_logit import find_log_probabilities, fit_conditional_logit
from vidground_hf.answerers.probe_features import (
    MEASURES,
    TextCounts,
    center_within,
    make_cuts,
    measure_choices,
)
from vidground_hf.answerers.probe_text import FAMILIES, NUM_BUCKETS, Ints, PromptBatch
from vidground_hf.prompts import Prompt

Floats = NDArray[np.float64]
_PRIOR_COUNT = 2.0  # occurrences that a clue is worth beforehand; chosen on the tuning sets
_L2 = 30.0  # chosen on the tuning sets and on samples of 60 to 400 rows of them; 1 to 100 did about as well
_ROWS_PER_BATCH = 2048
_MIN_COUNT = 2  # a clue that one option alone has tells nothing about another


class Family(NamedTuple):
    """The clues of one family over a set: `matrix` (`float32[C, F]`) of occurrences, the bucket of each of its F
    columns, and how many clues each choice has."""

    matrix: sp.csr_array
    buckets: NDArray[np.int32]
    sizes: NDArray[np.float32]


class ChoiceModel:
    """Scores the options of unseen multiple-choice prompts.

    Attributes:
        counts (`TextCounts`): of the set it was fitted on.
        clues (`Mapping[str, tuple[int32[F], float32[F]]]`): for each family the buckets, sorted, and what each is
            worth: the log-odds of being gold beside what the number of options gives.
        coefficients (`float64[D]`): of the measures, then the mean and then the sum of each family.
    """

    def __init__(
        self,
        counts: TextCounts,
        clues: Mapping[str, tuple[NDArray[np.int32], NDArray[np.float32]]],
        coefficients: Floats,
    ) -> None:
        self.counts = counts
        self.clues = clues
        self.coefficients = coefficients

    def score(self, batch: PromptBatch) -> Floats:
        """Log-probability of every choice (`float64[C]`) within its question."""
        sums, sizes = [], []
        for family in FAMILIES:
            clues, buckets = batch.find_clues(family)
            choice = np.repeat(np.arange(len(batch.rows)), clues.counts)
            sums.append(np.bincount(choice, self._look_up(family, buckets), minlength=len(batch.rows)))
            sizes.append(np.maximum(clues.counts, 1))
        measures = measure_choices(batch, self.counts, None)
        features = _join_features(measures, np.column_stack(sums), np.column_stack(sizes), batch.starts)
        return find_log_probabilities(features.astype(np.float64) @ self.coefficients, batch.starts)

    def explain(self, prompt: Prompt, position: int) -> list[tuple[str, float]]:
        """What speaks for an option against the average option of its question, as names and log-odds.

        Their sum is the option's score less the average score. Sorted from what speaks for it to what against; what
        speaks against others, and so for this one, is named after them.
        """
        batch = PromptBatch([prompt])
        chosen = int(np.flatnonzero(batch.positions == batch.classes[0][position])[0])
        share = np.full(len(batch.rows), -1 / len(batch.rows))
        share[chosen] += 1
        totals: dict[str, float] = {}
        measured = measure_choices(batch, self.counts, None)[chosen] * self.coefficients[: len(MEASURES)]
        for name, part in zip(MEASURES, measured, strict=True):
            totals[name] = totals.get(name, 0.0) + float(part)
        for index, family in enumerate(FAMILIES):
            clues, buckets = batch.find_clues(family)
            choice = np.repeat(np.arange(len(batch.rows)), clues.counts)
            of_mean, of_sum = self.coefficients[len(MEASURES) + index :: len(FAMILIES)]
            worth = self._look_up(family, buckets) * (of_mean / np.maximum(clues.counts, 1)[choice] + of_sum)
            names = batch.name_clues(family, clues)
            own = {name for name, is_own in zip(names, choice == chosen, strict=True) if is_own}
            for name, part in zip(names, worth * share[choice], strict=True):
                name = name if name in own else f"another option: {name}"
                totals[name] = totals.get(name, 0.0) + float(part)
        return sorted(totals.items(), key=lambda item: (-item[1], item[0]))

    def _look_up(self, family: str, buckets: NDArray[np.int32]) -> Floats:
        known, worth = self.clues[family]
        if not len(known):
            return np.zeros(len(buckets))
        index = np.minimum(np.searchsorted(known, buckets), len(known) - 1)
        return np.where(known[index] == buckets, worth[index], 0.0).astype(np.float64)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` needs, as plain arrays."""
        used = np.flatnonzero(self.counts.table)
        arrays: dict[str, NDArray[Any]] = {
            "coefficients": self.coefficients,
            "num_choices": np.array(self.counts.num_choices, np.int64),
            "counted": used.astype(np.int32),
            "counts": self.counts.table[used],
        }
        for family, (buckets, worth) in self.clues.items():
            arrays[f"buckets_{family}"], arrays[f"worth_{family}"] = buckets, worth
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ChoiceModel:
        counts = TextCounts()
        counts.table[arrays["counted"]] = arrays["counts"]
        counts.num_choices = int(arrays["num_choices"])
        clues = {family: (arrays[f"buckets_{family}"], arrays[f"worth_{family}"]) for family in FAMILIES}
        return cls(counts, clues, arrays["coefficients"])


class ChoiceRows:
    """The multiple-choice rows of a set, read once; fitted as often as there are folds and refits.

    Args:
        prompts (`Sequence[Prompt]`): R prompts with at least one option each.
        groups (`int64[R]`): rows of one group are never counted for one another.

    Attributes:
        order (`int64[R]`): rows are held sorted by group: the k-th held is `prompts[order[k]]`.
        starts (`int64[R + 1]`), positions (`int64[C]`), classes (`list`): as in `PromptBatch`, of the rows as held.
    """

    def __init__(self, prompts: Sequence[Prompt], groups: Ints) -> None:
        self.order = np.argsort(groups, kind="stable")
        held = [prompts[index] for index in self.order]
        sorted_groups = groups[self.order]
        cuts = make_cuts(sorted_groups, _ROWS_PER_BATCH)
        batches = [PromptBatch(held[first:last]) for first, last in pairwise(cuts)]
        self.counts = TextCounts()
        for batch in batches:
            self.counts.add(batch)
        self.measures = np.concatenate(
            [
                measure_choices(batch, self.counts, sorted_groups[first:last])
                for batch, (first, last) in zip(batches, pairwise(cuts), strict=True)
            ]
        )
        self.classes = [classes for batch in batches for classes in batch.classes]
        self.positions = np.concatenate([batch.positions for batch in batches])
        sizes = np.concatenate([np.diff(batch.starts) for batch in batches])
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.rows = np.repeat(np.arange(len(sizes)), sizes)
        self.families = {family: _collect_clues(batches, family) for family in FAMILIES}

    def find_gold(self, gold: Ints) -> Ints:
        """From the gold option of each prompt (-1: none) to the gold choice of each row as held (-1: do not train)."""
        found = np.full(len(self.order), -1, np.int64)
        for k, index in enumerate(self.order):
            if gold[index] >= 0 and self.starts[k + 1] - self.starts[k] > 1:
                first, last = self.starts[k], self.starts[k + 1]
                found[k] = first + np.searchsorted(self.positions[first:last], self.classes[k][gold[index]])
        return found


class ChoiceTally:
    """How often each clue was gold, and how often chance would have had it gold, fold by fold.

    Args:
        rows (`ChoiceRows`): C choices.
        gold (`int64[R]`): the gold choice of each row as held; -1 leaves the row out.
        folds (`int64[R]`): the fold of each row as held; -1 leaves the row out.
    """

    def __init__(self, rows: ChoiceRows, gold: Ints, folds: Ints) -> None:
        self.rows, self.gold, self.folds = rows, gold, folds
        self.num_folds = num_folds = int(folds.max()) + 1
        trained = np.flatnonzero((gold >= 0) & (folds >= 0))
        won = np.zeros((len(rows.rows), num_folds), np.float32)
        won[gold[trained], folds[trained]] = 1
        expected = np.zeros_like(won)
        is_trained = np.zeros(len(gold), bool)
        is_trained[trained] = True
        chosen = np.flatnonzero(is_trained[rows.rows])
        expected[chosen, folds[rows.rows[chosen]]] = 1 / np.diff(rows.starts)[rows.rows[chosen]]
        self.trained = is_trained
        self.won = {name: family.matrix.T @ won for name, family in rows.families.items()}
        self.expected = {name: family.matrix.T @ expected for name, family in rows.families.items()}

    def weigh_clues(self, family: str, without: Sequence[int]) -> NDArray[np.float32]:
        """What each clue of a family is worth (`float32[F]`), counted in all folds but those of `without`."""
        kept = [fold for fold in range(self.num_folds) if fold not in without]
        won, expected = self.won[family][:, kept].sum(axis=1), self.expected[family][:, kept].sum(axis=1)
        return np.log((won + np.float32(_PRIOR_COUNT)) / (expected + np.float32(_PRIOR_COUNT)))

    def can_fit(self, held_out: int | None) -> bool:
        """Whether there is a row to train on outside a fold."""
        return bool((self.trained & (self.folds != held_out)).any())

    def fit(self, held_out: int | None) -> tuple[ChoiceModel, Floats]:
        """Fits on all folds but one, or on all.

        Returns:
            `tuple[ChoiceModel, float64[C]]`: the model, and the log-probability of every choice of the held-out fold;
            those of other folds are nan.
        """
        rows = self.rows
        fold_of_choice = self.folds[rows.rows]
        sums = np.zeros((len(rows.rows), len(FAMILIES)), np.float32)
        for own in range(self.num_folds):
            chosen = np.flatnonzero(fold_of_choice == own)
            without = {own} if held_out is None else {own, held_out}
            for column, (name, family) in enumerate(rows.families.items()):
                sums[chosen, column] = family.matrix[chosen] @ self.weigh_clues(name, sorted(without))
        sizes = np.column_stack([family.sizes for family in rows.families.values()])
        features = _join_features(rows.measures, sums, sizes, rows.starts)
        is_training = self.trained & (self.folds != held_out)
        training = np.flatnonzero(is_training[rows.rows])
        block = features[training]
        spread = block.std(axis=0, dtype=np.float64)
        scale = np.where(spread > 0, spread, 1.0)
        kept = np.flatnonzero(is_training)
        starts = np.concatenate([[0], np.cumsum(np.diff(rows.starts)[kept])])
        gold = self.gold[kept] - rows.starts[kept] + starts[:-1]
        weights = fit_conditional_logit((block / scale).astype(np.float32), starts, gold, l2=_L2)
        coefficients = weights / scale
        left_out = [] if held_out is None else [held_out]
        clues = {name: (family.buckets, self.weigh_clues(name, left_out)) for name, family in rows.families.items()}
        scores = np.full(len(rows.rows), np.nan)
        held = np.flatnonzero(fold_of_choice == (self.num_folds if held_out is None else held_out))
        held_starts = np.concatenate([[0], np.cumsum(np.diff(rows.starts)[self.folds == held_out])])
        scores[held] = find_log_probabilities(features[held].astype(np.float64) @ coefficients, held_starts)
        return ChoiceModel(rows.counts, clues, coefficients), scores


def _collect_clues(batches: Sequence[PromptBatch], name: str) -> Family:
    total = np.zeros(NUM_BUCKETS, np.int64)
    sizes, pending = [], []
    for batch in batches:
        clues, buckets = batch.find_clues(name)
        total += np.bincount(buckets, minlength=NUM_BUCKETS)
        sizes.append(clues.counts)
        pending.append(buckets)
    kept = np.flatnonzero(total >= _MIN_COUNT)
    column_of = np.full(NUM_BUCKETS, -1, np.int32)
    column_of[kept] = np.arange(len(kept), dtype=np.int32)
    columns, counts = [], []
    for size in sizes:  # one batch at a time, so that a large set is never held twice
        found = column_of[pending.pop(0)]
        is_kept = found >= 0
        columns.append(found[is_kept])
        counts.append(np.bincount(np.repeat(np.arange(len(size)), size)[is_kept], minlength=len(size)))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    starts = starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)  # scipy widens the columns to match
    column = np.concatenate(columns)
    shape = (len(starts) - 1, len(kept))
    matrix = sp.csr_array((np.ones(len(column), np.float32), column, starts), shape=shape)
    return Family(matrix, kept.astype(np.int32), np.maximum(np.concatenate(sizes), 1).astype(np.float32))


def _join_features(
    measures: NDArray[np.float32], sums: NDArray[Any], sizes: NDArray[Any], starts: Ints
) -> NDArray[np.float32]:
    evidence = center_within(np.hstack([sums / sizes, sums]).astype(np.float64), starts)
    return np.hstack([measures, evidence.astype(np.float32)])
