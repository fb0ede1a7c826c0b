"""Tracks: exact tables, each count of the public toolkits, plain loops over real boxes, and every refusal."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.stats.tracking import KEYS, score_object_tracking

TRUTH = [[20, 20, 10, 10], [25, 20, 10, 10], [29, 20, 10, 10]]
LOST = [TRUTH[0], [70, 70, 10, 10], [70, 70, 10, 10]]
BEST = 20 / 21


def score_one(predicted: Any, annotated: Any = TRUTH, **options: Any) -> dict[str, Any]:
    options = {name: [value] if name in ("absent", "image_sizes") else value for name, value in options.items()}
    return score_object_tracking([predicted], [annotated], **options)


def test_a_perfect_tracker_reaches_the_most_there_is() -> None:
    for mode in ("strict", "official"):
        scores = score_one(TRUTH, mode=mode)
        assert [scores[key] for key in KEYS] == pytest.approx([BEST, 1, 1, 1, 1, 1, 1])


def test_every_figure_is_exact() -> None:
    # Frame 1: moved by 2 of 10 pixels, IoU 80/120. Frame 2: moved by 21 pixels, no overlap.
    scores = score_one([TRUTH[0], [27, 20, 10, 10], [50, 20, 10, 10]])
    assert scores["success_auc"] == pytest.approx(14 / 21 / 2)
    assert (scores["precision_20px"], scores["norm_precision_0.2"]) == (0.5, 0.5)
    assert scores["norm_precision_auc"] == pytest.approx(31 / 51 / 2)
    assert scores["ao"] == pytest.approx(80 / 120 / 2)
    assert (scores["sr@0.5"], scores["sr@0.75"]) == (0.5, 0.0)
    assert (scores["num_frames"], scores["num_unscored_frames"], scores["num_missing_frames"]) == (2, 1, 0)


def test_a_distance_on_the_threshold_is_a_hit_and_an_overlap_on_it_is_not() -> None:
    assert score_one([TRUTH[0], [45, 20, 10, 10], TRUTH[2]])["precision_20px"] == 1.0
    assert score_one([TRUTH[0], [25, 20, 10, 20], TRUTH[2]])["sr@0.5"] == 0.5


def test_videos_weigh_alike_in_success_and_frames_alike_in_overlap() -> None:
    long = [[20, 20, 10, 10]] * 5
    scores = score_object_tracking([TRUTH, [long[0], *[[70, 70, 10, 10]] * 4]], [TRUTH, long])
    assert scores["success_auc"] == pytest.approx(BEST / 2)
    assert scores["ao"] == pytest.approx(2 / 6)


def test_the_given_first_frame_counts_only_when_official() -> None:
    assert score_one(LOST)["success_auc"] == 0.0
    official = score_one(LOST, mode="official")
    assert official["success_auc"] == pytest.approx(BEST / 3)
    assert official["precision_20px"] == official["norm_precision_auc"] == pytest.approx(1 / 3)
    # GOT-10k's figures leave it out in both.
    assert official["ao"] == 0.0


def test_absent_frames_stay_in_the_denominator_when_official() -> None:
    strict, official = (score_one(TRUTH, absent=[0, 0, 1], mode=mode) for mode in ("strict", "official"))
    assert (strict["success_auc"], strict["num_frames"]) == (pytest.approx(BEST), 1)
    assert (official["success_auc"], official["num_frames"]) == (pytest.approx(BEST * 2 / 3), 2)
    assert official["precision_20px"] == pytest.approx(2 / 3)
    # GOT-10k's evaluation of LaSOT keeps them; its own leaves them out.
    moved = [TRUTH[0], TRUTH[1], [29 + 3, 20, 10, 10]]
    assert score_one(moved, absent=[0, 0, 1], mode="official")["norm_precision_auc"] == pytest.approx(
        (1 + 1 + 21 / 51) / 3
    )
    assert score_one(moved, absent=[0, 0, 1], mode="official")["ao"] == 1.0


@pytest.mark.parametrize("bad", [[], [math.nan] * 4, [25, 20, 0, 10], [25, 20, 10, -1]])
def test_an_invalid_box_repeats_the_one_before_when_official(bad: list[float]) -> None:
    still = [[20, 20, 10, 10]] * 3
    strict, official = (score_one([still[0], bad, still[2]], still, mode=mode) for mode in ("strict", "official"))
    assert strict["success_auc"] == pytest.approx(BEST / 2)
    assert strict["precision_20px"] == strict["norm_precision_auc"] == 0.5
    assert official["success_auc"] == pytest.approx(BEST)
    assert official["precision_20px"] == 1.0
    assert strict["num_missing_frames"] == official["num_missing_frames"] == 1


def test_invalid_boxes_before_any_valid_one_stay_invalid() -> None:
    official = score_one([[], [], []], mode="official")
    assert official["success_auc"] == pytest.approx(BEST / 3)
    assert official["precision_20px"] == pytest.approx(1 / 3)


def test_annotations_at_the_edge_are_missed_in_overlap_and_hit_in_precision_when_official() -> None:
    edge = [[20, 20, 10, 10], [0, 20, 10, 10], [20, 0, 10, 10]]
    assert score_one(edge, edge)["success_auc"] == pytest.approx(BEST)
    official = score_one([edge[0], *[[70, 70, 10, 10]] * 2], edge, mode="official")
    assert official["success_auc"] == pytest.approx(BEST / 3)
    assert official["precision_20px"] == official["norm_precision_0.2"] == 1.0


def test_annotations_without_size_are_left_out_unless_official() -> None:
    gone = [TRUTH[0], TRUTH[1], [0, 0, 0, 0]]
    strict = score_one(TRUTH, gone)
    assert (strict["success_auc"], strict["num_frames"], strict["num_unscored_frames"]) == (pytest.approx(BEST), 1, 2)
    official = score_one(TRUTH, gone, mode="official")
    assert official["success_auc"] == pytest.approx(BEST * 2 / 3)
    assert official["precision_20px"] == 1.0


def test_sizes_under_one_pixel_are_one_in_the_area_of_precision_when_official() -> None:
    small, moved = [[20, 20, 0.5, 0.5]] * 2, [[20, 20, 0.5, 0.5], [20.3, 20, 0.5, 0.5]]
    # A shift of 0.3 pixels is 0.6 of the size, beyond the last threshold, or 0.3 of one pixel.
    assert score_one(moved, small)["norm_precision_auc"] == 0.0
    official = score_one(moved, small, mode="official")
    assert official["norm_precision_auc"] == pytest.approx((1 + 21 / 51) / 2, abs=0.01)
    assert official["norm_precision_0.2"] == 0.5


def test_videos_whose_curve_is_zero_are_dropped_when_official() -> None:
    far = [[500, 500, 10, 10]] * 3
    absent = [[0, 0, 0], [1, 0, 0]]
    strict, official = (
        score_object_tracking([TRUTH, far], [TRUTH, TRUTH], absent=absent, mode=mode)
        for mode in ("strict", "official")
    )
    assert strict["success_auc"] == pytest.approx(BEST / 2)
    assert official["success_auc"] == pytest.approx(BEST)
    # Where all are zero, there is nothing to drop them in favour of.
    assert score_one(far, absent=[1, 0, 0], mode="official")["success_auc"] == 0.0


def test_surplus_boxes_are_cut_when_official_and_refused_otherwise() -> None:
    longer = [*TRUTH, [0, 0, 1, 1]]
    assert score_one(longer, mode="official") == score_one(TRUTH, mode="official")
    with pytest.raises(
        ValueError, match=re.escape("Got 4 predicted boxes for the 3 frames of video 0; allowed is one")
    ):
        score_one(longer)


def test_clipping_cuts_boxes_and_moves_them_when_official() -> None:
    # The object sticks out by half on the left; so does the prediction, by all but 2 pixels.
    truth = [[5, 5, 10, 10], [-5, 5, 10, 10]]
    predicted = [[5, 5, 10, 10], [-8, 5, 10, 10]]
    assert score_one(predicted, truth)["ao"] == pytest.approx(7 / 13)
    assert score_one(predicted, truth, image_sizes=[100, 50])["ao"] == pytest.approx(2 / 5)
    # The toolkit moves the corner inside and keeps the width, so that both become the same box.
    assert score_one(predicted, truth, image_sizes=[100, 50], mode="official")["ao"] == 1.0
    right = [[90, 5, 10, 10], [95, 5, 10, 10]]
    for mode in ("strict", "official"):
        clipped = score_one([right[0], [95, 5, 5, 10]], right, image_sizes=[100, 50], mode=mode)
        assert clipped["ao"] == 1.0
    assert (
        score_one(predicted, truth, image_sizes=[100, 50])["success_auc"] == score_one(predicted, truth)["success_auc"]
    )


def test_a_missing_video_is_lost_unless_official() -> None:
    strict, official = (
        score_object_tracking([TRUTH, []], [TRUTH, TRUTH], mode=mode) for mode in ("strict", "official")
    )
    assert (strict["ao"], strict["success_auc"], strict["num_unscored"]) == (0.5, pytest.approx(BEST / 2), 0)
    assert (official["ao"], official["success_auc"], official["num_unscored"]) == (1.0, pytest.approx(BEST), 1)
    assert strict["num_missing"] == official["num_missing"] == 1
    assert strict["num_missing_frames"] == 2


def test_nothing_to_score_is_none() -> None:
    for scores in (
        score_one(TRUTH, absent=[1, 1, 1]),
        score_one([TRUTH[0]], [TRUTH[0]]),
        score_one([], mode="official"),
    ):
        assert [scores[key] for key in KEYS] == [None] * 7
        assert scores["num_unscored"] == 1
    one_frame = score_one([TRUTH[0]], [TRUTH[0]], mode="official")
    assert one_frame["success_auc"] == pytest.approx(BEST)
    assert one_frame["ao"] is one_frame["sr@0.5"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "loose"}, "Got mode 'loose'"),
        ({"absent": [0, 1]}, "Got 2 absent flags for the 3 frames of video 0"),
        ({"image_sizes": [100]}, "Got the image size [100] of video 0; allowed are [width, height] in pixels"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        score_one(TRUTH, **options)


def test_bad_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("references has 2 rows and predictions has 1: row 1")):
        score_object_tracking([TRUTH], [TRUTH, TRUTH])
    with pytest.raises(ValueError, match=re.escape("absent has 2 rows and predictions has 1: row 1")):
        score_object_tracking([TRUTH], [TRUTH], absent=[[0], [0]])
    with pytest.raises(ValueError, match=re.escape("Got [1, 2] in row 1 of predictions of video 0; allowed are four")):
        score_one([TRUTH[0], [1, 2], TRUTH[2]])
    with pytest.raises(ValueError, match=re.escape("Got 2 predicted boxes for the 3 frames of video 0")):
        score_one(TRUTH[:2], mode="official")


box = st.tuples(st.integers(-5, 30), st.integers(-5, 30), st.integers(0, 15), st.integers(0, 15)).map(list)
video = st.integers(1, 5).flatmap(
    lambda length: st.tuples(
        st.lists(st.one_of(st.just([]), box), min_size=length, max_size=length),
        st.lists(box, min_size=length, max_size=length),
        st.lists(st.integers(0, 1), min_size=length, max_size=length),
    )
)


@settings(max_examples=60, deadline=None)
@given(st.lists(video, min_size=1, max_size=4), st.sampled_from(["strict", "official"]), st.booleans())
def test_figures_are_bounded_and_do_not_depend_on_the_order_of_videos(
    videos: list[Any], mode: Any, is_clipped: bool
) -> None:
    def score(part: list[Any]) -> dict[str, Any]:
        predictions, references, absent = [list(column) for column in zip(*part, strict=True)]
        sizes = [[25, 20]] * len(part) if is_clipped else None
        return score_object_tracking(predictions, references, absent=absent, image_sizes=sizes, mode=mode)

    scores = score(videos)
    assert scores == pytest.approx(score(videos[::-1]))
    assert all(scores[key] is None or 0 <= scores[key] <= 1 for key in KEYS)
    assert scores["sr@0.5"] is None or scores["sr@0.5"] >= scores["sr@0.75"]
    num_frames = sum(len(references) for _, references, _ in videos)
    assert scores["num_missing_frames"] <= scores["num_frames"] <= num_frames


def test_a_video_without_frames_is_not_scored() -> None:
    for mode in ("strict", "official"):
        assert score_one([[1, 1, 4, 4]] if mode == "official" else [], [], mode=mode)["num_unscored"] == 1


def find_iou(first: np.ndarray, second: np.ndarray) -> float:
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    shared = max(0.0, width) * max(0.0, height)
    return float(shared / (first[2] * first[3] + second[2] * second[3] - shared))


def count_officially(predicted: np.ndarray, annotated: np.ndarray, absent: np.ndarray) -> tuple[float, float, float]:
    """LaSOT's three figures of one video by plain loops over frames and thresholds."""
    boxes = [predicted[0]]
    for box in predicted[1:]:
        boxes.append(boxes[-1] if np.isnan(box).any() or box[2] <= 0 or box[3] <= 0 else box)
    boxes[0] = annotated[0]
    overlaps: list[float] = []
    pixels: list[float] = []
    ratios: list[float] = []
    for box, truth, gone in zip(boxes, annotated, absent, strict=True):
        if gone:
            continue
        if not (truth > 0).all():
            for values in (overlaps, pixels, ratios):
                values.append(-1.0)
            continue
        shift = [box[k] + box[k + 2] / 2 - truth[k] - truth[k + 2] / 2 for k in (0, 1)]
        overlaps.append(find_iou(box, truth))
        pixels.append(math.hypot(*shift))
        ratios.append(math.hypot(shift[0] / truth[2], shift[1] / truth[3]))
    count = len(annotated)
    success = [sum(iou > step / 20 for iou in overlaps) / count for step in range(21)]
    return sum(success) / 21, sum(d <= 20 for d in pixels) / count, sum(d <= 0.2 for d in ratios) / count


@needs_shared_data
def test_real_boxes_match_plain_loops() -> None:
    folder = SHARED_DATA / "lasot-boxes/annos"
    rng = np.random.default_rng(0)
    predictions, references, flags, counted = [], [], [], []
    for file in sorted(folder.glob("*.txt")):
        truth = np.loadtxt(file, delimiter=",")[:1500]
        absent = np.loadtxt(folder / "absent" / file.name)[:1500].astype(int)
        drift = rng.normal(0, 2, truth.shape).cumsum(axis=0) * rng.choice([0.02, 0.2, 1.0])
        boxes = np.round(truth + drift, 1)
        boxes[rng.random(len(boxes)) < 0.02] = math.nan
        boxes[0] = truth[0]
        predictions.append([[] if np.isnan(box).any() else box.tolist() for box in boxes])
        references.append(truth.tolist())
        flags.append(absent.tolist())
        counted.append(count_officially(boxes, truth, absent))
    scores = score_object_tracking(predictions, references, absent=flags, mode="official")
    expected = np.mean(counted, axis=0).tolist()
    assert [scores[key] for key in KEYS[:3]] == pytest.approx(expected)
    assert 0.2 < expected[0] < 0.8
    assert any(map(any, flags))


@needs_shared_data
def test_a_perfect_track_of_real_boxes_is_perfect_only_in_the_strict_count() -> None:
    folder = SHARED_DATA / "lasot-boxes/annos"
    files = sorted(folder.glob("*.txt"))
    truth = [np.loadtxt(file, delimiter=",").tolist() for file in files]
    absent = [np.loadtxt(folder / "absent" / file.name).tolist() for file in files]
    strict, official = (
        score_object_tracking(truth, truth, absent=absent, mode=mode) for mode in ("strict", "official")
    )
    assert [strict[key] for key in KEYS] == pytest.approx([BEST, 1, 1, 1, 1, 1, 1])
    assert (strict["num_frames"], strict["num_unscored_frames"], strict["num_missing_frames"]) == (49289, 584, 0)
    shares = [1 - np.mean(flags) for flags in absent]
    assert official["success_auc"] == pytest.approx(BEST * np.mean(shares))
    assert official["precision_20px"] == pytest.approx(np.mean(shares))
