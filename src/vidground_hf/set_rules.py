"""Rules that look at a whole set before they can judge a row of it.

The statistics behind them are in `stats.calibration` and `stats.pruning`, the reasons of their verdicts in `rules.py`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidground_hf.rules import judge_bias
from vidground_hf.schema import Verdict
from vidground_hf.stats.calibration import Calibration, calibrate
from vidground_hf.stats.pruning import Pruning, prune_bias
from vidground_hf.trials import Trial, find_defect

FOLLOWED_SHARE = 0.5
"""A model is asked again about every right first answer, and about this share of the wrong ones, each of which then
stands for 1 / `FOLLOWED_SHARE` of them; chosen in `docs/design/calibrated.md`, as is the next number."""

MAX_ROWS_FOLLOWED = 500
"""Up to so many rows, every wrong first answer is followed up: each of them counts for more."""


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Drops as many right answers as it can while the share of lucky ones is expected to stay under `alpha`.

    The wrong answers show how often the answerer is sure of itself without cause: see
    [`~vidground_hf.stats.calibration.calibrate`]. A row's first trial is its candidate answer; other trials only add
    confidence.

    Args:
        alpha (`float`, *optional*, defaults to 0.05): largest share of lucky drops allowed, in (0, 1).

    Raises:
        `ValueError`: for `alpha` out of range.

    Example:
        >>> sure = [[Trial(score=1.0, confidence=2.0, num_options=4)]] * 20
        >>> unsure = [[Trial(score=float(k % 4 == 0), confidence=1.0, num_options=4)] for k in range(20)]
        >>> rule = calibrated(alpha=0.05).fit(sure + unsure)
        >>> rule(sure[0]).reason, rule(unsure[0]).reason, rule(unsure[1]).reason
        ('right_and_sure', 'right_but_unsure', 'wrong_blind')
    """

    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha = {self.alpha} is out of range; calibrated allows (0, 1), for example 0.05")

    def count_trials(self, num_options: int) -> int:
        """Every rotation of each answerer, at most."""
        return max(num_options, 1)

    def __call__(self, trials: Sequence[Trial]) -> NoReturn:
        """Refuses: the threshold comes from the whole set."""
        _refuse_unfitted(self)

    def fit(
        self,
        rows: Sequence[Sequence[Trial]],
        clusters: Sequence[int | str] | None = None,
        *,
        followed_share: float = 1.0,
        seed: int = 0,
    ) -> FittedCalibrated:
        """Finds the threshold on a whole set.

        Args:
            rows (`Sequence[Sequence[Trial]]`): the trials of each row. Copies of one question are right or wrong
                together, so pass one of them. Rows without answer, score, decoys or confidence are left out.
                The first trial carries the confidence of its row.
            clusters (`Sequence[int | str]`, *optional*): the video of each row, for the interval of the estimate.
            followed_share (`float`, *optional*, defaults to 1): how many of the wrong rows have a confidence because
                they were drawn at random, in (0, 1].
            seed (`int`, *optional*, defaults to 0): of the interval.

        Returns:
            `FittedCalibrated`: judges one row at a time.

        Raises:
            `ValueError`: when `clusters` and `rows` differ in length.
        """
        if clusters is not None and len(clusters) != len(rows):
            raise ValueError(f"got {len(clusters)} clusters for {len(rows)} rows; pass one cluster per row")
        judged = [
            index
            for index, trials in enumerate(rows)
            if find_defect(trials) is None and trials[0].has_decoys and trials[0].confidence is not None
        ]
        candidates = [rows[index][0] for index in judged]
        return self.fit_candidates(
            np.array([bool(trial.is_right) for trial in candidates], dtype=bool),
            np.array([trial.confidence for trial in candidates], dtype=np.float64),
            np.array([trial.num_gold / (trial.num_options - trial.num_gold) for trial in candidates]),
            clusters=None if clusters is None else [clusters[index] for index in judged],
            num_left_out=len(rows) - len(judged),
            followed_share=followed_share,
            seed=seed,
        )

    def fit_candidates(
        self,
        is_right: NDArray[np.bool_],
        confidence: NDArray[np.float64],
        decoy_weight: NDArray[np.float64],
        *,
        clusters: Sequence[int | str] | NDArray[np.int64] | None,
        num_left_out: int,
        followed_share: float = 1.0,
        seed: int = 0,
    ) -> FittedCalibrated:
        """Finds the threshold from the first trials of the rows that have a say, as columns.

        Args:
            is_right (`bool[N]`), confidence (`float64[N]`), decoy_weight (`float64[N]`): as in `calibrate`.
            clusters (`int64[N]` or sequence of `str`, *optional*): the video of each row.
            num_left_out (`int`): rows that have no say.
            followed_share, seed: as in `fit`.
        """
        calibration = calibrate(
            is_right, confidence, np.asarray(decoy_weight, np.float64) / followed_share,
            alpha=self.alpha, clusters=clusters, seed=seed,
        )  # fmt: skip
        return FittedCalibrated(calibration=calibration, num_left_out=num_left_out, followed_share=followed_share)

    def __str__(self) -> str:
        return f"calibrated(alpha={self.alpha})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCalibrated:
    """`Calibrated` with its threshold.

    Attributes:
        calibration (`Calibration`): the threshold and what it is expected to cost.
        num_left_out (`int`): rows of the fit that had no say in it.
        followed_share (`float`, *optional*, defaults to 1): how many of the wrong rows had.
    """

    calibration: Calibration
    num_left_out: int
    followed_share: float = 1.0

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by its first trial."""
        defect = find_defect(trials)
        if defect is not None:
            return Verdict(None, defect)
        trial = trials[0]
        if not trial.is_right and (trial.has_decoys or trial.num_options == 0):
            return Verdict(True, "wrong_blind")
        if not trial.has_decoys:
            return Verdict(None, "no_decoys")
        threshold = self.calibration.threshold
        if threshold is not None and trial.confidence is None:
            return Verdict(None, "no_confidence")
        is_sure = threshold is not None and trial.confidence is not None and trial.confidence >= threshold
        return Verdict(False, "right_and_sure") if is_sure else Verdict(True, "right_but_unsure")

    def count_trials(self, num_options: int) -> int:
        """Every rotation of each answerer, at most."""
        return max(num_options, 1)

    def __str__(self) -> str:
        return str(Calibrated(self.calibration.alpha))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FittedCalibrated:
        """Rebuilds what `dataclasses.asdict` gave, also after a round trip through JSON."""
        return cls(**{**values, "calibration": Calibration.from_dict(values["calibration"])})


@dataclass(frozen=True, slots=True)
class DropFraction:
    """Drops a share of the set, the most predictable first, refitting the probe on what is left after each batch.

    Iterative bias pruning in the manner of the Test-set Stress-Test (arXiv 2511.04655): it stops at the share asked
    for, or earlier, when the mean bias score of what is left is no higher than chance.

    Args:
        fraction (`float`): largest share of the scored rows to drop, in (0, 1).

    Raises:
        `ValueError`: for a fraction out of range.

    Example:
        >>> rows = [[Trial(score=1.0, bias_score=k / 10, num_options=4)] for k in range(10)]
        >>> rule = drop_fraction(0.2).fit(rows, lambda is_kept: [k / 10 for k in range(10)])
        >>> rule.pruning.dropped, rule.pruning.threshold
        ((8, 9), 0.8)
    """

    fraction: float

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction = {self.fraction} is out of range; drop_fraction allows (0, 1)")

    def count_trials(self, num_options: int) -> int:
        """One: the probe answers once."""
        return 1

    def __call__(self, trials: Sequence[Trial]) -> NoReturn:
        """Refuses: which rows are worst depends on the whole set."""
        _refuse_unfitted(self)

    def fit(
        self, rows: Sequence[Sequence[Trial]], rescore: Callable[[NDArray[np.bool_]], ArrayLike]
    ) -> FittedDropFraction:
        """Prunes a whole set.

        Args:
            rows (`Sequence[Sequence[Trial]]`): the trials of each of the N rows, with the first bias scores.
            rescore (`Callable`): from which rows are kept (`bool[N]`) to new bias scores (`float64[N]`) by a probe
                fitted on those alone, out of fold; the values of other rows are not read.

        Returns:
            `FittedDropFraction`: the pruned set, and a threshold for other rows.

        Raises:
            `ValueError`: when `rescore` gives another number of scores, or nan for a kept row.
        """
        bias_scores = [None if find_defect(trials) else trials[0].bias_score for trials in rows]
        chance = [trials[0].chance if trials else 0.0 for trials in rows]
        return self.fit_scores(np.array(bias_scores, dtype=np.float64), chance, rescore)

    def fit_scores(
        self, bias_scores: NDArray[np.float64], chance: ArrayLike, rescore: Callable[[NDArray[np.bool_]], ArrayLike]
    ) -> FittedDropFraction:
        """Prunes a whole set given as columns; takes what `stats.pruning.prune_bias` takes."""
        pruning = prune_bias(bias_scores, chance, rescore, fraction=self.fraction)
        return FittedDropFraction(fraction=self.fraction, pruning=pruning)

    def __str__(self) -> str:
        return f"drop_fraction(fraction={self.fraction})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedDropFraction:
    """`DropFraction` with the set it pruned.

    Attributes:
        fraction (`float`): the share that was asked for.
        pruning (`Pruning`): which rows of the fit were dropped, and the lowest bias score among them.
    """

    fraction: float
    pruning: Pruning

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges a row that was not in the fit, by its first trial."""
        return judge_bias(trials, self.pruning.threshold)

    def count_trials(self, num_options: int) -> int:
        """One: the probe answers once."""
        return 1

    def judge_fitted(self, rows: Sequence[Sequence[Trial]], *, first: int = 0) -> list[Verdict]:
        """Judges neighbouring rows of the fit, from the `first` on, by whether they were dropped then."""
        all_dropped = self.pruning.dropped  # ascending
        dropped = set(all_dropped[bisect_left(all_dropped, first) : bisect_left(all_dropped, first + len(rows))])
        return [
            Verdict(False, "high_bias_score") if index in dropped else judge_bias(trials, None)
            for index, trials in enumerate(rows, first)
        ]

    def __str__(self) -> str:
        return str(DropFraction(self.fraction))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FittedDropFraction:
        """Rebuilds what `dataclasses.asdict` gave, also after a round trip through JSON."""
        return cls(fraction=values["fraction"], pruning=Pruning.from_dict(values["pruning"]))


calibrated = Calibrated
drop_fraction = DropFraction


def _refuse_unfitted(rule: Calibrated | DropFraction) -> NoReturn:
    raise RuntimeError(f"{rule} decides on a whole set; call .fit on the rows first, and use the rule it returns")
