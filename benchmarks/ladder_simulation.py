"""Shows on simulated answers how many labels of the ladder are luck, how many are right, and what they cost, by rule.

No answerer, no data: what each row needs is planted. Prints one JSON line; about a minute on one core.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidground_hf.set_rules import FOLLOWED_SHARE, MAX_ROWS_FOLLOWED
from vidground_hf.stats.agreement import measure_agreement, measure_log_odds
from vidground_hf.stats.calibration import list_cuts

ALPHA = 0.05
NUM_VIEWS = 6
NUM_SEEDS = 10
UNDECIDED = -1
# Our guesses at a set: which share needs which view, and, last, which nothing answers.
SHARES = (0.05, 0.25, 0.05, 0.2, 0.15, 0.15, 0.15)
# As in calibrated_simulation.py: what is believed is believed firmly, and every order adds noise of its own.
STRENGTH_SHAPE, STRENGTH_SCALE = 3.0, 2.0
ORDER_NOISE = 1.0
SHARED_NOISE = 0.5  # of the variance of what a model makes of an option, what it makes of it under every view
FIRST_WITH_QUESTION = 1  # the first of the views that shows more than the options
RULED_OUT = 10.0  # how much less a logit is of an option that is ruled out
RULES = ("single_shot", "circular", "calibrated", "calibrated_labels_all", "calibrated_by_views")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One kind of set and answerer.

    Attributes:
        num_rows (`int`): rows of the set.
        num_options (`int`): options of every row.
        share_believed (`float`): share of the rows for which a view that does not tell makes the model sure of a
            random option.
        is_belief_fresh (`bool`): whether each view makes it sure of another one.
        has_probabilities (`bool`): whether the answers state option probabilities.
        share_narrowed (`float`, *optional*, defaults to 0): share of the rows of which the question and every later
            view rule out all but two options.
    """

    num_rows: int
    num_options: int
    share_believed: float
    is_belief_fresh: bool
    has_probabilities: bool
    share_narrowed: float = 0.0


SETTINGS = tuple(
    Setting(
        num_rows=num_rows,
        num_options=num_options,
        share_believed=share_believed,
        is_belief_fresh=is_belief_fresh,
        has_probabilities=has_probabilities,
    )
    for num_rows, num_options, (share_believed, is_belief_fresh), has_probabilities in product(
        (300, 2000), (3, 4, 8), ((0.0, False), (0.1, False), (0.1, True), (0.3, True)), (False, True)
    )
)


NARROWED_SETTINGS = tuple(
    Setting(
        num_rows=2000,
        num_options=num_options,
        share_believed=share_believed,
        is_belief_fresh=False,
        has_probabilities=True,
        share_narrowed=0.2,
    )
    for num_options, share_believed in product((3, 4, 8), (0.0, 0.3))
)


class Answers(NamedTuple):
    """One view's answers by order: `choices` (`int64[N, K]`), and `log_odds` (`float64[N, K]`) of the first choice."""

    choices: NDArray[np.int64]
    log_odds: NDArray[np.float64]


class Outcome(NamedTuple):
    """What a rule made of a set.

    Attributes:
        labels (`float`): rows that got the label of a view.
        lucky_share (`float`), high_share (`float`): of them, those below what the row needs, and above it.
        recovered (`float`): of the rows that a view tells, those with the right label.
        undecided (`float`): of all rows, those without a label.
        answers_per_row (`float`): how many were taken.
    """

    labels: float
    lucky_share: float
    high_share: float
    recovered: float
    undecided: float
    answers_per_row: float


def simulate(setting: Setting, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64], list[Answers]]:
    """Draws what each row needs (`int64[N]`, `NUM_VIEWS` for nothing), its gold option, and the answers by view."""
    count, options = setting.num_rows, setting.num_options
    needs = rng.choice(NUM_VIEWS + 1, size=count, p=SHARES)
    gold = rng.integers(options, size=count)
    rows = np.arange(count)
    strength = rng.gamma(STRENGTH_SHAPE, STRENGTH_SCALE, size=count)
    is_believed = rng.random(count) < setting.share_believed
    believed = rng.integers(options, size=count)
    shared = rng.normal(size=(count, options))
    is_left = np.ones((count, options), dtype=bool)
    if setting.share_narrowed:
        is_narrowed = rng.random(count) < setting.share_narrowed
        rival = (gold + rng.integers(1, options, size=count)) % options
        is_left[is_narrowed] = False
        is_left[rows, gold] = is_left[rows, rival] = True
        believed = np.where(is_narrowed, np.where(rng.random(count) < 0.5, gold, rival), believed)
    views = []
    for view in range(NUM_VIEWS):
        if setting.is_belief_fresh:
            believed = rng.integers(options, size=count)
        own = rng.normal(size=(count, options))
        content = math.sqrt(SHARED_NOISE) * shared + math.sqrt(1 - SHARED_NOISE) * own
        is_told = needs <= view
        content[rows, np.where(is_told, gold, believed)] += np.where(is_told | is_believed, strength, 0.0)
        if view >= FIRST_WITH_QUESTION:
            content[~is_left] -= RULED_OUT
        logits = content[:, None, :] + ORDER_NOISE * rng.normal(size=(count, count_orders(options), options))
        choices = logits.argmax(axis=2)
        first = np.broadcast_to(choices[:, :1], choices.shape)
        views.append(Answers(choices, measure_log_odds(logits, first)))
    return needs, gold, views


def count_orders(num_options: int) -> int:
    """Every rotation, or as many orders as it takes for a guesser to be right by luck in ALPHA / NUM_VIEWS of all."""
    return max(num_options, math.ceil(math.log(ALPHA / NUM_VIEWS) / -math.log(num_options)))


def climb(
    rule: str, setting: Setting, gold: NDArray[np.int64], views: list[Answers], rng: np.random.Generator
) -> tuple[NDArray[np.int64], int]:
    """Labels the rows by one rule: `int64[N]`, `NUM_VIEWS` where no view answers, and how many answers it took."""
    labels = np.full(gold.size, NUM_VIEWS)
    is_open = np.ones(gold.size, dtype=bool)
    num_answers = 0
    for view, answers in enumerate(views):
        rows = np.flatnonzero(is_open)
        right = answers.choices[rows] == gold[rows, None]
        if rule == "single_shot":
            answered, taken = right[:, 0], np.ones(rows.size, dtype=int)
        elif rule == "circular":
            answered = right.all(axis=1)
            taken = np.where(answered, right.shape[1], right.argmin(axis=1) + 1)
        else:
            alpha = ALPHA / NUM_VIEWS if rule == "calibrated_by_views" else ALPHA
            answered, taken = judge_calibrated(setting, answers, rows, right[:, 0], alpha, rng)
        num_answers += int(taken.sum())
        labels[rows[answered]] = view
        is_open[rows[answered]] = False
        if rule == "calibrated":
            torn = rows[right[:, : setting.num_options].all(axis=1) & ~answered]
            labels[torn] = UNDECIDED
            is_open[torn] = False
    return labels, num_answers


def judge_calibrated(
    setting: Setting,
    answers: Answers,
    rows: NDArray[np.int64],
    is_right: NDArray[np.bool_],
    alpha: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """What `calibrated` says of the open rows, and how many answers of each it reads."""
    options = setting.num_options
    share = FOLLOWED_SHARE if rows.size > MAX_ROWS_FOLLOWED else 1.0
    has_say = is_right | (rng.random(rows.size) < share)
    choices = answers.choices[rows, :options].astype(float)
    repeats = np.logical_and.accumulate(choices == choices[:, :1], axis=1)
    taken = np.where(has_say, np.minimum(repeats.sum(axis=1) + 1, options), 1)
    odds = answers.log_odds[rows, :options] if setting.has_probabilities else None
    confidence = measure_agreement(choices, np.full(rows.size, options), odds)
    weights = np.full(int(has_say.sum()), 1 / (options - 1) / share)
    cuts = list_cuts(is_right[has_say], confidence[has_say], weights)
    chosen = cuts.choose(alpha)
    if chosen is None:
        return np.zeros(rows.size, dtype=bool), taken
    return is_right & (confidence >= cuts.threshold[chosen]), taken


def measure(setting: Setting, rule: str, num_seeds: int = NUM_SEEDS) -> Outcome:
    """Averages over the seeds; a run without labels has no lucky ones."""
    outcomes = []
    for seed in range(num_seeds):
        rng = np.random.default_rng(seed)
        needs, gold, views = simulate(setting, rng)
        labels, num_answers = climb(rule, setting, gold, views, rng)
        is_labelled = (labels < NUM_VIEWS) & (labels != UNDECIDED)
        lucky = is_labelled & (labels < needs)
        high = is_labelled & (labels > needs)
        can_answer = needs < NUM_VIEWS
        outcomes.append(
            Outcome(
                labels=float(is_labelled.sum()),
                lucky_share=float(lucky.sum() / max(1, is_labelled.sum())),
                high_share=float(high.sum() / max(1, is_labelled.sum())),
                undecided=float((labels == UNDECIDED).mean()),
                recovered=float((labels == needs)[can_answer].mean()),
                answers_per_row=num_answers / gold.size,
            )
        )
    return Outcome(*np.mean(outcomes, axis=0).tolist())


def main() -> None:
    started = time.perf_counter()
    figures = [
        asdict(setting) | {"rule": rule} | measure(setting, rule)._asdict()
        for setting in (*SETTINGS, *NARROWED_SETTINGS)
        for rule in RULES
    ]
    print(json.dumps({"alpha": ALPHA, "settings": figures, "seconds": round(time.perf_counter() - started, 1)}))


if __name__ == "__main__":
    main()
