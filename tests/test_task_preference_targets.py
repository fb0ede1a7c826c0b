from __future__ import annotations

import copy
import re

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'vidground-hf[models]'")

from vidground_hf.task_preference.targets import Targets  # noqa: E402


def make_targets() -> Targets:
    return Targets(
        moment_rows=torch.tensor([0, 3]),
        spans=[torch.tensor([[0.1, 0.2]]), torch.tensor([[0.0, 0.5], [0.6, 1.0]])],
        saliency=[None, torch.tensor([0.0, 4.0])],
        saliency_seconds=[None, torch.tensor([1.0, 3.0])],
        box_rows=torch.tensor([1]),
        boxes=torch.tensor([[0.0, 0.25, 0.5, 1.0]]),
        mask_rows=torch.tensor([2]),
        masks=[torch.ones(2, 3, 4, dtype=torch.bool)],
        mask_seconds=[torch.tensor([0.0, 0.5])],
    )


def test_counts_are_rows_by_task() -> None:
    assert make_targets().counts == {"moment": 2, "box": 1, "mask": 1}
    assert Targets().counts == {"moment": 0, "box": 0, "mask": 0}


def test_moving_reaches_every_tensor_and_keeps_its_type() -> None:
    moved = make_targets().to("meta")
    found = [
        moved.moment_rows,
        *moved.spans,
        moved.saliency[1],
        moved.saliency_seconds[1],
        moved.box_rows,
        moved.boxes,
    ]
    found += [moved.mask_rows, *moved.masks, *moved.mask_seconds]
    assert all(tensor is not None and tensor.device.type == "meta" for tensor in found)
    assert moved.saliency[0] is None
    assert moved.masks[0].dtype == torch.bool
    assert moved.moment_rows.dtype == torch.long
    assert moved.spans[0].dtype == torch.float32


def test_targets_survive_a_worker() -> None:
    again = copy.deepcopy(make_targets())  # by the methods that pickle uses
    assert again.counts == make_targets().counts
    assert torch.equal(again.spans[1], torch.tensor([[0.0, 0.5], [0.6, 1.0]]))


def test_lists_go_with_their_rows() -> None:
    message = "moment_rows names 1 rows and spans has 0; give one for each"
    with pytest.raises(ValueError, match=re.escape(message)):
        Targets(moment_rows=torch.tensor([0]))
    with pytest.raises(ValueError, match=re.escape("box_rows names 1 rows and boxes has 2")):
        Targets(box_rows=torch.tensor([0]), boxes=torch.zeros(2, 4))
