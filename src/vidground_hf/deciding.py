"""Rules over whole sets: fitted, applied beside what rules do not see, packed for a file.

The rules themselves are in `rules.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.probe import ProbeFit
from vidground_hf.judging import find_bias_score
from vidground_hf.schema import Example, Verdict
from vidground_hf.set_rules import Calibrated, DropFraction, FittedCalibrated, FittedDropFraction
from vidground_hf.trials import Trial

RowRule = Callable[[Sequence[Trial]], Verdict]


def needs_fit(rule: RowRule) -> bool:
    """Whether a rule looks at the whole set before it can judge a row."""
    return isinstance(rule, (Calibrated, DropFraction))


def name_rule(rule: RowRule) -> str:
    """How a report calls a rule: its settings, or the name of a plain function; the same in every process."""
    return rule.__name__ if isinstance(rule, FunctionType) else re.sub(" at 0x[0-9a-f]+", "", str(rule))


def fit_rule(
    rule: RowRule,
    rows: Sequence[Sequence[Trial]],
    clusters: Sequence[int],
    keys: Sequence[bytes],
    *,
    probe: ProbeFit | None,
    followed_share: float,
) -> RowRule:
    """Fits a rule that looks at the whole set; gives back any other as it is.

    Args:
        rule (`Callable`): one of `rules.py`, or a function of your own from a row's trials to a `Verdict`.
        rows (`Sequence[Sequence[Trial]]`): the trials of each of the N rows.
        clusters (`Sequence[int]`): the group of each row.
        keys (`Sequence[bytes]`): the key of each row; of equal rows only the first has a say.
        probe (`ProbeFit`, *optional*): refitted by `drop_fraction`, which cannot do without.
        followed_share (`float`): the share of the wrong rows that were asked again, in (0, 1].

    Raises:
        `ValueError`: for `drop_fraction` without a probe.
    """
    if isinstance(rule, Calibrated):
        first = list({key: index for index, key in reversed(list(enumerate(keys)))}.values())
        chosen = [rows[index] for index in first]
        return rule.fit(chosen, [clusters[index] for index in first], followed_share=followed_share)
    if not isinstance(rule, DropFraction):
        return rule
    if probe is None:
        raise ValueError(f"{rule} refits the probe on what is left; it goes with the probe alone")
    has_score = np.array([trials[0].bias_score is not None for trials in rows])
    return rule.fit(rows, make_rescore(probe, has_score))


def make_rescore(probe: ProbeFit, has_score: NDArray[np.bool_]) -> Callable[[NDArray[np.bool_]], NDArray[np.float64]]:
    """What `drop_fraction` takes: from the rows that are kept to their new bias scores, for rows that have one."""

    def rescore(is_kept: NDArray[np.bool_]) -> NDArray[np.float64]:
        scores = np.full(len(has_score), np.nan)
        for index, (example, answer) in enumerate(probe.iterate_refit(is_kept, seed=0)):
            if answer is not None and has_score[index]:
                scores[index] = find_bias_score(example, answer.option_logprobs)
        return scores

    return rescore


def judge_rows(examples: Sequence[Example], rows: Sequence[Sequence[Trial]], rule: RowRule) -> list[Verdict]:
    """Applies a rule to rows it was not fitted on; a defect or a failed answer comes before the rule."""
    defects = [example.defect for example in examples]
    return [find_obstacle(*row) or rule(row[1]) for row in zip(defects, rows, strict=True)]


def judge_fitted_rows(
    defects: Sequence[str | None], rows: Sequence[Sequence[Trial]], rule: RowRule, *, first: int
) -> list[Verdict]:
    """Applies a rule to some neighbouring rows of the set it was fitted on.

    Args:
        defects (`Sequence[str | None]`): of each of the rows.
        rows (`Sequence[Sequence[Trial]]`): their trials.
        rule (`Callable`): fitted.
        first (`int`): the place of the first of them in the set.
    """
    judged = rule.judge_fitted(rows, first=first) if isinstance(rule, FittedDropFraction) else None
    return [
        find_obstacle(defect, trials) or (rule(trials) if judged is None else judged[k])
        for k, (defect, trials) in enumerate(zip(defects, rows, strict=True))
    ]


def find_obstacle(defect: str | None, trials: Sequence[Trial]) -> Verdict | None:
    """What comes before any rule: a defect of the row, or an answer that failed; `None` where the rule decides."""
    errors = [trial.error for trial in trials if trial.error is not None]
    if defect is None and not errors:
        return None
    # An error in words may hold an address or what a server said; a verdict's reason is published.
    is_slug = bool(errors) and re.fullmatch("[a-z_]+", errors[0])
    return Verdict(None, defect or (errors[0] if is_slug else "no_answer"))


def pack_rule(rule: RowRule) -> dict[str, Any] | None:
    """What a fitted rule needs to judge again, as JSON; `None` for a rule that was not fitted."""
    if isinstance(rule, (FittedCalibrated, FittedDropFraction)):
        return {"kind": type(rule).__name__, "values": asdict(rule)}
    return None


def unpack_rule(packed: dict[str, Any] | None, rule: RowRule) -> RowRule:
    """The inverse of `pack_rule`; `rule` is what was not fitted."""
    if packed is None:
        return rule
    kinds = {kind.__name__: kind for kind in (FittedCalibrated, FittedDropFraction)}
    return kinds[packed["kind"]].from_dict(packed["values"])
