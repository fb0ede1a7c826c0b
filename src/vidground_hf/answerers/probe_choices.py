"""The probe's multiple-choice half: which clues went with gold options in the training folds, and a model on top.

Gold answers come in as positions beside the features, fold by fold; open-ended questions are for `probe_votes.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.conditional_logit import find_log_probabilities, fit_conditional_logit
from vidground_hf.answerers.probe_features import (
    MEASURES,
    TextCounts,
    center_within,
    make_cuts,
    measure_choices,
)
from vidground_hf.answerers.probe_scratch import ScratchArray, take
from vidground_hf.answerers.probe_text import FAMILIES, NUM_BUCKETS, Ints, PromptBatch
from vidground_hf.prompts import Prompt

Floats = NDArray[np.float64]
_PRIOR_COUNT = 2.0  # occurrences that a clue is worth beforehand; chosen on the tuning sets
_L2 = 30.0  # chosen on the tuning sets and on samples of 60 to 400 rows of them; 1 to 100 did about as well
_ROWS_PER_BATCH = 2048
_MIN_COUNT = 2  # a clue that one option alone has tells nothing about another
_NUM_PARTS = 256
_BUCKETS_PER_PART = NUM_BUCKETS // _NUM_PARTS
_ENTRIES_AT_ONCE = 1 << 17  # our guess: some megabytes of counts
_MAX_PARTS_AT_ONCE = 32


Clues = tuple[NDArray[np.int32], NDArray[np.float32]]


class ChoiceModel:
    """Scores the options of unseen multiple-choice prompts.

    Attributes:
        counts (`TextCounts`): of the set it was fitted on.
        clues (`Mapping[str, tuple[int32[F], float32[F]]]`): for each family the buckets, sorted, and what each is
            worth: the log-odds of being gold beside what the number of options gives.
        coefficients (`float64[D]`): of the measures, then the mean and then the sum of each family.
    """

    def __init__(self, counts: TextCounts, clues: Mapping[str, Clues], coefficients: Floats) -> None:
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
        for family in FAMILIES:
            buckets, worth = self.clues[family]
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
    """The multiple-choice rows of a set, read twice and kept as numbers, for any number of fits.

    Args:
        prompts (`Sequence[Prompt]`): R prompts with at least one option each.
        groups (`int64[R]`): rows of one group are never counted for one another.

    Attributes:
        order (`int64[R]`): rows are held sorted by group: the k-th held is `prompts[order[k]]`.
        cuts (`list[int]`): where the held rows are cut into batches.
        starts (`int64[R + 1]`): where the choices of each held row start, and C; see `PromptBatch`.
        rows (`int32[C]`): the held row of each choice.
        num_options (`int64[R]`): options of each held row, equal ones counted.
        measures (`ScratchArray`): `float32[C, len(MEASURES)]`.
        sizes (`ScratchArray`): `float32[C, len(FAMILIES)]`, how many clues of each family a choice has.
        clues (`dict[str, ClueRows]`): of each family.
    """

    def __init__(self, prompts: Sequence[Prompt], groups: Ints) -> None:
        self.order = np.argsort(groups, kind="stable")
        sorted_groups = groups[self.order]
        self.cuts = make_cuts(sorted_groups, _ROWS_PER_BATCH)
        self.counts = TextCounts()
        for first, last in pairwise(self.cuts):
            self.counts.add(PromptBatch(take(prompts, self.order[first:last])))
        self.measures = ScratchArray(np.float32, len(MEASURES))
        self.sizes = ScratchArray(np.float32, len(FAMILIES))
        self.clues = {family: ClueRows() for family in FAMILIES}
        num_choices, num_options, choice_of_option = [], [], []
        for first, last in pairwise(self.cuts):
            batch = PromptBatch(take(prompts, self.order[first:last]))
            self.measures.append(measure_choices(batch, self.counts, sorted_groups[first:last]))
            self.sizes.append(np.column_stack([self.clues[family].add(batch, family) for family in FAMILIES]))
            num_choices.append(np.diff(batch.starts))
            num_options.append([len(classes) for classes in batch.classes])
            choice_of_option.append(_list_choices(batch.classes))
        self.starts = np.concatenate([[0], np.cumsum(np.concatenate(num_choices))])
        self.rows = np.repeat(np.arange(len(groups), dtype=np.int32), np.diff(self.starts))
        self.num_options = np.concatenate(num_options).astype(np.int64)
        self._choice_of_option = np.concatenate(choice_of_option)

    def find_gold(self, gold: Ints) -> Ints:
        """From the gold option of each prompt (-1: none) to the gold choice of each row as held (-1: do not train)."""
        held = gold[self.order]
        found = np.full(len(held), -1, np.int64)
        usable = np.flatnonzero((held >= 0) & (np.diff(self.starts) > 1))
        first_option = np.cumsum(self.num_options) - self.num_options
        found[usable] = self.starts[usable] + self._choice_of_option[first_option[usable] + held[usable]]
        return found

    def iterate_batches(self) -> Iterator[slice]:
        """The choices of each batch, in whole questions."""
        for first, last in pairwise(self.cuts):
            yield slice(int(self.starts[first]), int(self.starts[last]))


def _list_choices(classes: Sequence[Sequence[int]]) -> NDArray[np.int16]:
    """For each option of each question which of its choices it is."""
    places = [{position: k for k, position in enumerate(sorted(set(own)))} for own in classes]
    return np.array([place[one] for own, place in zip(classes, places, strict=True) for one in own], np.int16)


class ClueRows:
    """The clues of one family over a set: which choice has which bucket, batch by batch, each sorted by bucket."""

    def __init__(self) -> None:
        self._entries = ScratchArray(np.int32, 2)
        self._bounds: list[Ints] = []
        self._num_choices = 0
        self._first_choices: list[int] = []

    def add(self, batch: PromptBatch, family: str) -> NDArray[np.float32]:
        """Adds the next batch; returns how many clues each of its choices has, at least 1."""
        clues, buckets = batch.find_clues(family)
        order = np.argsort(buckets, kind="stable")
        choice = np.repeat(np.arange(len(batch.rows)), clues.counts)
        first = len(self._entries)
        self._entries.append(np.column_stack([buckets, choice])[order])
        parts = np.arange(_NUM_PARTS + 1) * _BUCKETS_PER_PART
        self._bounds.append(first + np.searchsorted(buckets[order], parts))
        self._first_choices.append(self._num_choices)
        self._num_choices += len(batch.rows)
        return np.maximum(clues.counts, 1).astype(np.float32)

    def iterate_parts(self) -> Iterator[tuple[NDArray[np.int32], Ints, Ints]]:
        """Yields the clues of some buckets at a time, from the lowest on.

        Those that one option alone has are left out: they tell nothing about another.

        Returns:
            `Iterator[tuple[int32[F], int64[E], int64[E]]]`: the buckets, and for each of the entries its place among
            them and its choice.
        """
        parts_at_once = max(1, min(_MAX_PARTS_AT_ONCE, _NUM_PARTS * _ENTRIES_AT_ONCE // max(len(self._entries), 1)))
        for part in range(0, _NUM_PARTS, parts_at_once):
            last = min(part + parts_at_once, _NUM_PARTS)
            read = [self._entries[int(bounds[part]) : int(bounds[last])] for bounds in self._bounds]
            sizes = [len(entries) for entries in read]
            bucket, choice = np.concatenate(read).T
            low = part * _BUCKETS_PER_PART
            counts = np.bincount(bucket - low, minlength=(last - part) * _BUCKETS_PER_PART)
            known = np.flatnonzero(counts >= _MIN_COUNT)
            place_of = np.full(len(counts), -1, np.int32)
            place_of[known] = np.arange(len(known), dtype=np.int32)
            place = place_of[bucket - low]
            is_known = place >= 0
            choice = choice + np.repeat(self._first_choices, sizes)
            yield (low + known).astype(np.int32), place[is_known].astype(np.int64), choice[is_known]


class ChoiceTally:
    """What the clues of each choice are worth, counted fold by fold.

    Args:
        rows (`ChoiceRows`): C choices.
        gold (`int64[R]`): the gold choice of each row as held; -1 leaves the row out.
        folds (`int64[R]`): the fold of each row as held; -1 leaves the row out.
    """

    def __init__(self, rows: ChoiceRows, gold: Ints, folds: Ints) -> None:
        self.rows, self.gold, self.folds = rows, gold, folds
        self.num_folds = int(folds.max()) + 1
        self.trained = (gold >= 0) & (folds >= 0)
        is_gold = np.zeros(len(rows.rows), bool)
        is_gold[gold[self.trained]] = True
        self._worth = {family: FamilyWorth(self.num_folds) for family in rows.clues}
        self._sums = {family: self._count(self._worth[family], clues, is_gold) for family, clues in rows.clues.items()}

    def _count(self, found: FamilyWorth, clues: ClueRows, is_gold: NDArray[np.bool_]) -> ScratchArray:
        """Counts the clues of a family.

        Returns:
            `ScratchArray`: `float32[C, num_folds]`, what the clues of each choice are worth together, without its own
            fold and without the one of the column.
        """
        num_folds, rows = self.num_folds, self.rows
        share = np.where(self.trained, 1 / np.diff(rows.starts), 0.0)
        sums = np.zeros((num_folds, len(rows.rows)), np.float32)
        for buckets, place, choice in clues.iterate_parts():
            row = rows.rows[choice]
            fold = self.folds[row]
            is_dealt = fold >= 0
            place, choice, row, fold = place[is_dealt], choice[is_dealt], row[is_dealt], fold[is_dealt]
            cell, size = place * num_folds + fold, len(buckets) * num_folds
            won, expected = (
                np.bincount(cell, own, minlength=size).astype(np.float64).reshape(-1, num_folds)
                for own in (is_gold[choice], share[row])
            )
            worth = np.empty((num_folds, num_folds, len(buckets)), np.float32)
            for own in range(num_folds):
                for other in range(own, num_folds):
                    worth[own, other] = worth[other, own] = self.weigh_clues(won, expected, {own, other})
            for held_out in range(num_folds):
                np.add.at(sums[held_out], choice, worth[fold, held_out, place])
            found.buckets.append(buckets[:, None])
            of_fold = [worth[fold, fold] for fold in range(num_folds)]
            found.worth.append(np.column_stack([*of_fold, self.weigh_clues(won, expected, set())]))
        kept = ScratchArray(np.float32, num_folds)
        for batch in rows.iterate_batches():
            kept.append(sums[:, batch].T)
        return kept

    def weigh_clues(self, won: Floats, expected: Floats, without: Collection[int]) -> NDArray[np.float32]:
        """What clues are worth, counted in all folds but those of `without`.

        Args:
            won (`float64[F, num_folds]`): how often each clue was gold.
            expected (`float64[F, num_folds]`): how often chance would have had it gold.
            without (`Collection[int]`): folds.

        Returns:
            `float32[F]`: log-odds.
        """
        kept = [fold for fold in range(self.num_folds) if fold not in without]
        ratio = (won[:, kept].sum(axis=1) + _PRIOR_COUNT) / (expected[:, kept].sum(axis=1) + _PRIOR_COUNT)
        return np.log(ratio).astype(np.float32)

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
        is_training = self.trained & (self.folds != held_out)
        features = self._collect_features(held_out)
        scale = _measure_spread(features, rows, is_training)
        training = ScratchArray(np.float32, features.shape[1])
        for batch in rows.iterate_batches():
            training.append(features[batch][is_training[rows.rows[batch]]] / scale)
        kept = np.flatnonzero(is_training)
        starts = np.concatenate([[0], np.cumsum(np.diff(rows.starts)[kept])])
        gold = self.gold[kept] - rows.starts[kept] + starts[:-1]
        weights = fit_conditional_logit(cast(NDArray[np.float32], training), starts, gold, l2=_L2)
        coefficients = weights / scale
        scores = np.full(len(rows.rows), np.nan)
        for first, last in pairwise(rows.cuts) if held_out is not None else ():
            batch = slice(int(rows.starts[first]), int(rows.starts[last]))
            is_held = self.folds[first:last] == held_out
            chosen = np.flatnonzero(np.repeat(is_held, np.diff(rows.starts[first : last + 1])))
            own_starts = np.concatenate([[0], np.cumsum(np.diff(rows.starts[first : last + 1])[is_held])])
            values = features[batch][chosen].astype(np.float64) @ coefficients
            scores[batch.start + chosen] = find_log_probabilities(values, own_starts)
        column = self.num_folds if held_out is None else held_out
        return ChoiceModel(rows.counts, FittedClues(self._worth, column), coefficients), scores

    def _collect_features(self, held_out: int | None) -> ScratchArray:
        rows = self.rows
        features = ScratchArray(np.float32, len(MEASURES) + 2 * len(FAMILIES))
        for first, last in pairwise(rows.cuts):
            batch = slice(int(rows.starts[first]), int(rows.starts[last]))
            # Each choice is weighed without its own fold, and without the one that is held out.
            own = self.folds[rows.rows[batch]] if held_out is None else np.full(batch.stop - batch.start, held_out)
            parts = [sums[batch][np.arange(len(own)), own] for sums in self._sums.values()]
            starts = rows.starts[first : last + 1] - batch.start
            features.append(_join_features(rows.measures[batch], np.column_stack(parts), rows.sizes[batch], starts))
        return features


class FamilyWorth:
    """What the clues of one family are worth.

    Attributes:
        buckets (`ScratchArray`): `int32[F, 1]`, sorted.
        worth (`ScratchArray`): `float32[F, num_folds + 1]`, without the fold of the column; in the last without none.
    """

    def __init__(self, num_folds: int) -> None:
        self.buckets = ScratchArray(np.int32, 1)
        self.worth = ScratchArray(np.float32, num_folds + 1)


class FittedClues(Mapping[str, Clues]):
    """The clues of one model; they stay on the disk, and what is looked up is read."""

    def __init__(self, worth: Mapping[str, FamilyWorth], column: int) -> None:
        self._worth, self._column = worth, column

    def __getitem__(self, family: str) -> Clues:
        own = self._worth[family]
        return own.buckets.map()[:, 0], own.worth.map()[:, self._column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._worth)

    def __len__(self) -> int:
        return len(self._worth)


def _measure_spread(features: ScratchArray, rows: ChoiceRows, is_training: NDArray[np.bool_]) -> Floats:
    """The standard deviation of each feature over the choices that are trained on; 1 where it is 0."""
    total, squares, number = np.zeros(features.shape[1]), np.zeros(features.shape[1]), 0
    for batch in rows.iterate_batches():
        block = features[batch][is_training[rows.rows[batch]]].astype(np.float64)
        total, number = total + block.sum(axis=0), number + len(block)
    for batch in rows.iterate_batches():
        block = features[batch][is_training[rows.rows[batch]]].astype(np.float64)
        squares += ((block - total / number) ** 2).sum(axis=0)
    spread = np.sqrt(squares / number)
    return np.where(spread > 0, spread, 1.0)


def _join_features(
    measures: NDArray[np.float32], sums: NDArray[Any], sizes: NDArray[Any], starts: Ints
) -> NDArray[np.float32]:
    evidence = center_within(np.hstack([sums / sizes, sums]).astype(np.float64), starts)
    return np.hstack([measures, evidence.astype(np.float32)])
