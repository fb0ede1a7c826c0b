from __future__ import annotations

from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from scipy.stats import spearmanr  # noqa: E402
from torch import Generator, Tensor, nn  # noqa: E402

from tests.test_task_preference_heads import DEPTH, STATE  # noqa: E402
from vidground_hf.stats.boxes import box_iou  # noqa: E402
from vidground_hf.task_preference.features import VisionFeatures, stack_features  # noqa: E402
from vidground_hf.task_preference.heads import RegionHead, TemporalHead  # noqa: E402
from vidground_hf.task_preference.heads_targets import mark_spans  # noqa: E402
from vidground_hf.task_preference.losses import (  # noqa: E402
    WEIGHTS,
    Terms,
    grade_boxes,
    grade_saliency,
    grade_spans,
)


def train(head: nn.Module, num_steps: int, take_step: Callable[[], Terms]) -> None:
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=num_steps)
    for _ in range(num_steps):
        loss = torch.stack([WEIGHTS[name] * value for name, value in take_step().items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def draw_clips(generator: Generator, keys: Tensor, count: int) -> tuple[Tensor, VisionFeatures, list[Tensor]]:
    """Clips of 16 frames, each of some kind; one stretch, of at most half the clip, is of the kind asked for."""
    num_frames = 16
    lengths = torch.randint(2, num_frames // 2 + 1, (count,), generator=generator)
    starts = (torch.rand(count, generator=generator) * (num_frames - lengths + 1)).long()
    wanted = torch.randint(len(keys), (count,), generator=generator)
    frames = torch.arange(num_frames)
    is_inside = (frames >= starts[:, None]) & (frames < (starts + lengths)[:, None])
    others = (wanted[:, None] + torch.randint(1, len(keys), (count, num_frames), generator=generator)) % len(keys)
    grid = keys[torch.where(is_inside, wanted[:, None], others)]
    grid = grid + 0.1 * torch.randn(grid.shape, generator=generator)
    features = stack_features(list(grid[:, :, None, None]), [frames + 0.5] * count, [float(num_frames)] * count)
    spans = torch.stack([starts, starts + lengths], dim=1) / num_frames
    return wanted, features, list(spans[:, None])


def test_the_temporal_head_learns_to_find_what_is_asked_for() -> None:
    generator = torch.Generator().manual_seed(1)
    keys, names = (torch.randn(8, width, generator=generator) for width in (DEPTH, STATE))
    torch.manual_seed(0)
    head = TemporalHead(STATE, DEPTH, width=32)

    def take_step() -> Terms:
        wanted, features, spans = draw_clips(generator, keys, 32)
        out = head(names[wanted], features)
        return grade_spans(out, spans) | grade_saliency(out.saliency, *mark_spans(spans, features))

    train(head, 300, take_step)
    wanted, features, spans = draw_clips(generator, keys, 256)
    with torch.no_grad():
        out = head(names[wanted], features)
    best = out.spans[-1][torch.arange(256), out.logits[-1].argmax(1)]
    gold = torch.cat(spans)
    shared = (torch.minimum(best[:, 1], gold[:, 1]) - torch.maximum(best[:, 0], gold[:, 0])).clamp(min=0)
    overlap = shared / ((best[:, 1] - best[:, 0]) + (gold[:, 1] - gold[:, 0]) - shared)
    assert (overlap >= 0.5).float().mean() > 0.9
    assert mark_spans(spans, features).targets[torch.arange(256), out.saliency.argmax(1)].mean() > 0.99


def draw_pictures(generator: Generator, keys: Tensor, count: int) -> tuple[Tensor, VisionFeatures, Tensor]:
    """Grids of 6 x 6 cells with one object in each half, off the grid; one of the two is asked for."""
    num_cells = 6
    kinds = torch.rand(count, len(keys) - 1, generator=generator).argsort(1)[:, :2]
    size = 0.2 + 0.25 * torch.rand(count, 2, 2, generator=generator)
    room = torch.tensor([0.5, 1.0]) - size
    low = room * torch.rand(count, 2, 2, generator=generator) + torch.tensor([[0.0, 0.0], [0.5, 0.0]])
    boxes = torch.cat([low, low + size], dim=-1)
    edges = torch.arange(num_cells + 1) / num_cells
    inside = (torch.minimum(edges[1:], boxes[..., 2:, None]) - torch.maximum(edges[:-1], boxes[..., :2, None])).clamp(
        0
    )
    share = num_cells**2 * inside[:, :, 1, :, None] * inside[:, :, 0, None, :]
    grid = keys[-1] + (share[..., None] * (keys[kinds] - keys[-1])[:, :, None, None]).sum(1)
    grid = grid + 0.05 * torch.randn(grid.shape, generator=generator)
    asked = torch.randint(2, (count,), generator=generator)
    features = stack_features(list(grid[:, None]), [torch.zeros(1)] * count, [0.0] * count)
    return kinds[torch.arange(count), asked], features, boxes[torch.arange(count), asked]


@pytest.mark.parametrize(("kind", "low", "high"), [("vision", 0.8, 1.0), ("state", 0.0, 0.4)])
def test_a_region_head_that_sees_learns_boxes_and_a_blind_one_does_not(kind: str, low: float, high: float) -> None:
    generator = torch.Generator().manual_seed(1)
    keys, names = (torch.randn(7, width, generator=generator) for width in (DEPTH, STATE))
    torch.manual_seed(0)
    head = RegionHead(STATE, DEPTH, kind=kind, width=32)  # type: ignore[arg-type]

    def take_step() -> Terms:
        wanted, features, boxes = draw_pictures(generator, keys, 32)
        found = head(names[wanted], features)
        return grade_boxes(found.boxes, boxes, found.iou_logits)

    train(head, 200, take_step)
    wanted, features, boxes = draw_pictures(generator, keys, 512)
    with torch.no_grad():
        found = head(names[wanted], features)
    overlap = box_iou(found.boxes.numpy(), boxes.numpy())
    assert low <= (overlap >= 0.5).mean() <= high
    if kind == "vision":  # and it knows which are better
        assert spearmanr(found.iou_logits.numpy(), overlap).statistic > 0.25
        assert found.iou_logits.sigmoid().mean().item() == pytest.approx(overlap.mean(), abs=0.05)
