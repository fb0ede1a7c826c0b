"""The blind-visual gap of one model in numbers: accuracies, paired tests, and what chance and luck account for.

Answers are scores here; finding out what an answer says is not done here. `docs/design/gap.md` derives the formulas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

from vidground_hf.stats.resampling import BLOCK_VALUES, ROUNDING, Interval, bootstrap_ratios

# From this score on an answer is right in the two-by-two table, in VG and in TA. Choices score 0 or 1; for graded
# scores (word error rate, ROUGE, relative error) the middle is our choice.
RIGHT_SCORE = 0.5

Floats = NDArray[np.float64]
Ratios = dict[str, tuple[Floats, Floats]]


class GapSettings(NamedTuple):
    """How intervals and sign flips are drawn.

    Attributes:
        num_resamples (`int`): bootstrap resamples, and sign flips; at least 1.
        confidence (`float`): of every interval, in (0, 1).
        seed (`int`): the same seed gives the same figures (to rounding), whatever the order of rows.
    """

    num_resamples: int = 10_000
    confidence: float = 0.95
    seed: int = 0


DEFAULT_SETTINGS = GapSettings()


def run_mcnemar(num_blind_only: int, num_visual_only: int) -> float:
    """McNemar's exact test: are blind and visual answers right equally often?

    Args:
        num_blind_only (`int`): rows right only without the video.
        num_visual_only (`int`): rows right only with it.

    Returns:
        `float`: the two-sided p-value, twice the smaller tail of a fair coin and at most 1 (McNemar 1947; exact form:
        Agresti 2002, section 10.1).

    Example:
        >>> run_mcnemar(0, 5)
        0.0625
    """
    return min(1.0, 2 * float(bdtr(min(num_blind_only, num_visual_only), num_blind_only + num_visual_only, 0.5)))


def run_sign_flips(
    differences: Floats, clusters: NDArray[np.int64], *, num_flips: int = 10_000, seed: int = 0
) -> float:
    """Sign-flip test by cluster: is the mean difference 0, when rows of one cluster go together?

    If the video changes nothing, the summed difference of a cluster is as likely as its negative. Clusters whose sums
    are equally large are flipped together: how many of them turn positive is binomial.

    Args:
        differences (`float64[N]`): visual score minus blind score.
        clusters (`int64[N]`): the cluster of each row, in [0, C).
        num_flips (`int`, *optional*, defaults to 10000): at least 1.
        seed (`int`, *optional*, defaults to 0).

    Returns:
        `float`: the two-sided p-value (1 + flips at least as extreme) / (1 + flips), so never 0 (Phipson and Smyth
        2010).

    Example:
        >>> run_sign_flips(np.array([1.0, 1.0, -1.0, -1.0]), np.array([0, 0, 1, 1]), num_flips=9)
        1.0
    """
    sums = np.bincount(clusters, weights=differences)
    sizes, times = np.unique(np.abs(sums).round(9), return_counts=True)
    rng = np.random.default_rng(seed)
    num_extreme = 0
    block = max(1, BLOCK_VALUES // len(sizes))
    for start in range(0, num_flips, block):
        num_positive = rng.binomial(times, 0.5, size=(min(block, num_flips - start), len(sizes)))
        flipped = (2 * num_positive - times) @ sizes
        num_extreme += int((np.abs(flipped) >= abs(sums.sum()) - ROUNDING * len(sums)).sum())
    return (1 + num_extreme) / (1 + num_flips)


def summarize_gap(
    visual: Floats,
    blind: Floats,
    chance: Floats,
    *,
    clusters: NDArray[np.int64] | None = None,
    base: Floats | None = None,
    views: Mapping[str, Floats] | None = None,
    settings: GapSettings = DEFAULT_SETTINGS,
) -> dict[str, Any]:
    """Compares the scores of one model with and without the video, on the same rows.

    Args:
        visual (`float64[N]`): scores with the video, in [0, 1].
        blind (`float64[N]`): scores without it.
        chance (`float64[N]`): expected score of a uniform guess; nan where it is not known, 1 where there is nothing
            to choose. Such rows are left out of everything that is corrected for chance.
        clusters (`int64[N]`, *optional*): the cluster (video) of each row, in [0, C).
        base (`float64[N]`, *optional*): scores of the text-only model that this one was built on.
        views (`Mapping[str, float64[N]]`, *optional*): scores under further views, by name.
        settings (`GapSettings`, *optional*).

    Returns:
        `dict`: fractions as `float` with `_low` and `_high` beside them, counts as `int`, `None` where undefined.

    Example:
        >>> visual, blind = np.array([1.0, 1.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0])
        >>> result = summarize_gap(visual, blind, np.full(4, 0.25))
        >>> result["gap"], result["vg_accuracy"], result["mcnemar_p"]
        (0.5, 0.6666666666666666, 0.5)
    """
    is_seen, is_guessed = visual >= RIGHT_SCORE, blind >= RIGHT_SCORE
    blind_only, visual_only = int((is_guessed & ~is_seen).sum()), int((is_seen & ~is_guessed).sum())
    mcnemar_p = run_mcnemar(blind_only, visual_only) if len(visual) else None
    p_value = mcnemar_p
    if clusters is not None and len(visual):
        p_value = run_sign_flips(visual - blind, clusters, num_flips=settings.num_resamples, seed=settings.seed)
    has_chance = chance < 1
    intervals = _bootstrap(_list_gap_ratios, (visual, blind, chance), clusters, settings)
    if base is None:
        leakage = dict.fromkeys(("base_accuracy", "multimodal_leakage"), Interval(None, None, None))
    else:
        leakage = _bootstrap(_list_leakage_ratios, (blind, base), clusters, settings)
        leakage["multimodal_leakage"] = Interval(
            *(None if bound is None else max(0.0, bound) for bound in leakage["multimodal_leakage"])
        )
    return {
        **_flatten(intervals),
        "p_value": p_value,
        "mcnemar_p": mcnemar_p,
        "both": int((is_seen & is_guessed).sum()),
        "blind_only": blind_only,
        "visual_only": visual_only,
        "neither": int((~is_seen & ~is_guessed).sum()),
        "chance": float(chance[has_chance].mean()) if has_chance.any() else None,
        "num_without_chance": int((~has_chance).sum()),
        "multimodal_gain": intervals["gap"].value,
        **_flatten(leakage),
        "views": {
            name: _flatten(_bootstrap(_list_view_ratios, (visual, scores, chance), clusters, settings))
            for name, scores in (views or {}).items()
        },
    }


def _list_gap_ratios(visual: Floats, blind: Floats, chance: Floats) -> Ratios:
    known = (chance < 1).astype(np.float64)
    chance = np.where(known > 0, chance, 0.0)
    wrong = (blind < RIGHT_SCORE).astype(np.float64)
    right = 1 - wrong
    # A blind guess is wrong with probability 1 - chance, so each wrong row stands for this many guessed rows.
    guessed = known * wrong / (1 - chance)
    ratios = {
        "visual_accuracy": (visual, np.ones_like(visual)),
        "blind_accuracy": (blind, np.ones_like(visual)),
        "gap": (visual - blind, np.ones_like(visual)),
        "vg_accuracy": (wrong * visual, wrong),
        "ta_accuracy": (right * visual, right),
    }
    above = {
        "visual_accuracy": (visual - chance, 1 - chance),
        "blind_accuracy": (blind - chance, 1 - chance),
        "gap": (visual - blind, 1 - chance),
        "vg_accuracy": (wrong * (visual - chance), wrong * (1 - chance)),
        "ta_accuracy": (right * (visual - chance), right * (1 - chance)),
    }
    ratios |= {f"{name}_above_chance": (known * top, known * bottom) for name, (top, bottom) in above.items()}
    return ratios | {
        "vg_accuracy_corrected": (guessed * visual, guessed),
        "ta_accuracy_corrected": (
            (known * right - guessed * chance) * visual,
            known * right - guessed * chance,
        ),
    }


def _list_leakage_ratios(blind: Floats, base: Floats) -> Ratios:
    ones = np.ones_like(blind)
    return {"base_accuracy": (base, ones), "multimodal_leakage": (blind - base, ones)}


def _list_view_ratios(visual: Floats, scores: Floats, chance: Floats) -> Ratios:
    known = (chance < 1).astype(np.float64)
    chance, ones = np.where(known > 0, chance, 0.0), np.ones_like(visual)
    return {
        "accuracy": (scores, ones),
        "accuracy_above_chance": (known * (scores - chance), known * (1 - chance)),
        "gap": (visual - scores, ones),
    }


def _bootstrap(
    list_ratios: Callable[..., Ratios],
    columns: tuple[Floats, ...],
    clusters: NDArray[np.int64] | None,
    settings: GapSettings,
) -> dict[str, Interval]:
    kinds = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        values, places = np.unique(column, return_inverse=True)
        _, kinds = np.unique(kinds * len(values) + places, return_inverse=True)
    _, first = np.unique(kinds, return_index=True)
    ratios = list_ratios(*(column[first] for column in columns))
    tops, bottoms = (np.stack(part, axis=1) for part in zip(*ratios.values(), strict=True))
    return dict(zip(ratios, bootstrap_ratios(tops, bottoms, kinds, clusters, **settings._asdict()), strict=True))


def _flatten(intervals: Mapping[str, Interval]) -> dict[str, float | None]:
    return {
        name + suffix: bound
        for name, interval in intervals.items()
        for suffix, bound in zip(("", "_low", "_high"), interval, strict=True)
    }
