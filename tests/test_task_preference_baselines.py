from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from tests.test_task_preference_evaluation import NOTHING, make_moment, make_talk  # noqa: E402
from vidground_hf.task_preference.evaluation import score_answers  # noqa: E402
from vidground_hf.task_preference.evaluation_baselines import (  # noqa: E402
    answer_all_objects,
    answer_constantly,
    find_constants,
)
from vidground_hf.task_preference.row_masks import encode_mask  # noqa: E402
from vidground_hf.task_preference.task_rows import BadRowError, TaskRow  # noqa: E402


def test_the_best_constant_is_chosen_on_other_rows() -> None:
    shown: dict[str, Any] = {"duration_seconds": 10.0}
    known = [make_moment(str(end), (0.0, end), **shown) for end in (4.0, 5.0, 6.0)]
    known += [make_moment("late", (6.0, 10.0), **shown)]
    boxed: dict[str, Any] = {"task": "box", "question": "the dog", "image": "a.png", "width_px": 10, "height_px": 20}
    boxes = [TaskRow(id=str(k), box=(0.0, 0.0, 5.0, side), **boxed) for k, side in enumerate((9.0, 10.0, 20.0))]
    constants = find_constants([*known, *boxes, make_talk("t")])
    assert constants.span is not None
    assert constants.box is not None
    assert constants.span.tolist() == [0.0, 0.5]
    assert constants.box.tolist() == [0.0, 0.0, 0.5, 0.5]
    assert constants.mask is None
    asked = [make_moment("x", (0.0, 20.0), duration_seconds=40.0), boxes[1], make_talk("t")]
    answers = answer_constantly(asked, constants)
    found = score_answers(asked, answers)
    assert (found["moments"]["miou"], found["boxes"]["miou"]) == (1.0, 1.0)
    assert answers[2] == NOTHING
    assert find_constants([make_talk("t")]) == (None, None, None)
    with pytest.raises(BadRowError, match=re.escape("row 'y': how long its clip is must be known")):
        answer_constantly([make_moment("y", (0.0, 1.0))], constants)


def draw_square(left: int, top: int, side: int = 4, size: int = 16) -> np.ndarray:
    mask = np.zeros((size, size), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


def make_mask(name: str, *masks: np.ndarray | None, **settings: Any) -> TaskRow:
    texts = tuple(None if mask is None else encode_mask(mask) for mask in masks)
    seconds = tuple(map(float, range(len(masks))))
    return TaskRow(id=name, task="mask", question="it", video="v.mp4", masks=texts, mask_seconds=seconds, **settings)


def test_the_best_constant_mask_overlaps_most_frames() -> None:
    known = [make_mask("a", draw_square(4, 4), None, draw_square(4, 4)), make_mask("b", draw_square(12, 12))]
    constants = find_constants(known)
    assert constants.mask is not None
    # Two of three frames: an IoU of 2/3 in the mean, and 1/2 in all three with both squares.
    wanted = np.zeros((64, 64), dtype=bool)
    wanted[16:32, 16:32] = True
    assert np.array_equal(constants.mask, wanted)
    asked = make_mask("x", draw_square(8, 8, 8, 32), None, width_px=32, height_px=32)
    (answer,) = answer_constantly([asked], constants)
    assert answer.masks is not None
    assert answer.masks.shape == (1, 2, 32, 32)
    assert np.array_equal(answer.masks[0, 1].numpy(), draw_square(8, 8, 8, 32))
    assert answer.mask_seconds is not None
    assert answer.mask_seconds.tolist() == [0.0, 1.0]
    assert score_answers([asked], [answer])["masks"]["j_present"] == 1.0
    with pytest.raises(BadRowError, match=re.escape("row 'a': how large its frames are must be known for a constant")):
        answer_constantly(known, constants)


def mark_row(name: str, mask: np.ndarray) -> TaskRow:
    return make_mask(name, mask, width_px=mask.shape[1], height_px=mask.shape[0])


@pytest.mark.parametrize("size", [(16, 16), (64, 64), (63, 65), (96, 40), (100, 30)])
def test_a_constant_mask_is_not_shifted(size: tuple[int, int]) -> None:
    """Mirrored labels give the mirrored answer, and a half of the frame stays that half."""
    rng = np.random.default_rng(0)
    blob = rng.random(size) < 0.4
    (answer,) = answer_constantly([mark_row("a", blob)], find_constants([mark_row("a", blob)]))
    mirrored = mark_row("b", blob[::-1, ::-1].copy())
    (turned,) = answer_constantly([mirrored], find_constants([mirrored]))
    assert answer.masks is not None
    assert turned.masks is not None
    assert torch.equal(turned.masks, answer.masks.flip(-1, -2))
    left = np.zeros((10, 8), dtype=bool)
    left[:, :4] = True
    (half,) = answer_constantly([mark_row("c", np.ones(size, dtype=bool))], find_constants([mark_row("d", left)]))
    assert half.masks is not None
    middles = (np.arange(size[1]) + 0.5) / size[1]
    assert np.array_equal(half.masks[0, 0].numpy(), np.broadcast_to(middles <= 0.5, size))


def test_a_pixel_between_two_cells_of_a_constant_mask_counts_by_share() -> None:
    picture = np.zeros((96, 96), dtype=bool)
    picture[:, 1] = True  # one and a half pixels are a cell: half of it lies in each of the first two
    constants = find_constants([mark_row("a", picture)])
    assert constants.mask is not None
    assert constants.mask[:, :3].all(0).tolist() == [True, True, False]
    (answer,) = answer_constantly([mark_row("b", picture)], constants)
    assert answer.masks is not None
    assert answer.masks[0, 0].any(0).nonzero()[:, 0].tolist() == [0, 1, 2]  # all that two cells cover


def test_all_objects_are_those_of_all_rows_of_a_clip() -> None:
    left, right = (json.dumps({"size": [1, 2], "counts": counts}) for counts in ([0, 1, 1], [1, 1]))
    settings: dict[str, Any] = {"task": "mask", "question": "the dog", "mask_seconds": (0.0, 1.0)}
    rows = [
        TaskRow(id="a", video="v.mp4", masks=(left, None), **settings),
        TaskRow(id="b", video="v.mp4", masks=(right, None), **settings),
        TaskRow(id="c", video="w.mp4", masks=(right, right), **settings),
    ]
    shown: dict[str, Any] = {"width_px": 9, "height_px": 9, "question": "it", "image": "a.png", "task": "box"}
    boxes = [TaskRow(id=str(k), box=(float(k), 2.0, 3.0, 4.0 + k), **shown) for k in range(2)]
    moments = [make_moment("m", (1.0, 2.0)), make_moment("n", (4.0, 6.0), (0.5, 1.0))]
    answers = answer_all_objects([*rows, make_talk("t"), *boxes, *moments])
    assert [one.boxes.tolist() for one in answers if one.boxes is not None] == [[[0.0, 2.0, 3.0, 5.0]]] * 2
    assert [one.spans.tolist() for one in answers if one.spans is not None] == [[[0.5, 6.0]]] * 2
    masks = [answer.masks for answer in answers]
    assert masks[0] is not None
    assert masks[2] is not None
    assert masks[0].tolist() == [[[[True, True]], [[False, False]]]]
    assert masks[2].tolist() == [[[[False, True]], [[False, True]]]]
    assert masks[3] is None
    assert score_answers(rows, answers[:3])["masks"]["j_present"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    picture = Image.new("RGB", (2, 1))
    pictured = [
        TaskRow(id=mask, task="mask", question="it", image=picture.copy(), masks=(mask,), mask_seconds=(0.0,))
        for mask in (left, right)
    ]
    assert all(answer.masks is not None and answer.masks.all() for answer in answer_all_objects(pictured))
