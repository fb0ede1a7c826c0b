"""Trials of one row to a verdict: when a question counts as answered by text alone.

Rules that look at a whole set are in `set_rules.py`. Nothing is asked, scored or written here.

Reasons of the verdicts:

| reason | verdict | rule |
|---|---|---|
| `right_blind` | text-answerable | `single_shot` |
| `wrong_blind` | visually grounded | `single_shot`, `calibrated` |
| `right_by_majority`, `wrong_by_majority` | text-answerable, visually grounded | `majority` |
| `right_often`, `right_seldom` | text-answerable, visually grounded | `at_most` |
| `right_in_every_order`, `wrong_in_some_order` | text-answerable, visually grounded | `circular` |
| `high_bias_score`, `low_bias_score` | text-answerable, visually grounded | `bias_at_least`, `drop_fraction` |
| `right_and_sure`, `right_but_unsure` | text-answerable, visually grounded | `calibrated` |
| `no_answer`, `unscored` | undecided | all |
| `no_options` | undecided | `circular` |
| `no_decoys`, `no_confidence` | undecided | `calibrated` |
| `no_bias_score` | undecided | `bias_at_least`, `drop_fraction` |
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vidground_hf.schema import Verdict
from vidground_hf.trials import Trial, find_defect


@dataclass(frozen=True, slots=True)
class SingleShot:
    """Drops every question that was answered right once without the video: VidGround's rule (arXiv 2604.05117).

    One try on a four-option question is right by luck 25 % of the time; `calibrated` allows for that.

    Example:
        >>> single_shot()([Trial(score=1.0)])
        Verdict(is_visually_grounded=False, reason='right_blind')
    """

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by its first trial."""
        defect = find_defect(trials[:1])
        if defect is not None:
            return Verdict(None, defect)
        return Verdict(False, "right_blind") if trials[0].is_right else Verdict(True, "wrong_blind")

    def count_trials(self, num_options: int) -> int:
        """How many trials of each answerer a row takes."""
        return 1

    def __str__(self) -> str:
        return "single_shot()"


@dataclass(frozen=True, slots=True)
class Majority:
    """Drops a question when enough answerers are right in more than half of their tries: MMMU-Pro's rule.

    There, 4 models try 10 times each, and 3 of the 4 must be right in the majority of their tries (arXiv 2409.02813).

    Args:
        share (`float`, *optional*, defaults to 0.75): of the answerers, in (0, 1].

    Raises:
        `ValueError`: for a share out of range.

    Example:
        >>> majority()([Trial(score=1.0), Trial(score=0.0), Trial(score=1.0)])
        Verdict(is_visually_grounded=False, reason='right_by_majority')
    """

    share: float = 0.75

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share = {self.share} is out of range; majority allows (0, 1], for example 0.75")

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by all of its trials."""
        defect = find_defect(trials)
        if defect is not None:
            return Verdict(None, defect)
        tries: dict[int, list[bool]] = defaultdict(list)
        for trial in trials:
            tries[trial.answerer].append(bool(trial.is_right))
        num_right = sum(sum(right) > len(right) / 2 for right in tries.values())
        # The tolerance lets three of four be three quarters whatever the share looks like in floating point.
        if num_right >= self.share * len(tries) * (1 - 1e-9):
            return Verdict(False, "right_by_majority")
        return Verdict(True, "wrong_by_majority")

    def count_trials(self, num_options: int) -> int:
        """MMMU-Pro's 10 tries of each answerer."""
        return 10

    def __str__(self) -> str:
        return f"majority(share={float(self.share)})"


@dataclass(frozen=True, slots=True)
class AtMost:
    """Keeps a question that is answered right at most `limit` times: MMStar's rule, with a limit of 2 in 8 models.

    The benchmark is described in arXiv 2403.20330.

    Args:
        limit (`int`, *optional*, defaults to 2): right answers at most, a whole number of 0 or more.

    Raises:
        `ValueError`: for a negative limit.

    Example:
        >>> at_most(1)([Trial(score=1.0), Trial(score=1.0)])
        Verdict(is_visually_grounded=False, reason='right_often')
    """

    limit: float = 2

    def __post_init__(self) -> None:
        if self.limit < 0 or self.limit != int(self.limit):
            raise ValueError(f"limit = {self.limit} is out of range; at_most allows 0, 1, 2 and so on")

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by all of its trials."""
        defect = find_defect(trials)
        if defect is not None:
            return Verdict(None, defect)
        num_right = sum(bool(trial.is_right) for trial in trials)
        return Verdict(False, "right_often") if num_right > self.limit else Verdict(True, "right_seldom")

    def count_trials(self, num_options: int) -> int:
        """One of each answerer."""
        return 1

    def __str__(self) -> str:
        return f"at_most(limit={int(self.limit)})"


@dataclass(frozen=True, slots=True)
class Circular:
    """Drops a question that is answered right under every rotation of its options: MMBench's CircularEval.

    The protocol is from arXiv 2307.06281. A guesser passes with probability n^-n; a reader who prefers a letter fails.

    Example:
        >>> circular()([Trial(score=1.0, num_options=2), Trial(score=0.0, num_options=2)])
        Verdict(is_visually_grounded=True, reason='wrong_in_some_order')
    """

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by all of its trials."""
        defect = find_defect(trials)
        if defect is not None:
            return Verdict(None, defect)
        if not trials[0].num_options:
            return Verdict(None, "no_options")
        is_right = all(trial.is_right for trial in trials)
        return Verdict(False, "right_in_every_order") if is_right else Verdict(True, "wrong_in_some_order")

    def count_trials(self, num_options: int) -> int:
        """Every rotation."""
        return max(num_options, 1)

    def __str__(self) -> str:
        return "circular()"


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

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold = {self.threshold} is out of range; bias_at_least allows (0, 1]")

    def __call__(self, trials: Sequence[Trial]) -> Verdict:
        """Judges one row by the bias score that its trials have together, which the first one carries."""
        return judge_bias(trials, self.threshold)

    def count_trials(self, num_options: int) -> int:
        """One of each answerer."""
        return 1

    def __str__(self) -> str:
        return f"bias_at_least(threshold={float(self.threshold)})"


def judge_bias(trials: Sequence[Trial], threshold: float | None) -> Verdict:
    """Compares a bias score with a threshold; `None` drops nothing."""
    defect = find_defect(trials)
    if defect is not None:
        return Verdict(None, defect)
    bias_score = trials[0].bias_score
    if bias_score is None:
        return Verdict(None, "no_bias_score")
    is_high = threshold is not None and bias_score >= threshold
    return Verdict(False, "high_bias_score") if is_high else Verdict(True, "low_bias_score")


single_shot = SingleShot
majority = Majority
at_most = AtMost
circular = Circular
bias_at_least = BiasAtLeast
