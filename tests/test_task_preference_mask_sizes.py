"""A mask brought down to a head's cells, as for training, and read up to pixels, as in an answer, is the same mask."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from vidground_hf.task_preference.answers import size_masks  # noqa: E402
from vidground_hf.task_preference.features import stack_features  # noqa: E402
from vidground_hf.task_preference.heads_targets import fit_masks, fit_sam_masks  # noqa: E402
from vidground_hf.task_preference.mask_conv import MaskOutput  # noqa: E402
from vidground_hf.task_preference.media_facts import MediaFacts  # noqa: E402

# The edge of a half-plane that covers the share p of its last cell is read 1/2 / (1 - p) behind the middle of the cell
# before, for p up to 1/2, and at the mirrored place for more: at most so many cells off.
EDGE_CELLS = 0.0858
# Shares around a corner are products of two such ramps, and less than 1/2 on so much of a cell's area, in the worst
# case of both p (integrated numerically).
CORNER_CELLS = 0.381


def bring_down_and_up(masks: list[Tensor], grids: list[tuple[int, int]]) -> list[Tensor]:
    """Each mask as it is answered by a head that learned it by heart, in one padded batch."""
    features = stack_features(
        [torch.ones(1, *grid, 1) for grid in grids], [torch.zeros(1)] * len(grids), [0.0] * len(grids)
    )
    targets, _, is_scored = fit_masks(
        [mask[None] for mask in masks], [torch.zeros(1)] * len(masks), features, features.is_valid
    )
    assert is_scored.all()
    logits = targets.clamp(1e-6, 1 - 1e-6).logit().masked_fill(~features.is_valid, 0.0)
    answers = []
    for row, mask in enumerate(masks):
        own = MaskOutput(logits[[row]], torch.ones(1, 1), torch.zeros(1, 1), features.is_valid[[row]])
        facts = MediaFacts(times_seconds=(0.0,), duration_seconds=0.0, height=mask.shape[0], width=mask.shape[1])
        answers.append(size_masks(own, facts, is_sam=False)["masks"][0, 0])
    return answers


def draw_rectangle(size: tuple[int, int], top_left: tuple[int, int], sides: tuple[int, int]) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[top_left[0] : top_left[0] + sides[0], top_left[1] : top_left[1] + sides[1]] = True
    return mask


@st.composite
def draw_rows(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int]]:
    """A rectangle of three cells or more a side, a cell and a half or more from the edge, and a grid."""
    size, grid, low, sides = [], [], [], []
    for _ in range(2):
        length, num_cells = draw(st.integers(8, 120)), draw(st.integers(2, 40))
        unit = max(length / num_cells, 1.0)
        margin, least = math.ceil(1.5 * unit), math.ceil(3 * unit)
        assume(length - 2 * margin >= least)
        side = draw(st.integers(least, length - 2 * margin))
        size.append(length)
        grid.append(num_cells)
        sides.append(side)
        low.append(draw(st.integers(margin, length - margin - side)))
    return draw_rectangle((size[0], size[1]), (low[0], low[1]), (sides[0], sides[1])), (grid[0], grid[1])


@given(rows=st.lists(draw_rows(), min_size=1, max_size=3))
def test_a_mask_comes_back_as_well_as_its_grid_allows(rows: list[tuple[Tensor, tuple[int, int]]]) -> None:
    masks, grids = [mask for mask, _ in rows], [grid for _, grid in rows]
    for found, mask, grid in zip(bring_down_and_up(masks, grids), masks, grids, strict=True):
        cells = [length / num_cells for length, num_cells in zip(mask.shape, grid, strict=True)]
        units = [max(cell, 1.0) for cell in cells]
        sides = [int(mask.any(1).sum()), int(mask.any(0).sum())]
        # A pixel is wrong if its middle, half a pixel from the edge, is passed.
        edges = [2 * math.floor(EDGE_CELLS * cell + 0.5) for cell in cells]
        corners = 4 * (CORNER_CELLS * units[0] * units[1] + (units[0] + units[1]) / 2 + 1)
        assert (found ^ mask).sum() <= edges[0] * sides[1] + edges[1] * sides[0] + corners


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (30, 14)])
@pytest.mark.parametrize("factor", [1, 2])
def test_what_fills_cells_of_up_to_two_pixels_comes_back_exactly(size: tuple[int, int], factor: int) -> None:
    rectangles = [
        draw_rectangle(size, (factor * top, factor * left), (factor * height, factor * width))
        for top, left, height, width in ((0, 0, 1, 1), (2, 3, 5, 4), (0, 2, size[0] // factor, 1), (1, 1, 2, 5))
    ]
    found = bring_down_and_up(rectangles, [(size[0] // factor, size[1] // factor)] * len(rectangles))
    assert all(torch.equal(one, mask) for one, mask in zip(found, rectangles, strict=True))


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    grid=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    seed=st.integers(0, 99),
)
def test_areas_are_kept_and_nothing_is_moved(size: tuple[int, int], grid: tuple[int, int], seed: int) -> None:
    """Pooling would count pixels between two cells twice."""
    mask = torch.rand(size, generator=torch.Generator().manual_seed(seed)) > 0.5
    (share,) = fit_sam_masks([mask], torch.ones(1, 1, *grid, dtype=torch.bool)).targets[0]
    assert share.mean().item() == pytest.approx(mask.float().mean().item(), abs=1e-5)
    for axis in (0, 1):
        middles = [(torch.arange(part.shape[axis]) + 0.5) / part.shape[axis] for part in (share, mask)]
        moments = [
            (part.float().mean(1 - axis) * place).mean() for part, place in zip((share, mask), middles, strict=True)
        ]
        # Within a cell or pixel it is not known where.
        assert abs(moments[0] - moments[1]) <= share.mean() / 2 / min(grid[axis], size[axis]) + 1e-5
    mirrored = fit_sam_masks([mask.flip(0, 1)], torch.ones(1, 1, *grid, dtype=torch.bool)).targets[0, 0]
    torch.testing.assert_close(mirrored.flip(0, 1), share, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("inside", "outside"), [(5.0, -20.0), (20.0, -5.0)])
def test_a_head_that_is_surer_on_one_side_of_an_edge_does_not_move_it(inside: float, outside: float) -> None:
    mask = draw_rectangle((64, 64), (12, 20), (10, 10))
    cells = functional.max_pool2d(mask[None, None].float(), 2) > 0
    logits = torch.where(cells, inside, outside)
    output = MaskOutput(logits, torch.ones(1, 1), torch.zeros(1, 1), torch.ones_like(cells))
    facts = MediaFacts(times_seconds=(0.0,), duration_seconds=0.0, height=64, width=64)
    found = size_masks(output, facts, is_sam=False)["masks"][0, 0]
    assert torch.equal(found, mask)
    assert (size_masks(output, facts, is_sam=True)["masks"][0, 0] ^ mask).any()  # what reading logits does
