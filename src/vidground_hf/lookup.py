"""What a frozen filter knows about rows: the verdicts of its fit, and how to judge a row that was not in it.

Datasets and fingerprints are `filtering.py`'s.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from vidground_hf.adapters import Adapter
from vidground_hf.answerers.base import ModelAnswerer
from vidground_hf.answerers.probe import ProbeFit
from vidground_hf.asking import Asking, ask_rows
from vidground_hf.deciding import judge_rows
from vidground_hf.judging import check_answers, list_row
from vidground_hf.rows import build_columns, hash_rows, iterate_rows
from vidground_hf.schema import Example, Verdict
from vidground_hf.shortcut_kinds import ask_kinds
from vidground_hf.trials import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What is at hand to judge rows; made when the first row comes, never pickled.

    Attributes:
        adapter (`Adapter`): how rows are read.
        asking (`Asking`): for rows that are new; its rule is the fitted one, its answerer may be a fitted probe.
        has_kinds (`bool`): whether models are asked why they could answer.
        raises (`bool`): whether an answer that failed is an exception.
        rows (`pa.Table`): the added columns of the rows of the fit.
        positions (`dict[bytes, int]`): the place in `rows` by row key.
    """

    adapter: Adapter
    asking: Asking
    has_kinds: bool
    raises: bool
    rows: pa.Table
    positions: dict[bytes, int]

    def find_columns(self, cells: Sequence[Sequence[object]]) -> pa.Table:
        """Finds the added columns of some rows: as the fit left them, or judged now.

        Args:
            cells (`Sequence[Sequence]`): C columns that the adapter reads, of N values each.

        Returns:
            `pa.Table`: N rows.

        Raises:
            `AnswerError`: when questions got no answer and `raises` is set.
        """
        positions = np.array([self.positions.get(key, -1) for key in hash_rows(cells)], dtype=np.int64)
        is_seen = positions >= 0
        known = self.rows.take(positions[is_seen])
        if is_seen.all():
            return known
        rows = iterate_rows(self.adapter.columns, cells)
        examples = [self.adapter.convert(row) for row, seen in zip(rows, is_seen, strict=True) if not seen]
        if len(positions) == 1:
            self._warn_of_single_rows()
        fresh = self._judge(examples)
        # The new rows stand behind the known ones; one `take` puts all of them into the order of the batch.
        order = np.empty(len(positions), dtype=np.int64)
        order[is_seen] = np.arange(known.num_rows)
        order[~is_seen] = known.num_rows + np.arange(fresh.num_rows)
        return pa.concat_tables([known, fresh]).combine_chunks().take(order)

    def _warn_of_single_rows(self) -> None:
        models = [answerer.id for answerer in self.asking.answerers if isinstance(answerer, ModelAnswerer)]
        if models:
            warnings.warn(f"{models[0]} is asked one question at a time; pass batched=True to map", stacklevel=2)

    def _judge(self, examples: Sequence[Example]) -> pa.Table:
        asked = ask_rows(self.asking, examples)
        if self.raises and not isinstance(self.asking.answerers[0], ProbeFit):
            check_answers(asked.trials)
        verdicts = judge_rows(examples, asked.trials, self.asking.rule)
        kinds = None
        if self.has_kinds:
            kinds = explain_drops(self.asking, examples, asked.trials, verdicts, raises=self.raises)
        return list_columns(asked.trials, verdicts, kinds)


def explain_drops(
    asking: Asking,
    examples: Sequence[Example],
    rows: Sequence[Sequence[Trial]],
    verdicts: Sequence[Verdict],
    *,
    raises: bool,
    progress: bool = False,
) -> list[str | None]:
    """Asks the first model about every dropped row that it answered right why it could; `None` for the other rows."""
    dropped = [
        index
        for index, verdict in enumerate(verdicts)
        if verdict.is_visually_grounded is False and rows[index][0].is_right
    ]
    if not dropped:
        return [None] * len(examples)
    found = ask_kinds(
        asking.answerers[0],
        [examples[index] for index in dropped],
        [rows[index][0] for index in dropped],
        seed=asking.seed,
        raises=raises,
        progress=progress,
    )
    kinds: list[str | None] = [None] * len(examples)
    for index, kind in zip(dropped, found, strict=True):
        kinds[index] = kind
    return kinds


def list_columns(
    rows: Sequence[Sequence[Trial]], verdicts: Sequence[Verdict], kinds: Sequence[str | None] | None
) -> pa.Table:
    """The added columns of some rows, with `shortcut_kind` where kinds are given."""
    added = [list_row(*row) for row in zip(rows, verdicts, strict=True)]
    if kinds is not None:
        added = [{**row, "shortcut_kind": kind} for row, kind in zip(added, kinds, strict=True)]
    return build_columns(added, has_kinds=kinds is not None)
