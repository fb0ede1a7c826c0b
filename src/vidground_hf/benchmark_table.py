"""What a model's answers to a benchmark come to: one row of figures for every showing.

Nothing is asked or written here. The statistics are in `stats/`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer
from vidground_hf.benchmark_asking import Outcome, Showing
from vidground_hf.benchmark_settings import Average, BenchmarkSettings
from vidground_hf.filtering import list_clusters
from vidground_hf.schema import BLIND_VIEWS, Example
from vidground_hf.stats.gap import RIGHT_SCORE, GapSettings, summarize_gap
from vidground_hf.stats.intervals import bootstrap_ratio
from vidground_hf.stats.resampling import Interval

GROUPINGS = ("problem_type", "category", "source")
_COSTS = ("seconds", "num_prompt_tokens", "num_answer_tokens", "num_frames", "num_visual_tokens")
_NOTHING = Interval(None, None, None)

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


def find_blind(showings: Sequence[Showing], *, with_subtitles: bool = False) -> int | None:
    """Which showing the others are compared with: the blind one that shows as much text as they do.

    Example:
        >>> find_blind([Showing("options_only"), Showing("text")])
        1
    """
    order = ("subtitles", "text", "options_only") if with_subtitles else ("text", "options_only", "subtitles")
    views = [showing.view for showing in showings]
    return next((views.index(view) for view in order if view in views), None)


class BenchmarkTable:
    """Figures of a benchmark run, from scores that are taken once.

    Args:
        examples (`Sequence[Example]`): N rows.
        showings (`Sequence[Showing]`): S of them.
        outcomes (`Sequence[Sequence[Outcome]]`): S lists of N.
        settings (`BenchmarkSettings`, *optional*): say what the main figures are the mean over, and of which
            questions; of all when left out.
        verdicts (`Sequence[bool | None]`, *optional*): of each row, whether it is visually grounded; the model's own
            blind answers decide when left out.
        with_subtitles (`bool`): whether views with pixels showed them, too.
        seed (`int`): of intervals.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        showings: Sequence[Showing],
        outcomes: Sequence[Sequence[Outcome]],
        *,
        settings: BenchmarkSettings | None = None,
        verdicts: Sequence[bool | None] | None = None,
        with_subtitles: bool = False,
        seed: int = 0,
    ) -> None:
        self.showings, self.outcomes, self.seed = showings, outcomes, seed
        self.average: Average = "questions" if settings is None else settings.average
        # None becomes nan.
        self.scores = [np.array([one.score for one in row], dtype=np.float64) for row in outcomes]
        self.clusters = list_clusters(examples)
        counts = np.array([example.num_distinct_options for example in examples], dtype=np.float64)
        self.chance = np.divide(1, counts, out=np.zeros(len(counts)), where=counts > 0)
        self.is_averaged = (counts > 0) | (settings is None or not settings.only_choices)
        self.groups = {
            name: np.array([getattr(example, name) or "" for example in examples], dtype=object) for name in GROUPINGS
        }
        self.blind = find_blind(showings, with_subtitles=with_subtitles)
        self.is_own = verdicts is None
        self.is_vg, self.is_ta = self._split(verdicts)

    def _split(self, verdicts: Sequence[bool | None] | None) -> tuple[Mask, Mask]:
        """Which rows are visually grounded and which text-answerable; a row may be neither."""
        if verdicts is not None:
            return np.array([one is True for one in verdicts]), np.array([one is False for one in verdicts])
        if self.blind is None:
            return np.zeros(len(self.chance), dtype=bool), np.zeros(len(self.chance), dtype=bool)
        scores = self.scores[self.blind]
        return scores < RIGHT_SCORE, scores >= RIGHT_SCORE

    def list_rows(self) -> list[dict[str, Any]]:
        """The figures of every showing, as JSON."""
        return [self._measure(number) for number in range(len(self.showings))]

    def _measure(self, number: int) -> dict[str, Any]:
        showing, outcomes, scores = self.showings[number], self.outcomes[number], self.scores[number]
        answers = [one.answer for one in outcomes if one.answer is not None]
        given = [answer for answer in answers if answer.error is None]
        skipped = Counter(one.missing for one in outcomes if one.missing is not None)
        num_skipped, num_failed = sum(skipped.values()), len(answers) - len(given)
        part = self.is_averaged & ~np.isnan(scores)
        decides = self.is_own and number == self.blind  # of the rows that decided, VG and TA say nothing
        decided = self.is_vg | self.is_ta
        return {
            "name": showing.name,
            "view": showing.view,
            "budget": None if showing.budget is None else asdict(showing.budget),
            "num_rows": len(scores),
            "num_skipped": num_skipped,
            "skipped": dict(skipped),
            "num_unanswered": num_failed,
            "num_unscored": int(np.isnan(scores).sum()) - num_skipped - num_failed,
            "num_scored": int((~np.isnan(scores)).sum()),
            "num_averaged": int(part.sum()),
            "num_categories": len(set(self.groups["category"][part]) - {""}),
            "accuracy": self._average(scores, part),
            "vg_accuracy": None if decides or not decided.any() else self._average(scores, part & self.is_vg),
            "ta_accuracy": None if decides or not decided.any() else self._average(scores, part & self.is_ta),
            "num_vg": int((part & self.is_vg).sum()),
            "num_ta": int((part & self.is_ta).sum()),
            "num_without_verdict": int((part & ~decided).sum()),
            "chance": float(np.average(self.chance[part], weights=self._weigh(part)[part])) if part.any() else None,
            **self._compare(number, part),
            "groups": self._list_groups(number),
            "costs": {name: _add_up(given, name) for name in _COSTS},
            "decoders": sorted({answer.decoder for answer in given if answer.decoder is not None}),
        }

    def _average(self, values: Floats, part: Mask, average: Average | None = None) -> dict[str, float | None]:
        """The mean over some rows, with its interval; over categories each of them weighs the same."""
        if not part.any():
            return _NOTHING._asdict()
        weights = self._weigh(part, average)
        interval = bootstrap_ratio(
            (weights * values)[part], weights[part], clusters=self.clusters[part], seed=self.seed
        )
        return interval._asdict()

    def _weigh(self, part: Mask, average: Average | None = None) -> Floats:
        """What each row counts in a mean over some rows."""
        names = self.groups["category"]
        if (average or self.average) == "questions":
            return np.ones(len(names))
        times = Counter(names[part])
        return np.array([1 / times[name] if name in times else 0.0 for name in names])

    def _compare(self, number: int, part: Mask) -> dict[str, Any]:
        """The comparison with the blind answers, on rows that are scored both times."""
        nothing = {"blind_accuracy": None, "gap": None, "p_value": None, "num_paired": None, "paired": None}
        if self.blind is None or self.showings[number].view in BLIND_VIEWS:
            return nothing
        visual, blind = self.scores[number], self.scores[self.blind]
        part = part & ~np.isnan(blind)
        if not part.any():
            return {**nothing, "num_paired": 0}
        _, clusters = np.unique(self.clusters[part], return_inverse=True)
        paired = summarize_gap(
            visual[part], blind[part], self.chance[part], clusters=clusters, settings=GapSettings(seed=self.seed)
        )
        gap = {"value": paired["gap"], "low": paired["gap_low"], "high": paired["gap_high"]}
        return {
            "blind_accuracy": self._average(blind, part),
            "gap": gap if self.average == "questions" else self._average(visual - blind, part),
            "p_value": paired["p_value"],
            "num_paired": int(part.sum()),
            "paired": paired,
        }

    def _list_groups(self, number: int) -> dict[str, dict[str, dict[str, Any]]]:
        scores = self.scores[number]
        blind = None if self.blind is None or self.showings[number].view in BLIND_VIEWS else self.scores[self.blind]
        grouped: dict[str, dict[str, dict[str, Any]]] = {}
        for grouping, column in self.groups.items():
            grouped[grouping] = {}
            for name in sorted(set(column) - {""}):
                part = (column == name) & ~np.isnan(scores)
                both = part if blind is None else part & ~np.isnan(blind)
                grouped[grouping][name] = {
                    "num_rows": int((column == name).sum()),
                    "num_scored": int(part.sum()),
                    "accuracy": self._average(scores, part, "questions"),
                    "vg_accuracy": self._average(scores, part & self.is_vg, "questions"),
                    "num_vg": int((part & self.is_vg).sum()),
                    "blind_accuracy": None if blind is None else self._average(blind, both, "questions"),
                    "gap": None if blind is None else self._average(scores - blind, both, "questions"),
                }
        return grouped


def _add_up(answers: Sequence[Answer], name: str) -> dict[str, float | int | None]:
    """A cost over all answers that state it; of equal questions each counts, though they were asked once."""
    stated = [value for answer in answers if (value := getattr(answer, name)) is not None]
    return {
        "sum": sum(stated) if stated else None,
        "mean": sum(stated) / len(stated) if stated else None,
        "num_without": len(answers) - len(stated),
    }
