"""Counts, accuracies and floors of a judged set, whole and by group."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.facts import Names
from vidground_hf.judgement import Judgement
from vidground_hf.stats.floors import measure_floors
from vidground_hf.stats.intervals import bootstrap_mean


class Tally:
    """Counts the rows of a judgement, whole or in part, from scores taken once.

    Args:
        judgement (`Judgement`): the set, judged.
        seed (`int`): of the intervals.
    """

    def __init__(self, judgement: Judgement, seed: int) -> None:
        self.seed = seed
        self.facts = judgement.facts
        self.scores = judgement.firsts.score
        self.is_kept, self.is_dropped = judgement.grounded == 1, judgement.grounded == 0

    def count(self, part: NDArray[np.int64]) -> dict[str, Any]:
        """Counts some rows, by their places; chance and floors are over the scored ones, as the accuracy is."""
        num_rows, num_kept, num_dropped = len(part), int(self.is_kept[part].sum()), int(self.is_dropped[part].sum())
        is_unscored = np.isnan(self.scores[part])
        floors = measure_floors(self.facts.floors, part[~is_unscored])
        positions = list(floors.gold_positions.values())
        width = max((len(counts) for counts in positions), default=0)
        accuracy = bootstrap_mean(self.scores[part], clusters=self.facts.clusters[part], seed=self.seed)
        return {
            "num_rows": num_rows,
            "num_grounded": num_kept,
            "num_text_answerable": num_dropped,
            "num_undecided": num_rows - num_kept - num_dropped,
            "num_unscored": int(is_unscored.sum()),
            "share_grounded": num_kept / num_rows if num_rows else None,
            "blind_accuracy": accuracy._asdict(),
            "chance": floors.chance.value,
            "floors": {
                "constant_option": floors.constant_option.value,
                "longest_option": floors.longest_option.value,
                "shortest_option": floors.shortest_option.value,
            },
            "duplicate_option_share": floors.duplicate_options.value,
            "gold_positions": [sum(c[k] for c in positions if k < len(c)) for k in range(width)],
        }

    def count_groups(self, names: Names) -> dict[str, dict[str, Any]]:
        """Counts the rows of each name; rows without one are in no group."""
        order = np.argsort(names.codes, kind="stable")
        bounds = np.searchsorted(names.codes[order], np.arange(len(names.names) + 1))
        codes = {name: code for code, name in enumerate(names.names) if name}
        return {name: self.count(order[bounds[codes[name]] : bounds[codes[name] + 1]]) for name in sorted(codes)}
