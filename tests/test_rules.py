"""Rules: their truth tables, how they are fitted, stored, written and read."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.deciding import needs_fit
from vidground_hf.rule_parsing import Rule, parse_rule
from vidground_hf.rules import at_most, bias_at_least, circular, majority, single_shot
from vidground_hf.schema import Verdict
from vidground_hf.set_rules import FittedCalibrated, FittedDropFraction, calibrated, drop_fraction
from vidground_hf.trials import Trial

TA, VG, UNDECIDED = False, True, None
ALL_RULES: list[Rule] = [
    single_shot(),
    calibrated(),
    bias_at_least(0.4),
    drop_fraction(0.3),
    majority(),
    at_most(),
    circular(),
]


def make_rows(num_sure: int = 40, num_unsure: int = 40) -> list[list[Trial]]:
    """Four-option rows: surely known ones at confidence 2, blind guesses at confidence 1."""
    sure = [[Trial(score=1.0, confidence=2.0, bias_score=0.9, num_options=4)] for _ in range(num_sure)]
    unsure = [
        [Trial(score=float(k % 4 == 0), confidence=1.0, bias_score=0.25, num_options=4)] for k in range(num_unsure)
    ]
    return sure + unsure


@pytest.mark.parametrize(
    ("trials", "verdict"),
    [
        ([Trial(score=1.0)], (TA, "right_blind")),
        ([Trial(score=0.5)], (TA, "right_blind")),
        ([Trial(score=0.49)], (VG, "wrong_blind")),
        ([Trial(score=0.0)], (VG, "wrong_blind")),
        ([Trial(score=1.0), Trial(score=0.0)], (TA, "right_blind")),
        ([Trial(score=1.0, num_options=2, num_gold=2)], (TA, "right_blind")),
        ([Trial(score=None)], (UNDECIDED, "unscored")),
        ([Trial(score=None, error="timeout")], (UNDECIDED, "no_answer")),
        ([Trial(score=0.0, error="timeout")], (UNDECIDED, "no_answer")),
        ([], (UNDECIDED, "no_answer")),
    ],
)
def test_single_shot(trials: list[Trial], verdict: Verdict) -> None:
    assert single_shot()(trials) == verdict


RIGHT, WRONG = Trial(score=1.0, num_options=2), Trial(score=0.0, num_options=2)
FAILED = Trial(score=None, error="timeout")


def by(answerer: int, *scores: float) -> list[Trial]:
    return [Trial(score=score, num_options=4, answerer=answerer) for score in scores]


@pytest.mark.parametrize(
    ("rule", "trials", "verdict"),
    [
        (majority(), by(0, 1, 1, 0), (TA, "right_by_majority")),
        (majority(), by(0, 1, 0), (VG, "wrong_by_majority")),
        (majority(), [*by(0, 1), *by(1, 1), *by(2, 1), *by(3, 0)], (TA, "right_by_majority")),
        (majority(), [*by(0, 1), *by(1, 1), *by(2, 0), *by(3, 0)], (VG, "wrong_by_majority")),
        (majority(), [*by(0, 1, 1, 1, 1), *by(1, 0)], (VG, "wrong_by_majority")),
        (majority(0.5), [*by(0, 1), *by(1, 0)], (TA, "right_by_majority")),
        (majority(), [RIGHT, FAILED], (UNDECIDED, "no_answer")),
        (majority(), [Trial(score=None)], (UNDECIDED, "unscored")),
        (at_most(2), by(0, 1, 1, 0, 0), (VG, "right_seldom")),
        (at_most(2), [*by(0, 1, 1), *by(1, 1)], (TA, "right_often")),
        (at_most(0), [WRONG], (VG, "right_seldom")),
        (at_most(0), [RIGHT], (TA, "right_often")),
        (at_most(2), [], (UNDECIDED, "no_answer")),
        (circular(), [RIGHT, RIGHT], (TA, "right_in_every_order")),
        (circular(), [RIGHT, WRONG], (VG, "wrong_in_some_order")),
        (circular(), [RIGHT, FAILED], (UNDECIDED, "no_answer")),
        (circular(), [Trial(score=1.0)], (UNDECIDED, "no_options")),
    ],
)
def test_rules_that_count(rule: Callable[..., Verdict], trials: list[Trial], verdict: Verdict) -> None:
    assert rule(trials) == verdict


def test_rules_that_count_refuse_what_is_out_of_range() -> None:
    with pytest.raises(ValueError, match=re.escape("share = 0 is out of range; majority allows (0, 1], for example")):
        majority(0)
    with pytest.raises(ValueError, match=re.escape("limit = -1 is out of range; at_most allows 0, 1, 2 and so on")):
        at_most(-1)
    with pytest.raises(ValueError, match=re.escape("limit = 1.5 is out of range")):
        at_most(1.5)


def test_rules_say_how_many_answers_they_take() -> None:
    assert [rule.count_trials(5) for rule in ALL_RULES] == [1, 5, 1, 1, 10, 1, 5]
    assert [rule.count_trials(0) for rule in ALL_RULES] == [1, 1, 1, 1, 10, 1, 1]


@pytest.mark.parametrize(
    ("trials", "verdict"),
    [
        ([Trial(score=0.0, bias_score=0.4)], (TA, "high_bias_score")),
        ([Trial(score=1.0, bias_score=0.39)], (VG, "low_bias_score")),
        ([Trial(score=1.0)], (UNDECIDED, "no_bias_score")),
        ([Trial(score=None, bias_score=0.9)], (UNDECIDED, "unscored")),
        ([Trial(score=None, error="reset")], (UNDECIDED, "no_answer")),
        ([], (UNDECIDED, "no_answer")),
    ],
)
def test_bias_at_least(trials: list[Trial], verdict: Verdict) -> None:
    assert bias_at_least(0.4)(trials) == verdict


@pytest.mark.parametrize(
    ("trial", "verdict"),
    [
        (Trial(score=1.0, confidence=2.0, num_options=4), (TA, "right_and_sure")),
        (Trial(score=1.0, confidence=9.0, num_options=3, num_gold=2), (TA, "right_and_sure")),
        (Trial(score=1.0, confidence=1.99, num_options=4), (VG, "right_but_unsure")),
        (Trial(score=0.0, confidence=2.0, num_options=4), (VG, "wrong_blind")),
        (Trial(score=0.0, num_options=4), (VG, "wrong_blind")),
        (Trial(score=1.0, num_options=4), (UNDECIDED, "no_confidence")),
        (Trial(score=1.0, confidence=2.0, num_options=2, num_gold=2), (UNDECIDED, "no_decoys")),
        (Trial(score=0.0, confidence=2.0, num_options=1), (UNDECIDED, "no_decoys")),
        (Trial(score=1.0, confidence=2.0), (UNDECIDED, "no_decoys")),
        (Trial(score=0.2, confidence=2.0), (VG, "wrong_blind")),
        (Trial(score=None, confidence=2.0, num_options=4), (UNDECIDED, "unscored")),
        (Trial(score=None, error="HTTP 500", num_options=4), (UNDECIDED, "no_answer")),
    ],
)
def test_calibrated(trial: Trial, verdict: Verdict) -> None:
    rule = calibrated(0.05).fit(make_rows())
    assert rule.calibration.threshold == 2.0
    assert rule([trial]) == verdict
    # Only the first trial is the candidate answer.
    assert rule([trial, Trial(score=0.0, confidence=0.0, num_options=4)]) == verdict


def test_calibrated_weighs_wrong_rows_by_their_options() -> None:
    rows = make_rows(20, 0)
    rows += [[Trial(score=0.0, confidence=2.0, num_options=n, num_gold=g)] for n, g in ((2, 1), (5, 1), (5, 2))]
    calibration = calibrated(0.5).fit(rows).calibration
    assert calibration.expected_lucky_drops == pytest.approx(1 + 1 / 4 + 2 / 3)
    assert calibration.estimated_error.value == pytest.approx((1 + 1 + 1 / 4 + 2 / 3) / 20)


def test_calibrated_leaves_out_what_can_not_be_judged() -> None:
    no_say = [
        [],
        [Trial(score=None, confidence=9.0, num_options=4)],
        [Trial(score=0.0, confidence=9.0, num_options=4, error="reset")],
        [Trial(score=0.0, num_options=4)],
        [Trial(score=0.0, confidence=9.0)],
        [Trial(score=0.0, confidence=9.0, num_options=2, num_gold=2)],
        [Trial(score=0.0, confidence=9.0, num_options=2, num_gold=0)],
    ]
    plain, mixed = calibrated().fit(make_rows()), calibrated().fit(no_say + make_rows())
    assert mixed.num_left_out == len(no_say)
    assert plain.num_left_out == 0
    assert mixed.calibration == plain.calibration


def test_calibrated_keeps_everything_when_alpha_can_not_be_met() -> None:
    rows = make_rows(num_sure=5)
    rule = calibrated(0.05).fit(rows)
    assert rule.calibration.threshold is None
    assert {rule(row) for row in rows} == {(VG, "right_but_unsure"), (VG, "wrong_blind")}


def test_calibrated_judges_as_many_rows_as_it_counted() -> None:
    rows = make_rows(100, 200)
    rule = calibrated(0.1).fit(rows)
    assert sum(rule(row).is_visually_grounded is False for row in rows) == rule.calibration.num_drops == 100


def test_calibrated_clusters_follow_their_rows() -> None:
    # The rows left out come first: clusters that were not shifted with the rest would make one video of all.
    rows = [[Trial(score=None)]] * 80 + make_rows()
    videos = ["left out"] * 80 + [f"video {k:02}" for k in range(80)]
    assert calibrated().fit(rows, videos, seed=4).calibration == calibrated().fit(make_rows(), seed=4).calibration
    assert calibrated().fit(make_rows(), ["one"] * 80).calibration.estimated_error.low is None
    with pytest.raises(ValueError, match=re.escape("got 1 clusters for 80 rows; pass one cluster per row")):
        calibrated().fit(make_rows(), ["one"])


def test_calibrated_passes_alpha_and_seed_on() -> None:
    rows = make_rows(30, 120)
    assert calibrated(0.3).fit(rows).calibration.num_drops == 30
    assert calibrated(0.6).fit(rows).calibration.num_drops == 60
    one, other = (calibrated(0.6).fit(rows, seed=seed).calibration.estimated_error for seed in (1, 2))
    assert one.value == other.value
    assert one != other


def test_drop_fraction_judges_fitted_rows_by_what_was_dropped() -> None:
    rows = [[Trial(score=1.0, bias_score=k / 10, num_options=4)] for k in range(10)]
    rows += [[Trial(score=None)], [Trial(score=1.0)], []]
    # After the first batch the probe finds row 0 the most predictable.
    refitted = np.array([0.85] + [k / 10 for k in range(1, 10)] + [np.nan] * 3)
    rule = drop_fraction(0.2).fit(rows, lambda is_kept: refitted)
    assert rule.pruning.dropped == (0, 9)
    assert rule.pruning.threshold == 0.85
    assert rule.pruning.num_left_out == 3
    assert rule.pruning.trace[0].chance == 0.25
    verdicts = rule.judge_fitted(rows)
    assert [k for k, verdict in enumerate(verdicts) if verdict == (TA, "high_bias_score")] == [0, 9]
    assert verdicts[8] == (VG, "low_bias_score")
    assert verdicts[10:] == [(UNDECIDED, "unscored"), (UNDECIDED, "no_bias_score"), (UNDECIDED, "no_answer")]
    # Rows that were not in the fit are judged by the lowest score that was dropped.
    assert rule([Trial(score=1.0, bias_score=0.85)]) == (TA, "high_bias_score")
    assert rule([Trial(score=1.0, bias_score=0.84)]) == (VG, "low_bias_score")


def test_drop_fraction_at_the_floor_drops_nothing() -> None:
    rows = [[Trial(score=0.0, bias_score=0.25, num_options=4)]] * 8
    rule = drop_fraction(0.5).fit(rows, lambda is_kept: [0.25] * 8)
    assert set(rule.judge_fitted(rows)) == {(VG, "low_bias_score")}
    assert rule([Trial(score=1.0, bias_score=1.0)]) == (VG, "low_bias_score")


@pytest.mark.parametrize("rule", [calibrated(0.1), drop_fraction(0.3)])
def test_an_unfitted_rule_names_fit(rule: Callable[[list[Trial]], Verdict]) -> None:
    message = f"{rule} decides on a whole set; call .fit on the rows first, and use the rule it returns"
    with pytest.raises(RuntimeError, match=re.escape(message)):
        rule([Trial(score=1.0)])


def test_rules_say_whether_they_need_a_fit() -> None:
    assert [needs_fit(rule) for rule in ALL_RULES] == [False, True, False, True, False, False, False]
    assert not needs_fit(calibrated().fit([]))
    assert not needs_fit(drop_fraction(0.5).fit([], lambda is_kept: []))


@pytest.mark.parametrize("rule", ALL_RULES)
def test_rules_are_frozen_picklable_and_readable_from_their_text(rule: Rule) -> None:
    assert pickle.loads(pickle.dumps(rule)) == rule  # noqa: S301
    assert parse_rule(str(rule)) == rule
    with pytest.raises((FrozenInstanceError, TypeError)):
        rule.alpha = 0.5  # type: ignore[misc, union-attr]


def test_fitted_rules_survive_json_and_pickle() -> None:
    rows = make_rows()
    fits: list[FittedCalibrated | FittedDropFraction] = [
        calibrated(0.05).fit(rows),
        drop_fraction(0.3).fit(rows, lambda is_kept: [row[0].bias_score or 0.0 for row in rows]),
    ]
    for fit in fits:
        assert type(fit).from_dict(json.loads(json.dumps(asdict(fit)))) == fit
        assert pickle.loads(pickle.dumps(fit)) == fit  # noqa: S301
    assert [str(fit) for fit in fits] == ["calibrated(alpha=0.05)", "drop_fraction(fraction=0.3)"]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("calibrated", calibrated(0.05)),
        ("calibrated()", calibrated(0.05)),
        ("calibrated(0.1)", calibrated(0.1)),
        (" calibrated( alpha = .1 ) ", calibrated(0.1)),
        ("calibrated(1e-2)", calibrated(0.01)),
        ("single_shot", single_shot()),
        ("single_shot()", single_shot()),
        ("bias_at_least(0.4)", bias_at_least(0.4)),
        ("bias_at_least(threshold=1)", bias_at_least(1.0)),
        ("drop_fraction(0.3)", drop_fraction(0.3)),
        ("majority", majority()),
        ("majority(0.5)", majority(0.5)),
        ("at_most", at_most(2)),
        ("at_most(0)", at_most(0)),
        ("circular()", circular()),
    ],
)
def test_parse_rule(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


def test_text_of_rules_is_stable() -> None:
    assert [str(rule) for rule in ALL_RULES] == [
        "single_shot()",
        "calibrated(alpha=0.05)",
        "bias_at_least(threshold=0.4)",
        "drop_fraction(fraction=0.3)",
        "majority(share=0.75)",
        "at_most(limit=2)",
        "circular()",
    ]
    assert str(bias_at_least(1)) == str(bias_at_least(1.0))


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_numbers_survive_their_text(number: float) -> None:
    for make_rule in (calibrated, bias_at_least, drop_fraction):
        assert parse_rule(str(make_rule(number))) == make_rule(number)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "best",
        "calibrated(",
        "calibrated(0.1, 0.2)",
        "calibrated(beta=0.1)",
        "calibrated(alpha=)",
        "calibrated(x)",
        "single_shot(0.1)",
        "bias_at_least",
        "drop_fraction()",
        "drop_fraction(nan)",
        "calibrated(__import__('os'))",
    ],
)
def test_unknown_rules_are_refused_with_what_is_allowed(text: str) -> None:
    message = (
        f"got rule {text!r}; allowed are 'calibrated', 'calibrated(alpha=0.1)', 'single_shot', "
        "'majority(share=0.75)', 'at_most(limit=2)', 'circular', 'bias_at_least(threshold=0.4)' and "
        "'drop_fraction(fraction=0.3)'"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_rule(text)


@pytest.mark.parametrize(
    ("make_rule", "number", "message"),
    [
        (calibrated, 0.0, "alpha = 0.0 is out of range; calibrated allows (0, 1), for example 0.05"),
        (calibrated, 1.0, "alpha = 1.0 is out of range"),
        (calibrated, float("nan"), "alpha = nan is out of range"),
        (bias_at_least, 0.0, "threshold = 0.0 is out of range; bias_at_least allows (0, 1]"),
        (bias_at_least, 1.01, "threshold = 1.01 is out of range"),
        (drop_fraction, 0.0, "fraction = 0.0 is out of range; drop_fraction allows (0, 1)"),
        (drop_fraction, 1.0, "fraction = 1.0 is out of range"),
        (lambda number: parse_rule(f"calibrated({number})"), -0.1, "alpha = -0.1 is out of range"),
    ],
)
def test_numbers_out_of_range_are_refused(make_rule: Callable[[float], Rule], number: float, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make_rule(number)
