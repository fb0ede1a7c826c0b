from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from vidground_hf.task_preference.features import VisionFeatures, encode_waves, stack_features  # noqa: E402
from vidground_hf.task_preference.heads_targets import (  # noqa: E402
    fit_masks,
    fit_saliency,
    fit_sam_masks,
    mark_spans,
    pick_sam_masks,
)
from vidground_hf.task_preference.media_facts import MediaFacts  # noqa: E402


def make_features(*shapes: tuple[int, int, int], width: int = 3) -> VisionFeatures:
    """Rows of the given frames, height and width, two seconds a frame; one frame is an image."""
    grids = [torch.randn(*shape, width) for shape in shapes]
    times = [torch.arange(shape[0]) * 2.0 + 1 if shape[0] > 1 else torch.zeros(1) for shape in shapes]
    return stack_features(grids, times, [2.0 * shape[0] * (shape[0] > 1) for shape in shapes])


def test_rows_are_padded_with_zeros_behind_their_own() -> None:
    grids = [torch.ones(2, 1, 3, 4), torch.ones(1, 2, 2, 4)]
    features = stack_features(grids, [torch.tensor([1.0, 3.0]), torch.zeros(1)], [4.0, 0.0])
    assert len(features) == 2
    assert features.grid.shape == (2, 2, 2, 3, 4)
    assert features.is_valid[1].tolist() == [[[True, True, False], [True, True, False]], [[False] * 3] * 2]
    assert features.grid.sum((1, 2, 3, 4)).tolist() == [24.0, 16.0]
    assert torch.equal(features.grid[..., 0] > 0, features.is_valid)
    assert features.frames_valid().tolist() == [[True, True], [True, False]]
    assert features.times_seconds.tolist() == [[1.0, 3.0], [0.0, 0.0]]
    assert features.duration_seconds.tolist() == [4.0, 0.0]


def test_rows_are_selected_in_the_order_asked_for() -> None:
    features = make_features((2, 1, 1), (3, 2, 2))
    picked = features.select(torch.tensor([1, 0, 1]))
    assert torch.equal(picked.grid, features.grid[[1, 0, 1]])
    assert picked.duration_seconds.tolist() == [6.0, 4.0, 6.0]
    assert torch.equal(picked.is_valid[1], features.is_valid[0])
    assert picked.times_seconds[0].tolist() == [1.0, 3.0, 5.0]


def test_positions_are_shares_of_each_rows_own_size() -> None:
    features = make_features((2, 2, 4), (1, 1, 2))
    positions = features.positions()
    assert positions[0, 0, 0, :, 0].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert positions[0, 0, :, 0, 1].tolist() == [0.25, 0.75]
    assert positions[0, :, 0, 0, 2].tolist() == [0.25, 0.75]
    assert positions[1, 0, 0, :2].tolist() == [[0.25, 0.5, 0.5], [0.75, 0.5, 0.5]]
    assert positions.isfinite().all()


def test_an_image_is_in_the_middle_of_its_time() -> None:
    assert make_features((1, 2, 2)).time_fractions().tolist() == [[0.5]]


def test_times_outside_the_clip_are_brought_into_it() -> None:
    features = stack_features([torch.ones(2, 1, 1, 1)], [torch.tensor([-1.0, 5.0])], [4.0])
    assert features.time_fractions().tolist() == [[0.0, 1.0]]


def test_neighbours_among_many_frames_are_told_apart() -> None:
    waves = encode_waves(((torch.arange(128) + 0.5) / 128)[:, None], 16)
    distances = torch.cdist(waves, waves) + 10 * torch.eye(128)
    assert waves.shape == (128, 16)
    assert distances.min() > 0.5


@pytest.mark.parametrize(
    ("grids", "times", "durations"),
    [
        ([], [], []),
        ([torch.ones(2, 1, 1, 3)], [torch.ones(1)], [1.0]),
        ([torch.ones(2, 1, 3)], [torch.ones(2)], [1.0]),
        ([torch.ones(1, 1, 1, 3)], [torch.ones(1)], [1.0, 2.0]),
        ([torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1, 2)], [torch.ones(1)] * 2, [1.0, 2.0]),
    ],
)
def test_rows_that_do_not_stack_are_refused(grids: list, times: list, durations: list) -> None:
    with pytest.raises(ValueError, match=re.escape("allowed is one row or more, each a grid [T, H, W, D]")):
        stack_features(grids, times, durations)


def test_features_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(
        ValueError, match=re.escape("Got a grid of shape (1, 2, 1, 1, 3) with {'is_valid': (1, 2, 1, 2)")
    ):
        VisionFeatures(
            torch.ones(1, 2, 1, 1, 3), torch.ones(1, 2, 1, 2, dtype=torch.bool), torch.ones(1, 2), torch.ones(1)
        )


def test_frames_whose_middle_is_in_a_span_are_marked() -> None:
    features = make_features((4, 1, 1), (2, 1, 1), (3, 1, 1))
    spans = [torch.tensor([[0.0, 0.13], [0.6, 0.7]]), torch.zeros(0, 2), torch.tensor([[0.0, 1.0]])]
    marked = mark_spans(spans, features)
    assert marked.targets.tolist() == [[1.0, 0.0, 1.0, 0.0], [0.0] * 4, [1.0, 1.0, 1.0, 0.0]]
    assert marked.is_scored.tolist() == [[True] * 4, [True, True, False, False], [True, True, True, False]]


def test_saliency_goes_to_the_frames_nearest_to_a_label() -> None:
    features = make_features((3, 1, 1), (2, 1, 1))
    scores = [torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([9.0])]
    fitted = fit_saliency(scores, [torch.tensor([0.0, 1.1, 2.8, 3.5]), torch.tensor([8.0])], features)
    assert fitted.targets.tolist() == [[2.0, 3.0, 0.0], [0.0, 9.0, 0.0]]
    assert fitted.is_scored.tolist() == [[True, True, False], [False, True, False]]


def test_masks_are_averaged_over_the_pixels_of_each_rows_own_part() -> None:
    features = make_features((2, 2, 2), (1, 1, 1))
    first = torch.zeros(2, 4, 4, dtype=torch.bool)
    first[0, :2, :2] = True
    first[0, 2, 3] = True
    second = torch.ones(1, 3, 3, dtype=torch.bool)
    fitted = fit_masks([first, second], [torch.tensor([1.0, 3.0]), torch.zeros(1)], features, features.is_valid)
    assert fitted.targets[0].tolist() == [[[1.0, 0.0], [0.0, 0.25]], [[0.0, 0.0], [0.0, 0.0]]]
    assert fitted.targets[1].tolist() == [[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert fitted.has_object.tolist() == [[True, False], [True, False]]
    assert fitted.is_scored.tolist() == [[True, True], [True, False]]


def test_an_object_smaller_than_a_pixel_of_the_head_is_still_there() -> None:
    features = make_features((1, 1, 1))
    mask = torch.zeros(1, 64, 64, dtype=torch.bool)
    mask[0, 5, 5] = True
    fitted = fit_masks([mask], [torch.zeros(1)], features, features.is_valid)
    assert fitted.has_object.item()
    assert fitted.targets.item() == 1 / 4096


@pytest.mark.parametrize(
    ("times", "duration", "labels", "picked"),
    [
        ((0.5, 1.5, 2.5, 3.5), 4.0, [3.5], None),
        ((0.5, 1.5, 2.5, 3.5), 4.0, [1.1, 3.5], None),
        ((0.5, 1.5, 2.5, 3.5), 4.0, [0.2, 0.9, 2.0], 0),
        ((0.5, 1.5, 2.5, 3.5), 4.0, [1.0], 0),  # half a gap away, and no frame is nearer
        ((1 / 3, 1.0, 5 / 3), 2.0, [0.0], 0),
        ((0.5, 0.9, 3.5), 4.0, [0.9], None),  # within half the mean gap, and of another frame
        ((1.0, 1.0), 2.0, [0.2, 1.9], 0),  # one frame, repeated to fill a patch
        ((0.0,), 0.0, [0.0], 0),
        ((0.0,), 0.0, [1.0], None),
    ],
)
def test_the_first_frame_has_the_label_near_it_or_none(
    times: tuple[float, ...], duration: float, labels: list[float], picked: int | None
) -> None:
    facts = MediaFacts(times_seconds=times, duration_seconds=duration, height=2, width=2)
    masks = torch.arange(len(labels))[:, None, None].expand(-1, 2, 2)
    (found,) = pick_sam_masks([masks], [torch.tensor(labels)], [facts])
    assert (None if found is None else int(found[0, 0])) == picked


def test_masks_of_first_frames_have_the_pixels_of_a_sam() -> None:
    picture = torch.tensor([[True, True, False, False], [True, False, False, False]])
    is_valid = torch.ones(3, 1, 1, 2, dtype=torch.bool)
    fitted = fit_sam_masks([picture, None, torch.zeros(5, 3, dtype=torch.bool)], is_valid)
    assert fitted.targets[:, 0, 0].tolist() == [[0.75, 0.0], [0.0, 0.0], [0.0, 0.0]]
    assert fitted.has_object[:, 0].tolist() == [True, False, False]
    assert fitted.is_scored[:, 0].tolist() == [True, False, True]


def test_labels_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("Got {'spans': 2} rows for 1 rows of features")):
        mark_spans([torch.zeros(0, 2)] * 2, make_features((2, 1, 1)))


@pytest.mark.parametrize(("num_scores", "num_times"), [(2, 1), (0, 0)])
def test_labels_without_times_are_refused(num_scores: int, num_times: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Got {num_scores} labels and {num_times} times in row 0")):
        fit_saliency([torch.ones(num_scores)], [torch.ones(num_times)], make_features((2, 1, 1)))
