"""The gap in numbers: exact values on small tables, parity of the tests, and what the formulas promise."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from vidground_hf.stats.gap import GapSettings, run_mcnemar, run_sign_flips, summarize_gap

QUICK = GapSettings(num_resamples=200)


def summarize(visual: Any, blind: Any, chance: Any = 0.25, **keywords: Any) -> dict[str, Any]:
    visual, blind = np.array(visual, dtype=float), np.array(blind, dtype=float)
    chance = np.broadcast_to(np.array(chance, dtype=float), visual.shape)
    return summarize_gap(visual, blind, chance, **{"settings": QUICK} | keywords)


@given(blind_only=st.integers(0, 400), visual_only=st.integers(0, 400))
def test_mcnemar_agrees_with_the_binomial_test(blind_only: int, visual_only: int) -> None:
    num_discordant = blind_only + visual_only
    expected = binomtest(visual_only, num_discordant, 0.5).pvalue if num_discordant else 1.0
    assert run_mcnemar(blind_only, visual_only) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_holds_for_a_million_rows() -> None:
    assert run_mcnemar(250_000, 250_000) == 1.0
    assert 0.0 <= run_mcnemar(240_000, 260_000) < 1e-100


def flip_all_signs(sums: list[float]) -> float:
    """The exact two-sided p-value: every one of the 2**C flips."""
    flips = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=len(sums))]
    return float(np.mean([flip >= abs(sum(sums)) - 1e-9 for flip in flips]))


@pytest.mark.parametrize("sums", [[1, 1, 1, 1, 1], [3, -1, 2, 0, 1], [0.25, -0.5, 1.75, 0.125], [2, -2]])
def test_sign_flips_agree_with_flipping_every_cluster_both_ways(sums: list[float]) -> None:
    p_value = run_sign_flips(np.array(sums, dtype=float), np.arange(len(sums)), num_flips=20_000)
    assert p_value == pytest.approx(flip_all_signs(sums), abs=0.015)


def test_sign_flips_agree_with_scipy_and_go_by_cluster() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(30), 4)
    differences = rng.integers(-1, 2, size=30)[clusters].astype(float)  # rows of a cluster all say the same
    sums = np.bincount(clusters, weights=differences)
    expected = permutation_test((sums,), np.sum, permutation_type="samples", n_resamples=5_000, rng=1).pvalue
    p_value = run_sign_flips(differences, clusters)
    assert p_value == pytest.approx(expected, abs=0.03)
    # Taking the four rows of a cluster as independent would overstate what is known.
    assert p_value > run_sign_flips(differences, np.arange(len(differences))) + 0.2


def test_sign_flip_p_is_never_zero_and_blocks_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    differences, clusters = np.ones(100), np.arange(100)
    assert run_sign_flips(differences, clusters, num_flips=99) == 0.01
    differences[:45] = -1
    whole = run_sign_flips(differences, clusters, num_flips=500)
    monkeypatch.setattr("vidground_hf.stats.gap.BLOCK_VALUES", 7)
    assert run_sign_flips(differences, clusters, num_flips=500) == whole


def test_every_figure_of_a_small_table() -> None:
    # n = 2, 2, 4, 4, 4 and an open-ended row; W holds rows 1, 3, 4, 5 and R rows 0, 2.
    visual, blind = [1, 1, 0, 1, 0, 1], [1, 0, 1, 0, 0, 0]
    result = summarize(visual, blind, [1 / 2, 1 / 2, 1 / 4, 1 / 4, 1 / 4, 0])
    counts = {key: result[key] for key in ("both", "blind_only", "visual_only", "neither", "num_without_chance")}
    assert counts == {"both": 1, "blind_only": 1, "visual_only": 3, "neither": 1, "num_without_chance": 0}
    assert result["visual_accuracy"] == pytest.approx(4 / 6)
    assert result["blind_accuracy"] == pytest.approx(2 / 6)
    assert result["gap"] == result["multimodal_gain"] == pytest.approx(2 / 6)
    assert result["mcnemar_p"] == result["p_value"] == pytest.approx(2 * (1 + 4) / 16)
    assert result["chance"] == pytest.approx(1.75 / 6)
    room = 6 - 1.75
    assert result["visual_accuracy_above_chance"] == pytest.approx((4 - 1.75) / room)
    assert result["blind_accuracy_above_chance"] == pytest.approx((2 - 1.75) / room)
    assert result["gap_above_chance"] == pytest.approx(2 / room)
    assert result["vg_accuracy"] == pytest.approx(3 / 4)
    assert result["ta_accuracy"] == pytest.approx(1 / 2)
    assert result["vg_accuracy_above_chance"] == pytest.approx((3 - 1) / (4 - 1))
    assert result["ta_accuracy_above_chance"] == pytest.approx((1 - 0.75) / (2 - 0.75))
    # n / (n - 1) over W: 2, 4/3, 4/3, 1; 1 / (n - 1): 1, 1/3, 1/3, 0.
    assert result["vg_accuracy_corrected"] == pytest.approx((2 + 4 / 3 + 1) / (2 + 4 / 3 + 4 / 3 + 1))
    assert result["ta_accuracy_corrected"] == pytest.approx((1 - (1 + 1 / 3)) / (2 - (1 + 2 / 3)))


def test_one_option_and_unknown_chance_are_left_out_of_what_chance_corrects() -> None:
    with_them = summarize([1, 0, 1, 0], [0, 0, 1, 1], [0.25, 0.25, 1.0, np.nan])
    without = summarize([1, 0], [0, 0], 0.25)
    assert with_them["num_without_chance"] == 2
    assert with_them["visual_accuracy"] == 0.5
    corrected = [key for key in without if key.endswith(("above_chance", "corrected"))]
    assert len(corrected) == 7
    assert {key: with_them[key] for key in corrected} == {key: without[key] for key in corrected}
    assert with_them["chance"] == 0.25
    unknown = summarize([1, 0], [0, 0], np.nan)
    assert {unknown[key] for key in [*corrected, "chance"]} == {None}
    assert unknown["vg_accuracy"] == 0.5


def test_ta_corrected_is_none_when_luck_explains_every_right_answer() -> None:
    # Two options: one wrong row stands for one lucky one, so no row is known.
    assert summarize([1, 1], [1, 0], 0.5)["ta_accuracy_corrected"] is None
    assert summarize([1, 1, 1], [1, 1, 0], 0.5)["ta_accuracy_corrected"] == 1.0


def test_graded_scores_are_right_from_one_half_on() -> None:
    result = summarize([0.5, 0.4, 0.9], [0.2, 0.6, 0.0], 0.0)
    assert (result["both"], result["blind_only"], result["visual_only"]) == (0, 1, 2)
    assert result["gap"] == pytest.approx((1.8 - 0.8) / 3)
    assert result["vg_accuracy"] == pytest.approx((0.5 + 0.9) / 2)


def test_leakage_is_above_the_base_model_and_never_negative() -> None:
    leaky = summarize([1, 1, 1, 0], [1, 1, 0, 0], base=np.array([1.0, 0.0, 0.0, 0.0]))
    assert (leaky["multimodal_gain"], leaky["multimodal_leakage"], leaky["base_accuracy"]) == (0.25, 0.25, 0.25)
    tight = summarize([1, 1, 1, 0], [1, 0, 0, 0], base=np.array([1.0, 1.0, 0.0, 0.0]))
    assert (tight["multimodal_leakage"], tight["multimodal_leakage_low"]) == (0.0, 0.0)
    assert summarize([1], [1])["multimodal_leakage"] is None


def test_views_are_compared_with_the_video() -> None:
    result = summarize([1, 1, 1, 0], [0, 0, 0, 0], views={"single_frame": np.array([1.0, 1.0, 0.0, 0.0])})
    view = result["views"]["single_frame"]
    assert (view["accuracy"], view["gap"]) == (0.5, 0.25)
    assert view["accuracy_above_chance"] == pytest.approx(1 / 3)
    assert list(view) == [f"{key}{end}" for key in ("accuracy", "accuracy_above_chance", "gap")
                          for end in ("", "_low", "_high")]  # fmt: skip


def test_no_rows_is_none_and_zero() -> None:
    result = summarize([], [], clusters=np.array([], dtype=np.int64))
    assert {value for key, value in result.items() if key != "views"} == {None, 0}


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.booleans(), st.booleans(), st.sampled_from([2, 3, 5]), st.integers(0, 6)), min_size=1, max_size=60
    ),
    seed=st.integers(0, 99),
)
def test_identities(rows: list[tuple[bool, bool, int, int]], seed: int) -> None:
    visual, blind, num_options, clusters = (np.array(column) for column in zip(*rows, strict=True))
    _, clusters = np.unique(clusters, return_inverse=True)
    result = summarize(visual, blind, 1 / num_options, clusters=clusters)
    num = len(rows)
    assert result["both"] + result["blind_only"] + result["visual_only"] + result["neither"] == num
    assert result["gap"] == pytest.approx((result["visual_only"] - result["blind_only"]) / num)
    assert -1 <= result["gap"] <= 1
    assert 0 < result["p_value"] <= 1
    for key in ("visual_accuracy", "blind_accuracy", "vg_accuracy", "ta_accuracy", "vg_accuracy_corrected"):
        assert result[key] is None or 0 <= result[key] <= 1
        assert result[f"{key}_low"] is None or result[f"{key}_low"] <= result[f"{key}_high"]
    order = np.random.default_rng(seed).permutation(num)
    shuffled = summarize(visual[order], blind[order], 1 / num_options[order], clusters=clusters[order])
    assert result.pop("views") == shuffled.pop("views") == {}
    assert result == pytest.approx(shuffled)
    swapped = summarize(blind, visual, 1 / num_options, clusters=clusters)
    assert swapped["gap"] == pytest.approx(-result["gap"])
    assert swapped["mcnemar_p"] == pytest.approx(result["mcnemar_p"])


@pytest.mark.parametrize("is_clustered", [True, False], ids=["clusters", "rows"])
@pytest.mark.parametrize("counts", [(2,), (4,), (10,), (2, 4, 10)], ids=str)
def test_a_guesser_is_at_zero_above_chance(counts: tuple[int, ...], is_clustered: bool) -> None:
    rng = np.random.default_rng(sum(counts))
    num_options = rng.choice(counts, size=4_000)
    visual, blind = (rng.integers(num_options) == 0 for _ in range(2))
    result = summarize(
        visual,
        blind,
        1 / num_options,
        clusters=np.arange(4_000) // 4 if is_clustered else None,
        settings=GapSettings(num_resamples=1_000, confidence=0.999),
    )
    for key in [key for key in result if key.endswith("above_chance")]:
        assert result[f"{key}_low"] <= 0 <= result[f"{key}_high"], key
    # Nothing is known blind, so the number of known rows is estimated as about none, and a guesser's VG* is chance on
    # the guessed rows, which are all rows.
    assert result["vg_accuracy_corrected_low"] <= result["chance"] <= result["vg_accuracy_corrected_high"]


def test_luck_is_taken_out_when_the_assumption_holds() -> None:
    """Half of the rows are known blind; of those the video gets 90 %, of the others 40 %; guesses are independent."""
    rng = np.random.default_rng(5)
    num_options = rng.choice([2, 4], size=60_000)
    is_known = rng.random(60_000) < np.where(num_options == 2, 0.7, 0.3)
    blind = is_known | (rng.integers(num_options) == 0)
    visual = rng.random(60_000) < np.where(is_known, 0.9, np.where(num_options == 2, 0.6, 0.3))
    result = summarize(visual, blind, 1 / num_options)
    truth = {"vg": visual[~is_known].mean(), "ta": visual[is_known].mean()}
    assert result["vg_accuracy_corrected"] == pytest.approx(truth["vg"], abs=0.01)
    assert result["ta_accuracy_corrected"] == pytest.approx(truth["ta"], abs=0.01)
    # The plain columns are off: luck moves rows with two options out of VG, and guessed rows into TA.
    assert abs(result["vg_accuracy"] - truth["vg"]) > 0.015
    assert result["ta_accuracy"] < truth["ta"] - 0.05
