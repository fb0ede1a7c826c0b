from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from torch import Generator, Tensor  # noqa: E402

from vidground_hf.task_preference.features import VisionFeatures, stack_features  # noqa: E402
from vidground_hf.task_preference.heads import ConvMaskHead  # noqa: E402
from vidground_hf.task_preference.heads_targets import fit_masks  # noqa: E402
from vidground_hf.task_preference.losses import WEIGHTS, grade_masks  # noqa: E402

STATE, DEPTH, CELLS, PIXELS = 24, 12, 4, 32


@pytest.mark.parametrize("upsampling", [1, 2, 4, 8])
def test_masks_are_as_fine_as_asked(upsampling: int) -> None:
    head = ConvMaskHead(STATE, DEPTH, width=8, upsampling=upsampling)
    features = stack_features([torch.ones(1, 2, 3, DEPTH)], [torch.zeros(1)], [0.0])
    assert head(torch.ones(1, STATE), features).logits.shape == (1, 1, 2 * upsampling, 3 * upsampling)


@pytest.mark.parametrize("upsampling", [0, 3, -2])
def test_an_upsampling_that_is_no_power_of_2_is_refused(upsampling: int) -> None:
    with pytest.raises(ValueError, match=re.escape(f"Got upsampling={upsampling}; allowed are powers of 2")):
        ConvMaskHead(STATE, DEPTH, upsampling=upsampling)


def draw_clips(generator: Generator, keys: Tensor, count: int) -> tuple[Tensor, VisionFeatures, list[Tensor]]:
    """Clips of two frames with one object in each half, off the grid; each is gone from half of the frames."""
    kinds = torch.rand(count, len(keys) - 1, generator=generator).argsort(1)[:, :2]
    size = 0.25 + 0.2 * torch.rand(count, 2, 2, generator=generator)
    low = (torch.tensor([0.5, 1.0]) - size) * torch.rand(count, 2, 2, generator=generator)
    boxes = torch.cat([low, low + size], dim=-1) + torch.tensor([[0.0] * 4, [0.5, 0.0, 0.5, 0.0]])
    middles = (torch.arange(PIXELS) + 0.5) / PIXELS
    inside = (middles >= boxes[..., :2, None]) & (middles < boxes[..., 2:, None])
    pictures = (inside[:, :, 1, :, None] & inside[:, :, 0, None, :])[:, None]
    pictures = pictures & (torch.rand(count, 2, 2, 1, 1, generator=generator) > 0.5)
    share = torch.nn.functional.adaptive_avg_pool2d(pictures.flatten(0, 2).float(), CELLS).unflatten(0, (count, 2, 2))
    grid = keys[-1] + (share[..., None] * (keys[kinds] - keys[-1])[:, None, :, None, None]).sum(2)
    grid = grid + 0.05 * torch.randn(grid.shape, generator=generator)
    asked = torch.randint(2, (count,), generator=generator)
    features = stack_features(list(grid), [torch.tensor([0.5, 1.5])] * count, [2.0] * count)
    return kinds[torch.arange(count), asked], features, list(pictures[torch.arange(count), :, asked])


@pytest.mark.slow
def test_the_mask_head_learns_to_draw_what_is_asked_for() -> None:
    generator = torch.Generator().manual_seed(1)
    keys, names = (torch.randn(7, width, generator=generator) for width in (DEPTH, STATE))
    torch.manual_seed(0)
    head = ConvMaskHead(STATE, DEPTH, width=32)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=150)
    times = [torch.tensor([0.5, 1.5])]
    for _ in range(150):
        wanted, features, masks = draw_clips(generator, keys, 24)
        output = head(names[wanted], features)
        terms = grade_masks(output, *fit_masks(masks, times * 24, features, output.is_valid))
        optimizer.zero_grad()
        torch.stack([WEIGHTS[name] * value for name, value in terms.items()]).sum().backward()
        optimizer.step()
        schedule.step()
    wanted, features, masks = draw_clips(generator, keys, 128)
    with torch.no_grad():
        output = head(names[wanted], features)
    targets, has_object, _ = fit_masks(masks, times * 128, features, output.is_valid)
    drawn, gold = (output.logits > 0) & (output.object_logits > 0)[..., None, None], targets > 0.5
    overlap = (drawn & gold).sum((2, 3)) / (drawn | gold).sum((2, 3)).clamp(min=1)
    assert overlap[has_object].mean() > 0.6
    assert ((output.object_logits > 0) == has_object).float().mean() > 0.95
