"""How many drops of a rule are expected to be luck, and how many text-answerable rows it is expected to miss.

The estimates themselves are `stats.calibration`'s; here they are taken for whatever rule is in force.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vidground_hf.judgement import Judgement
from vidground_hf.rules import BiasAtLeast, SingleShot
from vidground_hf.set_rules import FittedCalibrated, FittedDropFraction
from vidground_hf.stats.calibration import Calibration


def count_luck(judgement: Judgement) -> dict[str, Any]:
    """The part of a report that is about luck.

    Args:
        judgement (`Judgement`): the set, judged.

    Returns:
        `dict`: `expected_lucky_drops`, `expected_missed`, `single_shot`, `calibration` and `pruning`; `None` what the
        rule in force does not allow to estimate.
    """
    firsts = judgement.firsts
    is_scored = firsts.has_decoys & ~np.isnan(firsts.score)
    # Lucky right answers expected from the wrong ones: a wrong answer among n options stands for 1 / (n - 1).
    num_lucky = float(firsts.decoy_weight[is_scored & ~firsts.is_right].sum())
    num_right = int((is_scored & firsts.is_right).sum())
    rule = judgement.rule
    part: dict[str, Any] = {
        "expected_lucky_drops": None,
        "expected_missed": None,
        "single_shot": {"num_drops": num_right, "expected_lucky_drops": num_lucky},
        "calibration": None,
        "pruning": None,
    }
    if isinstance(rule, FittedCalibrated):
        part["expected_lucky_drops"] = rule.calibration.expected_lucky_drops
        part["expected_missed"] = rule.calibration.expected_missed
        part["calibration"] = describe_calibration(rule.calibration)
    elif isinstance(rule, SingleShot):
        part["expected_lucky_drops"] = num_lucky
        part["expected_missed"] = 0.0
    elif isinstance(rule, BiasAtLeast):
        part["expected_lucky_drops"] = _count_high_decoys(judgement, rule.threshold)
    elif isinstance(rule, FittedDropFraction):
        part["pruning"] = [step._asdict() for step in rule.pruning.trace]
    return part


def _count_high_decoys(judgement: Judgement, threshold: float) -> float:
    """Rows whose gold would reach the threshold by luck: the share of their other options that reach it."""
    total = 0.0
    for start, rows in judgement.iterate_trials():
        examples = judgement.source.read(start, start + len(rows))
        for example, trials in zip(examples, rows, strict=True):
            stated = [trial.option_logprobs for trial in trials if trial.option_logprobs is not None]
            if example.answer_index is None or example.defect is not None or not stated:
                continue
            classes = example.option_classes
            gold = classes[example.answer_index]
            means = np.exp(np.array(stated)).mean(axis=0)
            decoys = [means[option] for option in set(classes) if option != gold]
            if decoys:
                total += float(np.mean(np.array(decoys) >= threshold))
    return total


def describe_calibration(calibration: Calibration) -> dict[str, Any]:
    """A calibration as the report shows it, with a sentence where it drops nothing."""
    note = None
    if calibration.threshold is None:
        smallest = calibration.smallest_error
        reason = (
            "no answer is right" if smallest is None else f"the smallest error any threshold reaches is {smallest:.3f}"
        )
        note = f"An error of {calibration.alpha} cannot be met ({reason}), so nothing is dropped."
    return {
        "alpha": calibration.alpha,
        "threshold": calibration.threshold,
        "estimated_error": calibration.estimated_error.value,
        "estimated_error_low": calibration.estimated_error.low,
        "estimated_error_high": calibration.estimated_error.high,
        "smallest_error": calibration.smallest_error,
        "note": note,
        "curve": [{"num_drops": drops, "estimated_error": error} for drops, error in calibration.curve],
    }
