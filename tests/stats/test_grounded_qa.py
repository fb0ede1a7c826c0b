"""NExT-GQA's figures: exact tables, both modes, a plain-loop count, and the real questions."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.stats.checks import UNANSWERED
from vidground_hf.stats.grounded_qa import score_grounded_qa

MOMENT: dict[str, Any] = {
    "predictions": ["B"],
    "references": ["B"],
    "windows": [[3, 3]],
    "reference_windows": [[[1, 6]]],
}


def test_every_figure_is_exact() -> None:
    scores = score_grounded_qa(
        ["A", "B", "C", "D", "E"],
        ["A", "B", "C", "A", "A"],
        [[2, 4], [0, 10], [20, 30], [0, 4], [4, 8]],
        [[[1, 6]], [[0, 3]], [[3, 5]], [[0, 4]], [[0, 6]]],
    )
    # IoP 1, 0.3, 0, 1, 0.5 and IoU 0.4, 0.3, 0, 1, 0.25.
    assert scores == {
        "acc_qa": 0.6,
        "acc_gqa": 0.2,
        "acc_iop": pytest.approx(1 / 3),
        "miop": pytest.approx(2.8 / 5),
        "iop@0.3": 0.8,
        "iop@0.5": 0.6,
        "miou": pytest.approx(1.95 / 5),
        "iou@0.3": 0.6,
        "iou@0.5": 0.2,
        "num_examples": 5,
        "num_unanswered": 0,
        "num_missing": 0,
        "num_unscored": 0,
    }
    assert scores["acc_iop"] == pytest.approx(scores["acc_gqa"] / scores["iop@0.5"])  # type: ignore[operator]


def test_the_best_iou_and_the_best_iop_may_be_of_different_references() -> None:
    scores = score_grounded_qa(["A"], ["A"], [[0, 10]], [[[-100, 9], [4, 10]]])
    assert (scores["miop"], scores["miou"]) == (0.9, 0.6)


def test_a_window_of_no_length_is_worth_nothing_unless_official() -> None:
    strict, official = score_grounded_qa(**MOMENT), score_grounded_qa(**MOMENT, mode="official")
    assert (strict["acc_gqa"], strict["miop"], strict["miou"]) == (0.0, 0.0, 0.0)
    assert (official["acc_gqa"], official["miop"], official["miou"]) == (1.0, 1.0, 0.0)
    for moment, iop in ((1, 1.0), (6, 1.0), (0.9, 0.0), (6.1, 0.0)):
        edge = MOMENT | {"windows": [[moment, moment]]}
        assert score_grounded_qa(**edge, mode="official")["miop"] == iop


def test_a_short_window_has_a_high_iop() -> None:
    scores = score_grounded_qa(["A"], ["A"], [[2, 2.1]], [[[0, 100]]])
    assert scores["miop"] == pytest.approx(1.0)
    assert scores["miou"] == pytest.approx(0.001)


def test_questions_without_a_window_count_unless_official() -> None:
    inputs = (["A", "B"], ["A", "B"], [[1, 6], []], [[[1, 6]], [[1, 6]]])
    strict, official = score_grounded_qa(*inputs), score_grounded_qa(*inputs, mode="official")
    assert (strict["acc_qa"], strict["acc_gqa"], strict["miou"], strict["num_unscored"]) == (1.0, 0.5, 0.5, 0)
    assert (official["acc_qa"], official["acc_gqa"], official["miou"], official["num_unscored"]) == (1.0, 1.0, 1.0, 1)
    assert strict["num_missing"] == official["num_missing"] == 1


def test_rounding_shares_of_the_duration_before_changes_the_figure() -> None:
    seconds = np.array([0.114, 0.136]) * 10
    plain = score_grounded_qa(["A"], ["A"], [seconds.tolist()], [[[1.14, 1.36]]])
    rounded = score_grounded_qa(["A"], ["A"], [np.round(seconds, 1).tolist()], [[[1.14, 1.36]]])
    assert plain["miou"] == pytest.approx(1.0)
    assert rounded["miou"] == pytest.approx(0.22 / 0.3)


def test_an_inverted_window_overlaps_with_nothing() -> None:
    for mode in ("strict", "official"):
        scores = score_grounded_qa(**MOMENT | {"windows": [[5, 2]]}, mode=mode)
        assert (scores["miop"], scores["miou"]) == (0.0, 0.0)


def test_unanswered_is_wrong_and_an_unanswerable_question_is_not_scored() -> None:
    scores = score_grounded_qa(
        [UNANSWERED, UNANSWERED, "A", "A"],
        ["A", UNANSWERED, "A", "A"],
        [[1, 6]] * 4,
        [[[1, 6]], [[1, 6]], [], [[1, 6]]],
    )
    assert (scores["acc_qa"], scores["num_unanswered"], scores["num_unscored"]) == (0.5, 2, 2)


def test_nothing_grounded_has_no_acc_iop_and_nothing_scored_no_figure() -> None:
    assert score_grounded_qa(["A"], ["A"], [[8, 9]], [[[1, 6]]])["acc_iop"] is None
    scores = score_grounded_qa(["A"], ["A"], [[8, 9]], [[]])
    assert scores["acc_qa"] is scores["miou"] is scores["acc_iop"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "loose"}, "Got mode 'loose'"),
        ({"windows": []}, "windows has 0 rows and predictions has 1: row 0"),
        ({"windows": [[1]]}, "Got the window [1] in row 0 of windows"),
        ({"reference_windows": [[[1]]]}, "Got the window [1] in row 0 of reference_windows"),
    ],
)
def test_bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        score_grounded_qa(**(MOMENT | changes))


times = st.integers(0, 12)
question = st.tuples(
    st.sampled_from(["A", "B", UNANSWERED]),
    st.sampled_from(["A", "B"]),
    st.one_of(st.just([]), st.lists(times, min_size=2, max_size=2)),
    st.lists(st.tuples(times, st.integers(1, 5)).map(lambda pair: [pair[0], pair[0] + pair[1]]), max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(question, min_size=1, max_size=6), st.sampled_from(["strict", "official"]))
def test_figures_are_bounded_ordered_and_do_not_depend_on_the_order_of_rows(questions: list[Any], mode: Any) -> None:
    scores, turned = (
        score_grounded_qa(*[list(column) for column in zip(*rows, strict=True)], mode=mode)
        for rows in (questions, questions[::-1])
    )
    assert scores == pytest.approx(turned)
    figures = {key: value for key, value in scores.items() if not key.startswith("num") and value is not None}
    assert all(0 <= value <= 1 for value in figures.values())
    if figures:
        assert figures["acc_gqa"] <= min(figures["acc_qa"], figures["iop@0.5"])
        assert figures["miou"] <= figures["miop"]
        assert figures["iou@0.5"] <= figures["iop@0.5"]


@needs_shared_data
@pytest.mark.parametrize("mode", ["strict", "official"])
def test_real_questions_match_a_count_by_plain_loops(mode: Any) -> None:
    gold = json.loads((SHARED_DATA / "nextgqa/datasets/nextgqa/gsub_val.json").read_text())
    rng = np.random.default_rng(0)
    rows, counted = [], []
    for video in gold.values():
        for spans in video["location"].values():
            start, end = np.sort(np.round(rng.uniform(0, video["duration"], 2), 1))
            kind = rng.integers(10)
            window = [] if kind == 0 else [start, start] if kind == 1 else [start, end]
            right = bool(rng.integers(2))
            rows.append(("A" if right else "B", "A", window, spans))
            if mode == "official" and not window:
                continue
            iop = iou = 0.0
            for low, high in spans if window else []:
                if window[0] == window[1]:
                    iop = max(iop, float(mode == "official" and low <= window[0] <= high))
                    continue
                shared = min(high, window[1]) - max(low, window[0])
                iop = max(iop, shared / (window[1] - window[0]))
                iou = max(iou, shared / (max(high, window[1]) - min(low, window[0])))
            counted.append((right, iop, iou))
    assert len(rows) == 3358
    predictions, references, windows, spans = zip(*rows, strict=True)
    scores = score_grounded_qa(predictions, references, windows, spans, mode=mode)
    right_ones, iops, ious = (np.array(column) for column in zip(*counted, strict=True))
    expected = {
        "acc_qa": right_ones.mean(),
        "acc_gqa": (right_ones & (iops >= 0.5)).mean(),
        "acc_iop": right_ones[iops >= 0.5].mean(),
        "miop": iops.mean(),
        "miou": ious.mean(),
        "iop@0.3": (iops >= 0.3).mean(),
        "iop@0.5": (iops >= 0.5).mean(),
        "iou@0.3": (ious >= 0.3).mean(),
        "iou@0.5": (ious >= 0.5).mean(),
    }
    assert {key: scores[key] for key in expected} == pytest.approx(expected)
    assert scores["num_unscored"] == len(rows) - len(counted)
    # What the card says of a window as long as the video.
    if mode == "strict":
        shares = [(e - s) / v["duration"] for v in gold.values() for spans in v["location"].values() for s, e in spans]
        assert round(float(np.mean(shares)), 2) == 0.19
