"""Trials to a verdict: when a question counts as answered by text alone.

Nothing is asked, scored or written here; the statistics behind `calibrated` are in `stats.calibration`.

Reasons of the verdicts:

| reason | verdict | rule |
|---|---|---|
| `right_blind` | text-answerable | `single_shot` |
| `right_and_sure` | text-answerable | `calibrated` |
| `high_bias_score` | text-answerable | `bias_at_least`, `drop_fraction` |
| `wrong_blind` | visually grounded | `single_shot`, `calibrated` |
| `right_but_unsure` | visually grounded | `calibrated` |
| `low_bias_score` | visually grounded | `bias_at_least`, `drop_fraction` |
| `no_answer`, `unscored` | undecided | all |
| `no_decoys`, `no_confidence` | undecided | `calibrated` |
| `no_bias_score` | undecided | `bias_at_least`, `drop_fraction` |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vidground_hf.schema import Verdict
from vidground_hf.stats.calibration import Calibration, calibrate
from vidground_hf.stats.gap import RIGHT_SCORE
from vidground_hf.stats.pruning import Pruning, prune_bias


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One answer to one example, and its score.

    Attributes:
        score (`float`, *optional*): in [0, 1]; `None` when it cannot be scored.
        confidence (`float`, *optional*): how sure the answerer was, without having seen the gold answer.
        bias_score (`float`, *optional*): probability, in [0, 1], that text alone gives the gold answer.
        num_options (`int`, *optional*, defaults to 0): distinct options; 0 for open-ended questions.
        num_gold (`int`, *optional*, defaults to 1): how many of the distinct options equal the gold answer.
        error (`str`, *optional*): why there is no answer.
    """

    score: float | None
    confidence: float | None = None
    bias_score: float | None = None
    num_options: int = 0
    num_gold: int = 1
    error: str | None = None

    @property
    def is_right(self) -> bool | None:
        """Whether the score is at least `RIGHT_SCORE`; `None` without a score."""
        return None if self.score is None else self.score >= RIGHT_SCORE

    @property
    def chance(self) -> float:
        """How often guessing is right: 0 for open-ended questions."""
        return self.num_gold / self.num_options if self.num_options else 0.0

    @property
    def has_decoys(self) -> bool:
        """Whether some, but not all, of the options equal the gold answer."""
        return 0 < self.num_gold < self.num_options


def _find_defect(trials: Sequence[Trial]) -> str | None:
    """Says why the first trial of a row cannot be judged, by any rule."""
    if not trials or trials[0].error is not None:
        return "no_answer"
    return "unscored" if trials[0].score is None else None


@dataclass(frozen=True, slots=True)
class SingleShot:
    """Drops every question that was answered right once without the video: VidGround's rule (arXiv 2604.05117).

    One try on a four-option question is right by luck 25 % of the time; `Calibrated` allows for that.

    Example:
        >>> single_shot()([Trial(score=1.0)])
        Verdict(is_visually_grounded=False, reason='right_blind')
    """

    needs_fit: ClassVar[bool] = False

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by its first trial."""
        defect = _find_defect(trials)
        if defect is not None:
            return Verdict(None, defect)
        return Verdict(False, "right_blind") if trials[0].is_right else Verdict(True, "wrong_blind")

    def __str__(self) -> str:
        return "single_shot()"


@dataclass(frozen=True, slots=True)
class BiasAtLeast:
    """Drops every question whose bias score reaches a threshold.

    Args:
        threshold (`float`): in (0, 1].

    Raises:
        `ValueError`: for a threshold out of range.

    Example:
        >>> bias_at_least(0.4)([Trial(score=1.0, bias_score=0.3)])
        Verdict(is_visually_grounded=True, reason='low_bias_score')
    """

    threshold: float

    needs_fit: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold = {self.threshold} is out of range; bias_at_least allows (0, 1]")

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by its first trial."""
        return _judge_bias(trials, self.threshold)

    def __str__(self) -> str:
        return f"bias_at_least(threshold={float(self.threshold)})"


def _judge_bias(trials: Sequence[Trial], threshold: float | None) -> Verdict:
    """Compares a bias score with a threshold; `None` drops nothing."""
    defect = _find_defect(trials)
    if defect is not None:
        return Verdict(None, defect)
    bias_score = trials[0].bias_score
    if bias_score is None:
        return Verdict(None, "no_bias_score")
    is_high = threshold is not None and bias_score >= threshold
    return Verdict(False, "high_bias_score") if is_high else Verdict(True, "low_bias_score")


@dataclass(frozen=True, slots=True)
class Calibrated:
    """Drops as many right answers as it can while the share of lucky ones is expected to stay under `alpha`.

    The wrong answers show how often the answerer is sure of itself without cause: see
    [`~vidground_hf.stats.calibration.calibrate`]. A row's first trial is its candidate answer.

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

    needs_fit: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha = {self.alpha} is out of range; calibrated allows (0, 1), for example 0.05")

    def __call__(self, trials: Sequence[Trial]) -> NoReturn:
        """Refuses: the threshold comes from the whole set."""
        _refuse_unfitted(self)

    def fit(
        self, rows: Sequence[Sequence[Trial]], clusters: Sequence[int | str] | None = None, seed: int = 0
    ) -> FittedCalibrated:
        """Finds the threshold on a whole set.

        Args:
            rows (`Sequence[Sequence[Trial]]`): the trials of each row. Copies of one question are right or wrong
                together, so pass one of them. Rows without answer, score, decoys or confidence are left out.
            clusters (`Sequence[int | str]`, *optional*): the video of each row, for the interval of the estimate.
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
            if _find_defect(trials) is None and trials[0].has_decoys and trials[0].confidence is not None
        ]
        candidates = [rows[index][0] for index in judged]
        calibration = calibrate(
            [bool(trial.is_right) for trial in candidates],
            np.array([trial.confidence for trial in candidates], dtype=np.float64),
            [trial.num_gold / (trial.num_options - trial.num_gold) for trial in candidates],
            alpha=self.alpha,
            clusters=None if clusters is None else [clusters[index] for index in judged],
            seed=seed,
        )
        return FittedCalibrated(calibration=calibration, num_left_out=len(rows) - len(judged))

    def __str__(self) -> str:
        return f"calibrated(alpha={self.alpha})"


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCalibrated:
    """`Calibrated` with its threshold.

    Attributes:
        calibration (`Calibration`): the threshold and what it is expected to cost.
        num_left_out (`int`): rows of the fit that had no say in it.
    """

    calibration: Calibration
    num_left_out: int

    needs_fit: ClassVar[bool] = False

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by its first trial."""
        defect = _find_defect(trials)
        if defect is not None:
            return Verdict(None, defect)
        trial = trials[0]
        if not trial.is_right and (trial.has_decoys or trial.num_options == 0):
            return Verdict(True, "wrong_blind")
        if not trial.has_decoys:
            return Verdict(None, "no_decoys")
        if trial.confidence is None:
            return Verdict(None, "no_confidence")
        threshold = self.calibration.threshold
        is_sure = threshold is not None and trial.confidence >= threshold
        return Verdict(False, "right_and_sure") if is_sure else Verdict(True, "right_but_unsure")

    def __str__(self) -> str:
        return str(Calibrated(self.calibration.alpha))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FittedCalibrated:
        """Rebuilds what `dataclasses.asdict` gave, also after a round trip through JSON."""
        return cls(calibration=Calibration.from_dict(values["calibration"]), num_left_out=values["num_left_out"])


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

    needs_fit: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction = {self.fraction} is out of range; drop_fraction allows (0, 1)")

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
        bias_scores = [None if _find_defect(trials) else trials[0].bias_score for trials in rows]
        chance = [trials[0].chance if trials else 0.0 for trials in rows]
        pruning = prune_bias(np.array(bias_scores, dtype=np.float64), chance, rescore, fraction=self.fraction)
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

    needs_fit: ClassVar[bool] = False

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges a row that was not in the fit, by its first trial."""
        return _judge_bias(trials, self.pruning.threshold)

    def judge_fitted(self, rows: Sequence[Sequence[Trial]]) -> list[Verdict]:
        """Judges the rows of the fit, in its order, by whether they were dropped then."""
        dropped = set(self.pruning.dropped)
        return [
            Verdict(False, "high_bias_score") if index in dropped else _judge_bias(trials, None)
            for index, trials in enumerate(rows)
        ]

    def __str__(self) -> str:
        return str(DropFraction(self.fraction))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FittedDropFraction:
        """Rebuilds what `dataclasses.asdict` gave, also after a round trip through JSON."""
        return cls(fraction=values["fraction"], pruning=Pruning.from_dict(values["pruning"]))


Rule = SingleShot | Calibrated | BiasAtLeast | DropFraction

single_shot = SingleShot
calibrated = Calibrated
bias_at_least = BiasAtLeast
drop_fraction = DropFraction


def _refuse_unfitted(rule: Rule) -> NoReturn:
    raise RuntimeError(f"{rule} decides on a whole set; call .fit on the rows first, and use the rule it returns")
