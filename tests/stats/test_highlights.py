"""Highlights: exact tables, both modes, scikit-learn, and QVHighlights to the last digit."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.stats.highlights import clip_average_precision, fill_saliency, score_highlights

RATINGS = [[[0, 1, 0], [4, 4, 3], [2, 2, 4]]]

clips = st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=8).filter(
    lambda row: any(positive for _, positive in row)
)


def read_curve(scores: list[int], labels: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Interpolated precision at each rise of recall, and the rise, from scikit-learn's curve."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    rises = np.flatnonzero(np.diff(recall))
    return np.maximum.accumulate(precision)[rises], -np.diff(recall)[rises]


@settings(max_examples=100, deadline=None)
@given(clips)
def test_average_precision_matches_scikit_learns_curve(row: list[tuple[int, bool]]) -> None:
    scores, labels = [list(column) for column in zip(*row, strict=True)]
    precision, rise = read_curve(scores, labels)
    column = np.array(labels)[:, None]
    assert clip_average_precision(scores, column, mode="strict") == pytest.approx((precision * rise).sum())
    assert clip_average_precision(scores, column, mode="official") == pytest.approx(precision.mean())
    # Interpolation never lowers precision.
    assert clip_average_precision(scores, column) >= average_precision_score(labels, scores) - 1e-12


@given(st.permutations(range(6)), st.sets(st.integers(0, 5), min_size=1))
def test_average_precision_depends_on_ranks_alone(ranks: list[int], positive: set[int]) -> None:
    labels = np.isin(np.arange(6), list(positive))[:, None]
    value = clip_average_precision(ranks, labels)
    assert clip_average_precision(np.exp(ranks), labels) == pytest.approx(value)
    assert clip_average_precision(ranks[::-1], labels[::-1]) == pytest.approx(value)
    assert 0 < value <= 1


def test_columns_without_a_positive_are_0_and_with_only_positives_1() -> None:
    labels = [[False, True], [False, True]]
    assert clip_average_precision([1, 2], labels).tolist() == [0.0, 1.0]


def test_several_positives_in_a_tie_count_once_when_official() -> None:
    scores, labels = [3, 2, 2, 1], [[True], [True], [True], [False]]
    assert clip_average_precision(scores, labels, mode="strict") == 1.0
    # Ranks: {clip 0}, {clips 1, 2 and a miss}: precisions 1 and 3/4, of three positives or of two ranks.
    labels, scores = [[True], [True], [True], [False]], [3, 2, 2, 2]
    assert clip_average_precision(scores, labels, mode="strict") == pytest.approx((1 + 2 * 0.75) / 3)
    assert clip_average_precision(scores, labels, mode="official") == pytest.approx((1 + 0.75) / 2)


def test_each_level_is_exact() -> None:
    scores = score_highlights([[0.1, 0.9, 0.5]], RATINGS)
    # Fair: two annotators like clips 1 and 2, and the third too. Good: clip 1, clip 1, clips 1 and 2.
    assert (scores["map@fair"], scores["map@good"]) == (1.0, 1.0)
    # Very Good: clip 1, clip 1, and clip 2, which is ranked second.
    assert scores["map@very_good"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert scores["hit1@very_good"] == 1.0
    assert score_highlights([[0.9, 0.5, 0.1]], RATINGS)["hit1@fair"] == 0.0


def test_one_annotator_is_enough_for_a_hit() -> None:
    assert score_highlights([[0.1, 0.5, 0.9]], RATINGS)["hit1@very_good"] == 1.0


def test_an_annotator_without_a_positive_clip_gives_0() -> None:
    scores = score_highlights([[1.0, 0.0]], [[[4, 3, 3], [0, 0, 0]]])
    assert scores["map@very_good"] == pytest.approx(1 / 3)


def test_missing_predictions_are_wrong_unless_official() -> None:
    strict = score_highlights([[0.1, 0.9, 0.5], []], RATINGS * 2)
    official = score_highlights([[0.1, 0.9, 0.5], []], RATINGS * 2, mode="official")
    assert (strict["map@good"], strict["hit1@good"], strict["num_missing"], strict["num_unscored"]) == (0.5, 0.5, 1, 0)
    assert (official["map@good"], official["hit1@good"], official["num_unscored"]) == (1.0, 1.0, 1)


def test_clips_without_a_score_rank_last_unless_official() -> None:
    ratings = [[[4], [0], [0]]]
    assert score_highlights([[-1.0, -2.0]], ratings)["map@very_good"] == 1.0
    # The evaluator fills with 0, which is above the negative scores given.
    assert score_highlights([[-1.0, -2.0]], ratings, mode="official")["map@very_good"] == 0.5


def test_scores_beyond_the_video_are_cut_before_the_best_clip_is_taken_unless_official() -> None:
    assert score_highlights([[1.0, 0.0, 9.0]], [[[4], [0]]])["hit1@very_good"] == 1.0
    official = score_highlights([[1.0, 0.0, 9.0]], [[[4], [0]]], mode="official")
    assert (official["hit1@very_good"], official["map@very_good"]) == (0.0, 1.0)


def test_nan_ranks_last_and_nothing_but_nan_is_no_prediction() -> None:
    assert score_highlights([[float("nan"), 0.1]], [[[0], [4]]])["hit1@very_good"] == 1.0
    nothing = score_highlights([[float("nan")] * 2], [[[4], [0]]])
    assert (nothing["map@very_good"], nothing["hit1@very_good"], nothing["num_missing"]) == (0.0, 0.0, 1)


def test_rows_without_ratings_are_left_out_and_nothing_to_score_is_none() -> None:
    scores = score_highlights([[0.1, 0.9, 0.5], [1.0]], [*RATINGS, []])
    assert (scores["map@good"], scores["num_unscored"]) == (1.0, 1)
    assert score_highlights([[1.0]], [[]])["map@good"] is None
    assert score_highlights([], [])["hit1@fair"] is None


def test_windows_add_moment_map_and_nothing_else() -> None:
    plain = score_highlights([[0.1, 0.9, 0.5]], RATINGS)
    both = score_highlights([[0.1, 0.9, 0.5]], RATINGS, windows=[[[2, 6, 0.8]]], reference_windows=[[[2, 5]]])
    assert {key: both[key] for key in plain} == plain
    assert sorted(set(both) - set(plain)) == sorted(["map", *(f"map@{t / 100:g}" for t in range(50, 100, 5))])
    assert (both["map@0.75"], both["map@0.8"], both["map"]) == (1.0, 0.0, 0.6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "loose"}, "Got mode 'loose'"),
        ({"references": []}, "references has 0 rows and predictions has 1: row 0"),
        ({"windows": [[[0, 1]]]}, "Got only one of windows and reference_windows"),
        (
            {"windows": [[[0, 1]]] * 2, "reference_windows": [[[0, 1]]] * 2},
            "windows has 2 rows and predictions has 1: row 1",
        ),
        ({"references": [[[1, 2], [3]]]}, "Got references with 2 annotators (row 0) and 1 annotators (row 0)"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    inputs: dict[str, Any] = {"predictions": [[0.1, 0.9, 0.5]], "references": RATINGS} | changes
    with pytest.raises(ValueError, match=re.escape(message)):
        score_highlights(**inputs)


def test_ratings_are_filled_in_for_clips_that_are_not_relevant() -> None:
    assert fill_saliency(7, [0, 2], [[4, 3], [1, 0]]) == [[4.0, 3.0], [0.0, 0.0], [1.0, 0.0]]
    assert fill_saliency(3, [2], [[4]], clip_seconds=1) == [[0.0], [0.0], [4.0]]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([3], "Got clip ids from 3 to 3 for a video of 3 clips; allowed are 0 to 2"),
        ([-1], "Got clip ids from -1 to -1"),
        ([0, 1], "Got 2 relevant clips and 1 ratings"),
        ([], "Got 0 relevant clips and 1 ratings"),
    ],
)
def test_ratings_that_do_not_fit_the_video_are_refused(ids: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        fill_saliency(6, ids, [[4]])


@needs_shared_data
def test_qvhighlights_equals_the_published_output() -> None:
    folder = SHARED_DATA / "qvhighlights"
    gold = [json.loads(line) for line in (folder / "data/highlight_val_release.jsonl").read_text().splitlines()]
    lines = (folder / "standalone_eval/sample_val_preds.jsonl").read_text().splitlines()
    predicted = {row["qid"]: row for row in map(json.loads, lines)}
    published = json.loads((folder / "standalone_eval/sample_val_preds_metrics_raw.json").read_text())["brief"]
    ratings = [fill_saliency(row["duration"], row["relevant_clip_ids"], row["saliency_scores"]) for row in gold]
    scores = score_highlights(
        [predicted[row["qid"]]["pred_saliency_scores"] for row in gold],
        ratings,
        windows=[predicted[row["qid"]]["pred_relevant_windows"] for row in gold],
        reference_windows=[row["relevant_windows"] for row in gold],
        mode="official",
    )
    assert (round(100 * scores["map@very_good"], 2), round(100 * scores["hit1@very_good"], 2)) == (35.65, 55.55)
    for level, name in (("fair", "Fair"), ("good", "Good"), ("very_good", "VeryGood")):
        assert round(100 * scores[f"map@{level}"], 2) == published[f"HL-min-{name}-mAP"]
        assert round(100 * scores[f"hit1@{level}"], 2) == published[f"HL-min-{name}-Hit1"]
    for key, name in (("map", "mAP"), ("map@0.5", "mAP@0.5"), ("map@0.75", "mAP@0.75")):
        assert round(100 * scores[key], 2) == published[f"MR-full-{name}"]
    # What the card says of the ceiling: the annotators' own ratings as the prediction.
    ceiling = score_highlights([[sum(clip) for clip in row] for row in ratings], ratings)
    assert (round(ceiling["map@very_good"], 3), round(ceiling["hit1@very_good"], 3)) == (0.613, 0.957)
