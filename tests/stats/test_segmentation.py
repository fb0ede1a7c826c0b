"""J and F: exact small masks, plain dilation, DAVIS frame by frame, real masklets, and every refusal."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image
from scipy.ndimage import binary_dilation

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.stats.masks import decode_mask
from vidground_hf.stats.segmentation import boundary_similarity, region_similarity, score_video_segmentation

LEFT, BOTH = '{"size": [1, 2], "counts": [0, 1, 1]}', '{"size": [1, 2], "counts": [0, 2]}'
DAVIS = SHARED_DATA / "davis-masks"

# Blobs rather than noise: coarse cells, blown up.
blobs = arrays(bool, (6, 7), elements=st.booleans()).map(lambda cells: np.kron(cells, np.ones((25, 25))).astype(bool))


def find_boundary(mask: np.ndarray) -> np.ndarray:
    squares = sliding_window_view(np.pad(mask, ((0, 1), (0, 1)), mode="edge"), (2, 2))
    return (squares != mask[..., None, None]).any(axis=(2, 3))


def dilate_and_compare(predicted: np.ndarray, annotated: np.ndarray) -> float:
    """F by dilation with a disk, on the whole frame."""
    radius = int(np.ceil(0.008 * np.sqrt(predicted.shape[0] ** 2 + predicted.shape[1] ** 2)))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x**2 + y**2 <= radius**2
    found, wanted = find_boundary(predicted), find_boundary(annotated)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = (found & binary_dilation(wanted, disk)).sum() / found.sum()
    recall = (wanted & binary_dilation(found, disk)).sum() / wanted.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@settings(max_examples=15, deadline=None)
@given(blobs, blobs, st.integers(-4, 4), st.integers(-4, 4))
def test_f_matches_dilation_with_a_disk(first: np.ndarray, second: np.ndarray, down: int, right: int) -> None:
    first = np.roll(first, (down, right), axis=(0, 1))
    assert boundary_similarity(first, second) == pytest.approx(dilate_and_compare(first, second))


@settings(max_examples=30, deadline=None)
@given(blobs, blobs)
def test_both_are_symmetric_bounded_and_1_for_equal_masks(first: np.ndarray, second: np.ndarray) -> None:
    for compare in (region_similarity, boundary_similarity):
        assert compare(first, second) == pytest.approx(compare(second, first))
        assert 0 <= compare(first, second) <= 1
        assert compare(first, first) == 1.0


@pytest.mark.parametrize(
    ("height", "width", "shift", "near"),
    [(480, 854, 8, True), (480, 854, 9, False), (100, 100, 2, True), (100, 100, 3, False)],
)
def test_near_is_a_share_of_the_diagonal_rounded_up(height: int, width: int, shift: int, near: bool) -> None:
    # A mask that fills the image down to one line has that line as its outline.
    first, second = np.zeros((2, height, width), dtype=bool)
    first[:50] = second[: 50 + shift] = True
    assert boundary_similarity(first, second) == float(near)


def test_empty_and_full_masks() -> None:
    empty, full, half = np.zeros((3, 40, 40), dtype=bool)
    full[:], half[:20] = True, True
    assert region_similarity(empty, empty) == boundary_similarity(empty, empty) == 1.0
    assert region_similarity(empty, half) == boundary_similarity(empty, half) == boundary_similarity(half, empty) == 0
    # Neither has an outline, as in the public evaluator.
    assert (region_similarity(full, empty), boundary_similarity(full, empty)) == (0.0, 1.0)
    assert boundary_similarity(full, half) == 0.0


def test_means_are_over_frames_and_then_over_objects() -> None:
    scores = score_video_segmentation([[BOTH, LEFT, LEFT, LEFT], [BOTH]], [[BOTH] * 4, [BOTH]])
    assert [row["j"] for row in scores["per_object"]] == [0.625, 1.0]
    assert scores["j"] == 0.8125
    assert scores["j&f"] == (scores["j"] + scores["f"]) / 2
    assert (scores["num_examples"], scores["num_frames"]) == (2, 5)


def test_a_frame_without_the_object_is_right_when_nothing_is_found_there() -> None:
    empty = '{"size": [1, 2], "counts": [2]}'
    for predicted in ("", None, empty):
        for annotated in ("", None, empty):
            scores = score_video_segmentation([[BOTH, predicted]], [[BOTH, annotated]])
            assert (scores["j"], scores["f"], scores["num_empty_frames"]) == (1.0, 1.0, 1)
    for predicted, annotated in (("", LEFT), (LEFT, ""), (None, LEFT), (LEFT, empty)):
        scores = score_video_segmentation([[predicted]], [[annotated]])
        assert (scores["j"], scores["f"], scores["num_empty_frames"]) == (0.0, 0.0, 0)


def test_a_missing_prediction_is_0_also_where_the_object_is_not() -> None:
    scores = score_video_segmentation([[], [BOTH]], [["", ""], [BOTH]])
    assert scores["per_object"][0] == {"j": 0.0, "f": 0.0, "j&f": 0.0}
    assert (scores["j"], scores["num_missing"], scores["num_frames"], scores["num_empty_frames"]) == (0.5, 1, 3, 0)


def test_rows_without_a_reference_are_left_out_and_nothing_to_score_is_none() -> None:
    scores = score_video_segmentation([[BOTH], [BOTH]], [[], [BOTH]])
    assert (scores["j"], scores["num_unscored"], scores["per_object"][0]) == (1.0, 1, None)
    scores = score_video_segmentation([[BOTH]], [[]])
    assert scores["j"] is scores["f"] is scores["j&f"] is None


def test_bad_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("references has 2 rows and predictions has 1: row 1")):
        score_video_segmentation([[BOTH]], [[BOTH], [BOTH]])
    with pytest.raises(ValueError, match=re.escape("Got 1 predicted and 2 annotated masks in row 1; allowed is one")):
        score_video_segmentation([[BOTH], [BOTH]], [[BOTH], [BOTH, BOTH]])
    for text, reason in (("nothing.png", "No such file"), ("{size", "Expecting property name"), ("{}", "the keys []")):
        with pytest.raises(ValueError, match=f"cannot be read in frame 1 of row 0: .*{re.escape(reason)}"):
            score_video_segmentation([[BOTH, BOTH]], [[BOTH, text]])
    other = '{"size": [2, 1], "counts": [0, 2]}'
    with pytest.raises(
        ValueError, match=re.escape("(2, 1) and an annotated one of (1, 2) (height, width) in frame 1")
    ):
        score_video_segmentation([[BOTH, other]], [[BOTH, BOTH]])


def test_png_files_and_encodings_mix(tmp_path: Path) -> None:
    path = tmp_path / "00000.png"
    Image.fromarray(np.array([[1, 2]], dtype=np.uint8)).save(path)
    scores = score_video_segmentation([[f"{path}#1"], [str(path)]], [[LEFT], [LEFT]])
    assert [row["j"] for row in scores["per_object"]] == [1.0, 0.5]


def read_reference() -> list[dict[str, str]]:
    with (DAVIS / "reference_JF.csv").open() as file:
        return list(csv.DictReader(file))


@needs_shared_data
@pytest.mark.parametrize("sequence", ["blackswan", "libby", "bmx-trees"])
def test_davis_matches_the_public_evaluator_frame_by_frame(sequence: str) -> None:
    rows = [row for row in read_reference() if row["sequence"] == sequence and row["frame"].isdigit()]
    assert len(rows) == {"blackswan": 50, "libby": 49, "bmx-trees": 80}[sequence]
    for row in rows:
        annotated = decode_mask(str(DAVIS / "Annotations/480p" / sequence / f"{row['frame']}.png"))
        predicted = decode_mask(str(DAVIS / "results/semi-supervised/osvos" / sequence / f"{row['frame']}.png"))
        assert annotated is not None
        assert predicted is not None
        assert region_similarity(predicted, annotated) == pytest.approx(float(row["J"]), abs=1e-6)
        assert boundary_similarity(predicted, annotated) == pytest.approx(float(row["F"]), abs=1e-6)


@needs_shared_data
def test_davis_means_leave_out_first_and_last_frame_and_read_one_proposal() -> None:
    summaries = [row for row in read_reference() if row["frame"] == "mean[1:-1]"]
    predictions, references = [], []
    for row in summaries:
        frames = sorted((DAVIS / "Annotations/480p" / row["sequence"]).glob("*.png"))[1:-1]
        is_merged = row["object"] == "all"
        folder = DAVIS / "results" / ("semi-supervised/osvos" if is_merged else "unsupervised/rvos") / row["sequence"]
        identity = "" if is_merged else "#" + row["object"].removeprefix("best id ")
        predictions.append([f"{folder / frame.name}{identity}" for frame in frames])
        references.append([str(frame) for frame in frames])
    scores = score_video_segmentation(predictions, references)["per_object"]
    assert len(summaries) == 6
    for row, found in zip(summaries, scores, strict=True):
        assert found["j"] == pytest.approx(float(row["J"]), abs=1e-6)
        assert found["f"] == pytest.approx(float(row["F"]), abs=1e-6)


@needs_shared_data
def test_real_masklets_that_appear_and_disappear() -> None:
    data = json.loads((SHARED_DATA / "sav-masklets/sav_dataset/example/sav_000001_manual.json").read_text())
    masklets = [[json.dumps(frame[k]) for frame in data["masklet"]] for k in (0, 2, 3)]
    perfect = score_video_segmentation(masklets, masklets)
    assert (perfect["j"], perfect["f"], perfect["num_frames"]) == (1.0, 1.0, 363)
    visible = [[bool(np.any(decode_mask(mask))) for mask in row] for row in masklets]
    num_hidden = sum(not seen for row in visible for seen in row)
    assert perfect["num_empty_frames"] == num_hidden > 100
    # Finding nothing is right exactly where the object is hidden.
    nothing = score_video_segmentation([[""] * 121] * 3, masklets)
    assert [row["j"] for row in nothing["per_object"]] == [row.count(False) / 121 for row in visible]
    assert nothing["j"] == nothing["f"]
