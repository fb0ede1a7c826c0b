"""R@1, mIoU and mAP: exact tables, both modes, a plain-loop reference, and QVHighlights to the last digit."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.stats import temporal
from vidground_hf.stats.temporal import AP_IOU_THRESHOLDS, QVHIGHLIGHTS_LENGTH_RANGES, score_temporal_grounding
from vidground_hf.stats.windows import temporal_iou

Rows = list[list[list[float]]]

window = st.tuples(st.integers(0, 20), st.integers(1, 10)).map(lambda pair: [pair[0], pair[0] + pair[1]])
scored_windows = st.lists(window, max_size=4).flatmap(
    lambda row: st.permutations(range(len(row))).map(
        lambda ranks: [[*w, float(r)] for w, r in zip(row, ranks, strict=True)]
    )
)
rows = st.lists(st.tuples(scored_windows, st.lists(window, min_size=1, max_size=3)), min_size=1, max_size=4)


def find_average_precision(predicted: list[list[float]], annotated: list[list[float]], threshold: float) -> float:
    """The area under the interpolated precision and recall curve, by plain loops."""
    ranked, free, hits = sorted(predicted, key=lambda w: -w[2]), list(annotated), []
    for candidate in ranked:
        best = max(free, key=lambda g: float(temporal_iou(candidate[:2], g)), default=None)
        hit = best is not None and float(temporal_iou(candidate[:2], best)) >= threshold
        if hit and best is not None:
            free.remove(best)
        hits.append(hit)
    points = [(sum(hits[: k + 1]) / len(annotated), sum(hits[: k + 1]) / (k + 1)) for k in range(len(hits))]
    levels = sorted({recall for recall, _ in points if recall > 0})
    steps = np.diff([0.0, *levels])
    return sum(
        step * max(p for recall, p in points if recall >= level) for step, level in zip(steps, levels, strict=True)
    )


def test_the_best_of_several_reference_windows_counts() -> None:
    scores = score_temporal_grounding([[[0, 10]], [[4, 6]]], [[[0, 8]], [[3, 5], [4, 6.5], [20, 30]]])
    assert (scores["r1@0.3"], scores["r1@0.5"], scores["r1@0.7"], scores["miou"]) == (1.0, 1.0, 1.0, 0.8)
    assert (scores["num_examples"], scores["num_missing"], scores["num_unscored"]) == (2, 0, 0)


def test_an_overlap_on_the_threshold_counts() -> None:
    assert score_temporal_grounding([[[0, 10]]], [[[0, 7]]])["r1@0.7"] == 1.0
    assert score_temporal_grounding([[[0, 10]]], [[[0, 6.9]]])["r1@0.7"] == 0.0


def test_rounding_windows_before_changes_the_figure() -> None:
    predicted = [[0.4, 6.6]]
    assert score_temporal_grounding([predicted], [[[0, 9]]])["r1@0.7"] == 0.0
    assert score_temporal_grounding([np.round(predicted).tolist()], [[[0, 9]]])["r1@0.7"] == 1.0


def test_missing_predictions_are_wrong_unless_official() -> None:
    predictions: Rows = [[[0, 8]], []]
    references: Rows = [[[0, 8]], [[3, 5]]]
    strict = score_temporal_grounding(predictions, references)
    official = score_temporal_grounding(predictions, references, mode="official")
    assert (strict["r1@0.5"], strict["miou"], strict["map"], strict["num_unscored"]) == (0.5, 0.5, 0.5, 0)
    assert (official["r1@0.5"], official["miou"], official["map"], official["num_unscored"]) == (1.0, 1.0, 1.0, 1)
    assert strict["num_missing"] == official["num_missing"] == 1


def test_the_first_window_is_the_best_scored_one_unless_official() -> None:
    predictions = [[[20, 30, 0.1], [0, 8, 0.9]]]
    references = [[[0, 8]]]
    assert score_temporal_grounding(predictions, references)["r1@0.5"] == 1.0
    assert score_temporal_grounding(predictions, references, mode="official")["r1@0.5"] == 0.0
    # The mean average precision goes by score in both.
    assert score_temporal_grounding(predictions, references, mode="official")["map"] == 1.0


def test_the_cut_to_ten_windows_goes_by_score_unless_official() -> None:
    predictions = [[[100 + k, 101 + k, 0.1] for k in range(10)] + [[0.0, 8.0, 0.9]]]
    assert score_temporal_grounding(predictions, [[[0, 8]]])["map"] == 1.0
    assert score_temporal_grounding(predictions, [[[0, 8]]], mode="official")["map"] == 0.0


def test_each_reference_window_is_found_once() -> None:
    twice = [[[0, 8, 0.9], [0, 8, 0.8], [20, 30, 0.7]]]
    scores = score_temporal_grounding(twice, [[[0, 8], [20, 30]]])
    # Precision is 1 at the first hit and 2/3 at the second.
    assert scores["map@0.5"] == pytest.approx((1 + 2 / 3) / 2)


def test_among_equal_overlaps_the_last_listed_reference_is_taken() -> None:
    # [0, 8] overlaps both references by 3/4; [0, 6] then needs the first of them.
    predictions = [[[0, 8, 0.9], [0, 6, 0.8]]]
    assert score_temporal_grounding(predictions, [[[0, 6], [2, 8]]])["map@0.55"] == 1.0
    assert score_temporal_grounding(predictions, [[[2, 8], [0, 6]]])["map@0.55"] == 0.5


def test_rows_without_a_reference_window_are_left_out_and_counted() -> None:
    scores = score_temporal_grounding([[[0, 8]], [[0, 8]], [[0, 8]]], [[[0, 8]], [], [[5, 5]]])
    assert (scores["r1@0.5"], scores["num_examples"], scores["num_unscored"]) == (1.0, 3, 2)


def test_nothing_to_score_is_none() -> None:
    for scores in (score_temporal_grounding([], []), score_temporal_grounding([[[0, 1]]], [[]])):
        assert scores["r1@0.5"] is scores["miou"] is scores["map"] is None


def test_length_ranges_exclude_the_shorter_end_and_leave_out_queries_without_such_a_window() -> None:
    references: Rows = [[[0, 10]], [[0, 30], [50, 55]], [[0, 30.5]]]
    scores = score_temporal_grounding(
        [[[0, 10]], [[0, 30]], [[0, 30.5]]], references, length_ranges=QVHIGHLIGHTS_LENGTH_RANGES
    )["by_length"]
    assert [scores[name]["num_unscored"] for name in ("short", "middle", "long")] == [1, 2, 2]
    assert (scores["short"]["r1@0.5"], scores["middle"]["r1@0.5"]) == (0.5, 1.0)


@settings(max_examples=60, deadline=None)
@given(rows)
def test_average_precision_matches_plain_loops(pairs: list[tuple[list[list[float]], list[list[float]]]]) -> None:
    predictions, references = [list(column) for column in zip(*pairs, strict=True)]
    # Equal overlaps are matched differently by the loops, which take the first; distinct ones leave no choice.
    for predicted, annotated in pairs:
        ious = [float(temporal_iou(p[:2], g)) for p in predicted for g in annotated]
        if len({iou for iou in ious if iou}) < sum(iou > 0 for iou in ious):
            return
    scores = score_temporal_grounding(predictions, references)
    for threshold in AP_IOU_THRESHOLDS:
        expected = np.mean([find_average_precision(p, g, threshold) for p, g in pairs])
        assert scores[f"map@{threshold:g}"] == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(rows, st.randoms(use_true_random=False))
def test_figures_are_bounded_ordered_and_do_not_depend_on_the_order_of_rows(pairs: list[Any], random: Any) -> None:
    shuffled = random.sample(pairs, len(pairs))
    first, second = (
        score_temporal_grounding(*[list(column) for column in zip(*part, strict=True)]) for part in (pairs, shuffled)
    )
    assert first == pytest.approx(second)
    assert all(0 <= first[key] <= 1 for key in first if not key.startswith("num"))
    assert first["r1@0.3"] >= first["r1@0.5"] >= first["r1@0.7"]
    assert first["map@0.5"] >= first["map@0.75"] >= first["map@0.95"]


def test_chunks_do_not_change_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 50, (30, 3))
    predictions = [[[s, s + 9, float(k)] for k, s in enumerate(row)] for row in starts.tolist()]
    references = [[[s + 2, s + 9] for s in row[:2]] for row in starts.tolist()]
    whole = score_temporal_grounding(predictions, references)
    monkeypatch.setattr(temporal, "_ROWS_PER_CHUNK", 7)
    assert score_temporal_grounding(predictions, references) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "loose"}, "Got mode 'loose'"),
        ({"iou_thresholds": [50]}, "Got the threshold 50"),
        ({"references": []}, "references has 0 rows and predictions has 1: row 0"),
        ({"predictions": [[[1]]]}, "Got the window [1] in row 0 of predictions"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {"predictions": [[[0, 1]]], "references": [[[0, 1]]]} | changes
    with pytest.raises(ValueError, match=re.escape(message)):
        score_temporal_grounding(**inputs)


@needs_shared_data
@pytest.mark.parametrize("mode", ["official", "strict"])
def test_qvhighlights_moments_equal_the_published_output(mode: Any) -> None:
    folder = SHARED_DATA / "qvhighlights"
    gold = [json.loads(line) for line in (folder / "data/highlight_val_release.jsonl").read_text().splitlines()]
    lines = (folder / "standalone_eval/sample_val_preds.jsonl").read_text().splitlines()
    predicted = {row["qid"]: row["pred_relevant_windows"] for row in map(json.loads, lines)}
    published = json.loads((folder / "standalone_eval/sample_val_preds_metrics_raw.json").read_text())
    scores = score_temporal_grounding(
        [predicted[row["qid"]] for row in gold],
        [row["relevant_windows"] for row in gold],
        iou_thresholds=AP_IOU_THRESHOLDS,
        length_ranges=QVHIGHLIGHTS_LENGTH_RANGES,
        mode=mode,
    )
    assert (scores["num_examples"], scores["num_missing"], scores["num_unscored"]) == (1550, 0, 0)
    assert [round(100 * scores[key], 2) for key in ("r1@0.5", "r1@0.7")] == [53.94, 34.84]
    assert [round(100 * scores[key], 2) for key in ("map", "map@0.5", "map@0.75")] == [32.20, 54.96, 31.01]
    for name, figures in {"full": scores, **scores["by_length"]}.items():
        for threshold in AP_IOU_THRESHOLDS:
            assert round(100 * figures[f"map@{threshold:g}"], 2) == published[name]["MR-mAP"][str(threshold)]
            assert round(100 * figures[f"r1@{threshold:g}"], 2) == published[name]["MR-R1"][str(threshold)]
        assert round(100 * figures["map"], 2) == published[name]["MR-mAP"]["average"]
