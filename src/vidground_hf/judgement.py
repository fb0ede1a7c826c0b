"""A judged set: what a reduce over its trials found, as columns, and the trials and rows themselves when asked for.

Trials come from `shard_asking.py`; figures are counted from this in `report.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidground_hf.answerers.probe import ProbeFit
from vidground_hf.deciding import RowRule, judge_fitted_rows, make_rescore
from vidground_hf.facts import Facts, Names
from vidground_hf.lookup import list_columns
from vidground_hf.reading import RowSource
from vidground_hf.schema import Verdict
from vidground_hf.set_rules import Calibrated, DropFraction
from vidground_hf.shards import ShardFolder, WorkFolder, count_shards, find_bounds, find_shard
from vidground_hf.stats.gap import RIGHT_SCORE
from vidground_hf.trial_tables import unpack_trials
from vidground_hf.trials import Trial, find_defect

Floats = NDArray[np.float64]
Kinds = Callable[[tuple[int, int], Sequence[Sequence[Trial]], Sequence[Verdict]], list[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstTrials:
    """The first trials of N rows as columns; nan stands for `None`.

    Attributes:
        score, confidence, bias_score (`float64[N]`), num_options, num_gold (`int32[N]`): as in `Trial`.
        num_trials (`int32[N]`): of the whole row.
        is_whole (`bool[N]`): whether no trial of the row failed or could not be scored.
        states_confidence (`bool[N]`): whether the answerer stated a confidence of its own.
        has_choice (`bool[N]`): whether an option was chosen.
        errors (`Names`): of the first trial.
        by_answerer (`float64[A, N]`): the score of the first answer of each answerer.
    """

    score: Floats
    confidence: Floats
    bias_score: Floats
    num_options: NDArray[np.int32]
    num_gold: NDArray[np.int32]
    num_trials: NDArray[np.int32]
    is_whole: NDArray[np.bool_]
    states_confidence: NDArray[np.bool_]
    has_choice: NDArray[np.bool_]
    errors: Names
    by_answerer: Floats

    @property
    def is_right(self) -> NDArray[np.bool_]:
        """Whether the score is at least `RIGHT_SCORE`; `False` without a score."""
        return self.score >= RIGHT_SCORE

    @property
    def has_decoys(self) -> NDArray[np.bool_]:
        """See `Trial.has_decoys`."""
        return (self.num_gold > 0) & (self.num_gold < self.num_options)

    @property
    def decoy_weight(self) -> Floats:
        """How many lucky right answers a wrong one stands for; inf or nan without decoys."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.num_gold / (self.num_options - self.num_gold))


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """All that a fit found out, in the order of the dataset.

    Attributes:
        source (`RowSource`): the rows.
        facts (`Facts`): what is known of them without an answer.
        folder (`ShardFolder`): their trials.
        work (`WorkFolder`): where that lies, and what else the judgement keeps on the disk.
        firsts (`FirstTrials`): the first trial of each row. It is the row's candidate and carries what all of its
            trials say together; out of fold where the answerer was trained on the set.
        calls (`dict[str, int]`): see `asking.Asked`.
        rule (`Callable`): fitted.
        probe (`ProbeFit`, *optional*): the trained probe, where the answerer is one.
        columns (`pa.Table`): the added columns of the rows; lies on the disk.
        grounded (`int8[N]`): 1 for visually grounded, 0 for text-answerable, -1 for undecided.
        reasons (`Names`): of the verdicts.
    """

    source: RowSource
    facts: Facts
    folder: ShardFolder
    work: WorkFolder
    firsts: FirstTrials
    followed_share: float
    calls: dict[str, int]
    rule: RowRule
    probe: ProbeFit | None
    columns: pa.Table
    grounded: NDArray[np.int8]
    reasons: Names

    def iterate_trials(self) -> Iterator[tuple[int, list[list[Trial]]]]:
        """Each shard's trials, with the place of its first row."""
        for shard in range(count_shards(len(self.source))):
            yield find_bounds(shard, len(self.source))[0], read_trials(self.folder, shard, self.followed_share)

    def read_firsts(self, indices: Sequence[int]) -> dict[int, Trial]:
        """The first trials of a few rows, by their places."""
        found: dict[int, Trial] = {}
        for shard in sorted({find_shard(index) for index in indices}):
            rows = read_trials(self.folder, shard, self.followed_share)
            start, stop = find_bounds(shard, len(self.source))
            found.update({index: rows[index - start][0] for index in indices if start <= index < stop})
        return found

    @cached_property
    def rows(self) -> list[list[Trial]]:
        """The trials of every row at once; for small sets."""
        return [trials for _, rows in self.iterate_trials() for trials in rows]


def read_trials(folder: ShardFolder, shard: int, followed_share: float) -> list[list[Trial]]:
    """The trials of a shard; a row that was not followed up has no confidence where others of its kind were."""
    table = folder.read(shard)
    rows = unpack_trials(table)
    if followed_share == 1.0:
        return rows
    states = table["states_confidence"].to_pylist()
    return [
        [replace(row[0], confidence=None)] if len(row) == 1 and not own else row
        for row, own in zip(rows, states, strict=True)
    ]


def collect_firsts(folder: ShardFolder, num_rows: int, num_answerers: int) -> FirstTrials:
    """Reads every shard once and keeps the first trials as columns."""
    score, confidence, bias_score = np.full((3, num_rows), np.nan)
    num_options, num_gold, num_trials = np.zeros((3, num_rows), np.int32)
    is_whole, states, has_choice = np.zeros((3, num_rows), bool)
    errors, codes = np.full(num_rows, -1, np.int32), dict[str, int]()
    by_answerer = np.full((num_answerers, num_rows), np.nan)
    for shard in range(count_shards(num_rows)):
        start, stop = find_bounds(shard, num_rows)
        table = folder.read(shard)
        states[start:stop] = table["states_confidence"].to_numpy()
        for index, row in enumerate(unpack_trials(table), start):
            first = row[0]
            num_options[index], num_gold[index], num_trials[index] = first.num_options, first.num_gold, len(row)
            is_whole[index], has_choice[index] = find_defect(row) is None, first.choice is not None
            if first.error is not None:
                errors[index] = codes.setdefault(first.error, len(codes))
            for trial in reversed(row):
                by_answerer[trial.answerer, index] = np.nan if trial.score is None else trial.score
            score[index] = np.nan if first.score is None else first.score
            bias_score[index] = np.nan if first.bias_score is None else first.bias_score
            confidence[index] = np.nan if first.confidence is None else first.confidence
    return FirstTrials(
        score=score, confidence=confidence, bias_score=bias_score, num_options=num_options, num_gold=num_gold,
        num_trials=num_trials, is_whole=is_whole, states_confidence=states, has_choice=has_choice,
        errors=Names(errors, list(codes)), by_answerer=by_answerer,
    )  # fmt: skip


def settle_confidence(firsts: FirstTrials, followed_share: float) -> tuple[FirstTrials, float]:
    """Finds the share of the wrong rows that have a say, and takes the confidence from rows that have none.

    Where every answer comes with a confidence of its own, all of them have, though none was asked for again.
    """
    if firsts.has_choice.any() and firsts.states_confidence[firsts.has_choice].all():
        return firsts, 1.0
    if followed_share < 1.0:
        has_none = (firsts.num_trials == 1) & ~firsts.states_confidence
        firsts.confidence[has_none] = np.nan
    return firsts, followed_share


def fit_columns(
    rule: RowRule, firsts: FirstTrials, facts: Facts, *, probe: ProbeFit | None, followed_share: float
) -> RowRule:
    """Fits a rule that looks at the whole set; gives back any other as it is. Of equal rows only the first has a say.

    Raises:
        `ValueError`: for `drop_fraction` without a probe.
    """
    if isinstance(rule, Calibrated):
        judged = facts.is_first & firsts.is_whole & firsts.has_decoys & ~np.isnan(firsts.confidence)
        return rule.fit_candidates(
            firsts.is_right[judged], firsts.confidence[judged], firsts.decoy_weight[judged],
            clusters=facts.clusters[judged], num_left_out=int(facts.is_first.sum() - judged.sum()),
            followed_share=followed_share,
        )  # fmt: skip
    if not isinstance(rule, DropFraction):
        return rule
    if probe is None:
        raise ValueError(f"{rule} refits the probe on what is left; it goes with the probe alone")
    with np.errstate(divide="ignore", invalid="ignore"):
        chance = np.where(firsts.num_options > 0, firsts.num_gold / firsts.num_options, 0.0)
    scores = np.where(firsts.is_whole, firsts.bias_score, np.nan)
    return rule.fit_scores(scores, chance, make_rescore(probe, ~np.isnan(firsts.bias_score)))


def decide(
    folder: ShardFolder,
    facts: Facts,
    rule: RowRule,
    *,
    followed_share: float,
    kinds: Kinds | None,
    path: Path,
) -> tuple[pa.Table, NDArray[np.int8], Names]:
    """Applies a fitted rule shard by shard, and writes the added columns.

    Args:
        folder (`ShardFolder`): the trials.
        facts (`Facts`): of the rows.
        rule (`Callable`): fitted on them.
        followed_share (`float`): see `settle_confidence`.
        kinds (`Callable`, *optional*): from the first row of a shard and the one behind its last, its trials and its
            verdicts to the shortcut kind of each row.
        path (`Path`): the Arrow file to write.

    Returns:
        `tuple[pa.Table, int8[N], Names]`: the added columns, memory-mapped, the verdicts and their reasons.
    """
    num_rows = len(facts.clusters)
    grounded = np.empty(num_rows, np.int8)
    reasons, codes = np.empty(num_rows, np.int32), dict[str, int]()
    values = {True: 1, False: 0, None: -1}
    writer: pa.RecordBatchStreamWriter | None = None
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not in place: an earlier judgement may still have the file mapped.
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for shard in range(count_shards(num_rows)):
            start, stop = find_bounds(shard, num_rows)
            rows = read_trials(folder, shard, followed_share)
            defects = [facts.defects.get(index) for index in range(start, stop)]
            verdicts = judge_fitted_rows(defects, rows, rule, first=start)
            grounded[start:stop] = [values[verdict.is_visually_grounded] for verdict in verdicts]
            reasons[start:stop] = [codes.setdefault(verdict.reason, len(codes)) for verdict in verdicts]
            added = list_columns(rows, verdicts, None if kinds is None else kinds((start, stop), rows, verdicts))
            if writer is None:
                writer = pa.ipc.new_stream(file, added.schema)
            writer.write_table(added.combine_chunks())
        if writer is not None:
            writer.close()
    os.replace(partial, path)
    columns = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
    return columns, grounded, Names(reasons, list(codes))
