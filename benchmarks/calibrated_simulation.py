"""Shows on simulated answers that `calibrated(0.05)` keeps its share of lucky drops, and how close it is to an oracle.

No answerer, no data: every row's truth is planted. Prints one JSON line; about two minutes on one core.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidground_hf.stats.agreement import measure_agreement, measure_log_odds
from vidground_hf.stats.calibration import list_cuts

ALPHA = 0.05
NUM_ITEMS = 2000
NUM_SEEDS = 200
MIN_ORACLE_DROPS = 200  # below it the oracle mostly picks noise, and the ratio to it says little
MAX_OPTIONS = 10
# Our guesses of what answers look like: a tenth of what is not known is believed all the same, as firmly as what is
# known; and a model that prefers letters prefers the first two.
SHARE_BELIEVED = 0.1
STRENGTH_SHAPE, STRENGTH_SCALE = 3.0, 2.0
LETTER_BONUS = (1.0, 0.5)
# Under another order every logit is drawn anew around what the item makes of the option; also our guess.
ORDER_NOISE = 1.0
# What the package does by default: chosen from the figures printed here.
FOLLOW_UP_SHARE = 0.5
SMALL_NUMS_ITEMS = (100, 300)  # where the added constant, w over the share, costs most
NUM_ROTATION_SEEDS = 50  # a seed costs more than above: up to ten answers an item, under many strategies


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One kind of question set and answerer.

    Attributes:
        num_options (`int`, *optional*): options of every item; `None` draws 2 to 10 for each item.
        share_known (`float`): share of the items whose text gives the answer away.
        has_letter_preference (`bool`): whether guesses lean to the first letters shown.
        num_copies (`int`): how many rows share one item's answer and gold, up to a small change of confidence. Above
            1 the rows are as dependent as rows of one video can be, and the theory does not cover them.
    """

    num_options: int | None
    share_known: float
    has_letter_preference: bool = False
    num_copies: int = 1


SETTINGS = tuple(
    Setting(num_options=num_options, share_known=share_known, has_letter_preference=has_letter_preference)
    for num_options, share_known, has_letter_preference in product(
        (2, 3, 4, 5, 6, 8, 10, None), (0.0, 0.1, 0.3, 0.5, 0.8), (False, True)
    )
)
DEPENDENT_SETTINGS = tuple(
    Setting(num_options=num_options, share_known=share_known, num_copies=5)
    for num_options, share_known in product((2, 4, 10, None), (0.0, 0.1, 0.3, 0.5, 0.8))
)


class Answers(NamedTuple):
    """Simulated answers: `is_known` is the truth, the rest is what `calibrate` is given. All of length N."""

    is_known: NDArray[np.bool_]
    is_right: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    decoy_weight: NDArray[np.float64]


class Content(NamedTuple):
    """What an answerer makes of each item before it sees letters: `logits` has one column an option, -inf beyond."""

    num_options: NDArray[np.int64]
    gold: NDArray[np.int64]
    is_known: NDArray[np.bool_]
    logits: NDArray[np.float64]


def draw_content(setting: Setting, rng: np.random.Generator, num_items: int) -> Content:
    """Draws noise for every option, plus a strength for the option believed."""
    num_options = (
        rng.integers(2, MAX_OPTIONS + 1, size=num_items)
        if setting.num_options is None
        else np.full(num_items, setting.num_options)
    )
    gold = rng.integers(num_options)
    is_known = rng.random(num_items) < setting.share_known
    is_believed = is_known | (rng.random(num_items) < SHARE_BELIEVED)
    believed = np.where(is_known, gold, rng.integers(num_options))
    logits = rng.normal(size=(num_items, MAX_OPTIONS))
    logits[np.arange(num_items), believed] += is_believed * rng.gamma(STRENGTH_SHAPE, STRENGTH_SCALE, size=num_items)
    logits[np.arange(MAX_OPTIONS) >= num_options[:, None]] = -np.inf
    return Content(num_options, gold, is_known, logits)


def simulate_answers(setting: Setting, rng: np.random.Generator, num_items: int = NUM_ITEMS) -> Answers:
    """Draws one answer to each item.

    Every option has a logit: noise, plus a bonus for its letter, plus a strength for the option believed. The
    believed option is the gold one where the item is known, and a random one, or none, where it is not. The
    options are shown in a random order, so the gold position is uniform.
    """
    num_options, gold, is_known, logits = draw_content(setting, rng, num_items // setting.num_copies)
    if setting.has_letter_preference:
        logits[:, : len(LETTER_BONUS)] += LETTER_BONUS
    rows = np.arange(gold.size)
    answer = logits.argmax(axis=1)
    # Log of the answer's probability over the mean of the others': 0 for a blank mind, whatever the option count.
    own = logits[rows, answer]
    logits[rows, answer] = -np.inf
    confidence = own - np.log(np.exp(logits).sum(axis=1) / (num_options - 1))

    copies = np.repeat(rows, setting.num_copies)
    confidence = confidence[copies] + 0.01 * rng.normal(size=copies.size)
    return Answers(is_known[copies], (answer == gold)[copies], confidence, 1 / (num_options - 1)[copies])


class Outcome(NamedTuple):
    """What was dropped: how many rows, and the share of them that were not known (0 without drops).

    `thinned` is the rule that is exact for mixed option counts too: each wrong row stays a decoy with probability
    weight / largest weight, and then counts as the largest weight.
    """

    num_drops: float
    lucky_share: float
    oracle_drops: float
    thinned_drops: float
    thinned_lucky_share: float
    single_shot_drops: float
    single_shot_lucky_share: float


class Applied(NamedTuple):
    """What the rule dropped: how many rows, the share of them not known (0 without drops), and what an oracle drops.

    The oracle takes the threshold that drops most with a true lucky share of at most `alpha`.
    """

    num_drops: int
    lucky_share: float
    oracle_drops: int


def apply_rule(answers: Answers, alpha: float = ALPHA) -> Applied:
    cuts = list_cuts(answers.is_right, answers.confidence, answers.decoy_weight)
    lucky_confidences = np.sort(answers.confidence[answers.is_right & ~answers.is_known])
    lucky_share = (lucky_confidences.size - np.searchsorted(lucky_confidences, cuts.threshold)) / cuts.num_drops
    oracle_drops = int(cuts.num_drops[lucky_share <= alpha].max(initial=0))
    chosen = cuts.choose(alpha)
    if chosen is None:
        return Applied(0, 0.0, oracle_drops)
    return Applied(int(cuts.num_drops[chosen]), float(lucky_share[chosen]), oracle_drops)


def judge_answers(answers: Answers, rng: np.random.Generator) -> Outcome:
    """Applies the rule, its thinned variant and `single_shot`."""
    is_known, is_right, confidence, weight = answers
    is_kept = is_right | (rng.random(weight.size) < weight / weight.max())
    thinned = Answers(is_known[is_kept], is_right[is_kept], confidence[is_kept], np.full(is_kept.sum(), weight.max()))
    applied, thinned_applied = apply_rule(answers), apply_rule(thinned)
    return Outcome(
        num_drops=applied.num_drops,
        lucky_share=applied.lucky_share,
        oracle_drops=applied.oracle_drops,
        thinned_drops=thinned_applied.num_drops,
        thinned_lucky_share=thinned_applied.lucky_share,
        single_shot_drops=int(is_right.sum()),
        single_shot_lucky_share=int((is_right & ~is_known).sum()) / max(int(is_right.sum()), 1),
    )


def run_setting(setting: Setting, num_seeds: int = NUM_SEEDS, num_items: int = NUM_ITEMS) -> dict[str, Any]:
    """Averages runs of one setting; `lucky_share_error` is the standard error of the average share."""
    outcomes = []
    for seed in range(num_seeds):
        rng = np.random.default_rng(seed)
        outcomes.append(judge_answers(simulate_answers(setting, rng, num_items), rng))
    mean = Outcome(*np.mean(outcomes, axis=0).tolist())
    error = np.std([outcome.lucky_share for outcome in outcomes], ddof=1) / np.sqrt(num_seeds)
    return {**asdict(setting), **mean._asdict(), "lucky_share_error": float(error)}


class Rotations(NamedTuple):
    """Simulated answers under every rotation of the options, in the order of asking; nan where there is none.

    `choices` are original options, `log_odds` those of the first choice; the first choice is the candidate.
    """

    num_options: NDArray[np.int64]
    is_known: NDArray[np.bool_]
    is_right: NDArray[np.bool_]
    choices: NDArray[np.float64]
    log_odds: NDArray[np.float64]


def simulate_rotations(setting: Setting, rng: np.random.Generator, num_items: int = NUM_ITEMS) -> Rotations:
    """Asks each item once a rotation: the same content each time, with fresh noise, and letters at other options."""
    num_options, gold, is_known, content = draw_content(setting, rng, num_items)
    orders = np.arange(num_options.max())
    logits = content[:, None, : orders.size] + ORDER_NOISE * rng.normal(size=(num_items, orders.size, orders.size))
    if setting.has_letter_preference:
        bonus = np.zeros(orders.size)
        bonus[: len(LETTER_BONUS)] = LETTER_BONUS
        shift = rng.integers(num_options)[:, None, None] + orders[:, None]
        logits += bonus[(orders - shift) % num_options[:, None, None]]
    choices = logits.argmax(axis=2)
    log_odds = measure_log_odds(logits, np.repeat(choices[:, :1], orders.size, axis=1))
    is_asked = orders < num_options[:, None]
    return Rotations(
        num_options,
        is_known,
        choices[:, 0] == gold,
        np.where(is_asked, choices, np.nan),
        np.where(is_asked, log_odds, np.nan),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How much is asked, and what is made of it.

    Attributes:
        has_log_odds (`bool`): whether the answerer gives probabilities, or letters only.
        follow_up_share (`float`, *optional*): share of the wrong rows that are asked on; `None` asks every order of
            every row and counts all answers, those after the first that differs too.
        num_orders (`int`, *optional*): orders at most; `None` is every rotation.
    """

    has_log_odds: bool
    follow_up_share: float | None
    num_orders: int | None = None


STRATEGIES = (
    *(Strategy(has_log_odds=has_log_odds, follow_up_share=1.0, num_orders=1) for has_log_odds in (True, False)),
    *(
        Strategy(has_log_odds=has_log_odds, follow_up_share=share)
        for has_log_odds, share in product((True, False), (None, 1.0, 0.75, 0.5, 0.25))
    ),
    *(
        Strategy(has_log_odds=has_log_odds, follow_up_share=FOLLOW_UP_SHARE, num_orders=num_orders)
        for has_log_odds, num_orders in product((True, False), (2, 3, 4))
    ),
)


def ask_rotations(rotations: Rotations, strategy: Strategy, coins: NDArray[np.float64]) -> tuple[Answers, float]:
    """What the rule is given by a strategy, and the calls made. `coins` decide which wrong rows are followed up."""
    num_options, is_known, is_right, choices, log_odds = rotations
    choices, log_odds = choices[:, : strategy.num_orders], log_odds[:, : strategy.num_orders]
    weight = 1 / (num_options - 1)
    if strategy.follow_up_share is None:
        repeats = (choices[:, 1:] == choices[:, :1]).sum(axis=1) * np.log(num_options)
        confidence = np.nansum(log_odds, axis=1) if strategy.has_log_odds else repeats
        return Answers(is_known, is_right, confidence, weight), float(num_options.sum())
    # Asking stops at the first answer that differs.
    repeats = np.logical_and.accumulate(choices == choices[:, :1], axis=1)
    num_later_calls = (repeats[:, :-1] & ~np.isnan(choices[:, 1:])).sum(axis=1)
    confidence = measure_agreement(choices, num_options, log_odds if strategy.has_log_odds else None)
    has_say = is_right | (coins < strategy.follow_up_share)
    answers = Answers(*(column[has_say] for column in (is_known, is_right, confidence, weight)))
    answers = answers._replace(decoy_weight=answers.decoy_weight / strategy.follow_up_share)
    return answers, float(choices.shape[0] + num_later_calls[has_say].sum())


def run_rotations(setting: Setting, num_seeds: int = NUM_ROTATION_SEEDS, num_items: int = NUM_ITEMS) -> dict[str, Any]:
    """Averages runs of one setting under every strategy; calls are over those of asking every rotation.

    `minimum_calls` asks every row once and the known ones every rotation.
    """
    applied = np.empty((num_seeds, len(STRATEGIES), 4))
    minimum = np.empty(num_seeds)
    for seed in range(num_seeds):
        rng = np.random.default_rng(seed)
        rotations = simulate_rotations(setting, rng, num_items)
        coins = rng.random(num_items)
        all_calls = rotations.num_options.sum()
        minimum[seed] = (num_items + (rotations.num_options - 1)[rotations.is_known].sum()) / all_calls
        for column, strategy in enumerate(STRATEGIES):
            answers, num_calls = ask_rotations(rotations, strategy, coins)
            applied[seed, column] = (*apply_rule(answers), num_calls / all_calls)
    means, errors = applied.mean(axis=0).tolist(), applied[:, :, 1].std(axis=0, ddof=1) / np.sqrt(num_seeds)
    strategies = [
        asdict(strategy)
        | dict(zip(("num_drops", "lucky_share", "oracle_drops", "calls"), mean, strict=True))
        | {"lucky_share_error": float(error)}
        for strategy, mean, error in zip(STRATEGIES, means, errors, strict=True)
    ]
    return asdict(setting) | {"num_items": num_items, "minimum_calls": float(minimum.mean()), "strategies": strategies}


def summarize(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The two figures the rule is held to: its largest share of lucky drops, and its drops over the oracle's."""
    worst = max(rows, key=lambda row: row["lucky_share"])
    large = [row for row in rows if row["oracle_drops"] >= MIN_ORACLE_DROPS]
    return {
        "largest_lucky_share": worst["lucky_share"],
        "largest_lucky_share_error": worst["lucky_share_error"],
        "num_settings_above_alpha": sum(row["lucky_share"] > ALPHA for row in rows),
        "num_settings": len(rows),
        "drops_over_oracle": sum(row["num_drops"] for row in large) / sum(row["oracle_drops"] for row in large),
        "num_settings_over_oracle": len(large),
    }


def summarize_strategies(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of each strategy over all settings.

    Drops are compared with those of counting every order's answer with the same evidence, and with its oracle's.
    `largest_calls` is taken over the settings with five or more options, or mixed, and at most 30 % known.
    """
    summaries = []
    for column, strategy in enumerate(STRATEGIES):
        full = next(
            index
            for index, other in enumerate(STRATEGIES)
            if other.follow_up_share is None and other.has_log_odds == strategy.has_log_odds
        )
        ours = [row["strategies"][column] for row in rows]
        theirs = [row["strategies"][full] for row in rows]
        worst = max(ours, key=lambda one: one["lucky_share"])
        num_drops = sum(one["num_drops"] for one in ours)
        summaries.append(
            asdict(strategy)
            | {
                "largest_lucky_share": worst["lucky_share"],
                "largest_lucky_share_error": worst["lucky_share_error"],
                "num_settings_above_alpha": sum(one["lucky_share"] > ALPHA for one in ours),
                "drops_over_every_order": num_drops / sum(one["num_drops"] for one in theirs),
                "drops_over_oracle": num_drops / sum(one["oracle_drops"] for one in theirs),
                "calls": sum(one["calls"] for one in ours) / len(ours),
                "largest_calls": max(
                    one["calls"]
                    for row, one in zip(rows, ours, strict=True)
                    if (row["num_options"] or MAX_OPTIONS) >= 5 and row["share_known"] <= 0.3
                ),
            }
        )
    return summaries


def main() -> None:
    started = time.perf_counter()
    rows = [run_setting(setting) for setting in SETTINGS]
    dependent_rows = [run_setting(setting) for setting in DEPENDENT_SETTINGS]
    rotation_rows = [run_rotations(setting) for setting in SETTINGS]
    small_rows = {
        num_items: [
            run_rotations(setting, num_items=num_items) for setting in SETTINGS if not setting.has_letter_preference
        ]
        for num_items in SMALL_NUMS_ITEMS
    }
    result = {
        "alpha": ALPHA,
        "num_items": NUM_ITEMS,
        "num_seeds": NUM_SEEDS,
        **summarize(rows),
        "dependent": summarize(dependent_rows),
        "num_rotation_seeds": NUM_ROTATION_SEEDS,
        "rotations": summarize_strategies(rotation_rows),
        "small_sets": {num_items: summarize_strategies(small) for num_items, small in small_rows.items()},
        "seconds": time.perf_counter() - started,
        "settings": rows,
        "dependent_settings": dependent_rows,
        "rotation_settings": rotation_rows,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
