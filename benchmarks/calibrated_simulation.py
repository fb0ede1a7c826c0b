"""Shows on simulated answers that `calibrated(0.05)` keeps its share of lucky drops, and how close it is to an oracle.

No answerer, no data: every row's truth is planted. Prints one JSON line; under a minute on one core.
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

from vidground_hf.stats.calibration import Cuts, list_cuts

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


def simulate_answers(setting: Setting, rng: np.random.Generator, num_items: int = NUM_ITEMS) -> Answers:
    """Draws one answer to each item.

    Every option has a logit: noise, plus a bonus for its letter, plus a strength for the option believed. The
    believed option is the gold one where the item is known, and a random one, or none, where it is not. The
    options are shown in a random order, so the gold position is uniform.
    """
    num_distinct = num_items // setting.num_copies
    num_options = (
        rng.integers(2, MAX_OPTIONS + 1, size=num_distinct)
        if setting.num_options is None
        else np.full(num_distinct, setting.num_options)
    )
    rows = np.arange(num_distinct)
    gold = rng.integers(num_options)
    is_known = rng.random(num_distinct) < setting.share_known
    is_believed = is_known | (rng.random(num_distinct) < SHARE_BELIEVED)
    believed = np.where(is_known, gold, rng.integers(num_options))

    logits = rng.normal(size=(num_distinct, MAX_OPTIONS))
    if setting.has_letter_preference:
        logits[:, : len(LETTER_BONUS)] += LETTER_BONUS
    logits[rows, believed] += is_believed * rng.gamma(STRENGTH_SHAPE, STRENGTH_SCALE, size=num_distinct)
    logits[np.arange(MAX_OPTIONS) >= num_options[:, None]] = -np.inf
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


def judge_answers(answers: Answers, rng: np.random.Generator, alpha: float = ALPHA) -> Outcome:
    """Applies the rule, and the oracle: the threshold that drops most with a true lucky share of at most `alpha`."""
    is_known, is_right, confidence, weight = answers
    lucky_confidences = np.sort(confidence[is_right & ~is_known])

    def share_luck(cuts: Cuts) -> NDArray[np.float64]:
        return (lucky_confidences.size - np.searchsorted(lucky_confidences, cuts.threshold)) / cuts.num_drops

    def measure(cuts: Cuts) -> tuple[int, float]:
        chosen = cuts.choose(alpha)
        return (0, 0.0) if chosen is None else (int(cuts.num_drops[chosen]), float(share_luck(cuts)[chosen]))

    cuts = list_cuts(is_right, confidence, weight)
    is_kept = is_right | (rng.random(weight.size) < weight / weight.max())
    thinned = list_cuts(is_right[is_kept], confidence[is_kept], np.full(is_kept.sum(), weight.max()))
    num_drops, lucky_share = measure(cuts)
    thinned_drops, thinned_lucky_share = measure(thinned)
    return Outcome(
        num_drops=num_drops,
        lucky_share=lucky_share,
        oracle_drops=int(cuts.num_drops[share_luck(cuts) <= alpha].max(initial=0)),
        thinned_drops=thinned_drops,
        thinned_lucky_share=thinned_lucky_share,
        single_shot_drops=int(is_right.sum()),
        single_shot_lucky_share=lucky_confidences.size / max(int(is_right.sum()), 1),
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


def main() -> None:
    started = time.perf_counter()
    rows = [run_setting(setting) for setting in SETTINGS]
    dependent_rows = [run_setting(setting) for setting in DEPENDENT_SETTINGS]
    result = {
        "alpha": ALPHA,
        "num_items": NUM_ITEMS,
        "num_seeds": NUM_SEEDS,
        **summarize(rows),
        "dependent": summarize(dependent_rows),
        "seconds": time.perf_counter() - started,
        "settings": rows,
        "dependent_settings": dependent_rows,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
