from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from torch import Tensor, nn  # noqa: E402

from vidground_hf.stats.boxes import box_iou  # noqa: E402
from vidground_hf.task_preference.features import VisionFeatures, stack_features  # noqa: E402
from vidground_hf.task_preference.heads import (  # noqa: E402
    ConvMaskHead,
    RegionHead,
    TemporalHead,
    init_head_weights,
)
from vidground_hf.task_preference.heads_layers import Attention, OutputLinear  # noqa: E402
from vidground_hf.task_preference.heads_region import _cover_cells, _find_corners  # noqa: E402
from vidground_hf.task_preference.losses import (  # noqa: E402
    WEIGHTS,
    grade_boxes,
)

STATE, DEPTH, WIDTH = 24, 12, 16
HEADS: dict[str, Callable[[], nn.Module]] = {
    "temporal": lambda: TemporalHead(STATE, DEPTH, width=WIDTH),
    "perceptron": lambda: TemporalHead(STATE, DEPTH, kind="state"),
    "detector": lambda: TemporalHead(STATE, DEPTH, width=WIDTH, kind="features"),
    "vision": lambda: RegionHead(STATE, DEPTH, width=WIDTH),
    "state": lambda: RegionHead(STATE, DEPTH, kind="state"),
    "mask": lambda: ConvMaskHead(STATE, DEPTH, width=WIDTH),
}
SHAPES = [(4, 2, 3), (1, 1, 1), (7, 1, 1), (2, 5, 4), (1, 4, 4), (3, 3, 3), (5, 2, 2), (6, 1, 5)]


def make_rows(shapes: list[tuple[int, int, int]], seed: int = 0) -> tuple[Tensor, VisionFeatures]:
    generator = torch.Generator().manual_seed(seed)
    grids = [torch.randn(*shape, DEPTH, generator=generator) for shape in shapes]
    times = [torch.arange(shape[0]) + 0.5 if shape[0] > 1 else torch.zeros(1) for shape in shapes]
    durations = [float(shape[0]) * (shape[0] > 1) for shape in shapes]
    return torch.randn(len(shapes), STATE, generator=generator), stack_features(grids, times, durations)


def list_outputs(found: object) -> dict[str, Tensor]:
    named = {name: getattr(found, name) for name in found.__slots__}  # type: ignore[attr-defined]
    return {name: value for name, value in named.items() if value is not None}


def seed_head(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return HEADS[name]()


def test_outputs_have_their_shapes() -> None:
    states, features = make_rows(SHAPES)
    out = TemporalHead(STATE, DEPTH, width=WIDTH, num_layers=3, num_queries=5)(states, features)
    assert (out.spans.shape, out.logits.shape, out.saliency.shape) == ((3, 8, 5, 2), (3, 8, 5), (8, 7))
    assert RegionHead(STATE, DEPTH, width=WIDTH)(states, features).boxes.shape == (8, 4)
    masks = ConvMaskHead(STATE, DEPTH, width=WIDTH, upsampling=2)(states, features)
    assert (masks.logits.shape, masks.object_logits.shape, masks.iou_logits.shape) == ((8, 7, 10, 10), (8, 7), (8, 7))
    assert torch.equal(masks.is_valid, features.is_valid.repeat_interleave(2, 2).repeat_interleave(2, 3))


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("mode", [True, False])
def test_a_row_alone_is_answered_as_in_a_padded_batch(name: str, mode: bool) -> None:
    head = seed_head(name).train(mode)
    states, features = make_rows(SHAPES)
    together = list_outputs(head(states, features))
    for row, (num_frames, height, width) in enumerate(SHAPES):
        grid = features.grid[row, :num_frames, :height, :width]
        alone = stack_features(
            [grid], [features.times_seconds[row, :num_frames]], [features.duration_seconds[row].item()]
        )
        for key, value in list_outputs(head(states[[row]], alone)).items():
            same = together[key].select(1 if key in ("spans", "logits") and name != "mask" else 0, row)
            value = value.select(1 if key in ("spans", "logits") and name != "mask" else 0, 0)
            own = same[tuple(slice(size) for size in value.shape)]
            assert torch.allclose(value.float(), own.float(), atol=1e-5), (key, row)


@pytest.mark.parametrize("name", HEADS)
def test_what_is_in_the_padding_does_not_matter(name: str) -> None:
    head = seed_head(name)
    states, features = make_rows(SHAPES)
    noisy = torch.where(features.is_valid[..., None], features.grid, 100.0)
    other = VisionFeatures(noisy, features.is_valid, features.times_seconds, features.duration_seconds)
    found, wanted = list_outputs(head(states, other)), list_outputs(head(states, features))
    assert all(torch.allclose(found[key].float(), wanted[key].float(), atol=1e-5) for key in wanted)


@pytest.mark.parametrize("name", [name for name in HEADS if name != "detector"])
def test_gradients_reach_every_parameter_and_the_state(name: str) -> None:
    head = seed_head(name)
    states, features = make_rows(SHAPES)
    states.requires_grad_()
    features.grid.requires_grad_()
    generator = torch.Generator().manual_seed(1)
    outputs = [value for value in list_outputs(head(states, features)).values() if value.is_floating_point()]
    sum((value * torch.randn(value.shape, generator=generator)).sum() for value in outputs).backward()
    without = [
        key for key, weight in head.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0
    ]
    assert without == []
    assert states.grad is not None
    assert states.grad.abs().sum(1).min() > 0
    assert (features.grid.grad is None) == (name in ("state", "perceptron"))
    if features.grid.grad is not None:
        assert not features.grid.grad[~features.is_valid].any()


@pytest.mark.parametrize("scale", [1.0, 1e3])
@pytest.mark.parametrize("seed", range(3))
def test_answers_are_in_bounds_whatever_the_weights(scale: float, seed: int) -> None:
    states, features = make_rows(SHAPES, seed)
    for name in ("temporal", "perceptron", "detector", "vision"):
        head = seed_head(name, seed)
        with torch.no_grad():
            for weight in head.parameters():
                weight.mul_(scale)
        found = head(states, features)
        edges = found.boxes.unflatten(-1, (2, 2)).movedim(-2, -1) if name == "vision" else found.spans
        assert edges.isfinite().all()
        assert edges.min() >= 0
        assert edges.max() <= 1
        assert (edges[..., 0] <= edges[..., 1]).all()


def test_a_detector_alone_does_not_hear_what_is_asked() -> None:
    states, features = make_rows(SHAPES)
    head = seed_head("detector")
    found, other = (list_outputs(head(one.requires_grad_(), features)) for one in (states, 5 * states.detach()))
    assert all(torch.equal(found[key], other[key]) for key in found)
    assert not torch.equal(found["spans"][:, 0], found["spans"][:, 1])
    found["spans"].sum().backward()
    assert states.grad is None or not states.grad.any()


def test_a_two_layer_temporal_head_says_one_span_and_no_saliency() -> None:
    states, features = make_rows(SHAPES)
    found = seed_head("perceptron")(states, features)
    assert found.spans.shape == (1, 8, 1, 2)
    assert found.logits.shape == (1, 8, 1)
    assert found.saliency is None


def test_a_box_covers_the_cells_that_lie_under_it() -> None:
    features = make_rows([(2, 2, 4), (1, 1, 1)])[1]  # the second row is padded
    boxes = torch.tensor([[0.125, 0.25, 0.5, 1.0], [0.2, 0.0, 0.7, 0.5]])
    covered = _cover_cells(boxes, features.is_valid).unflatten(2, (2, 4))
    across, down = torch.tensor([0.125, 0.25, 0.0, 0.0]), torch.tensor([0.25, 0.5])
    torch.testing.assert_close(covered[0], (down[:, None] * across).expand(2, 2, 4))
    torch.testing.assert_close(covered.sum((2, 3)), torch.tensor([[0.28125, 0.28125], [0.25, 0.0]]))
    assert covered[1].count_nonzero() == 1
    assert not _cover_cells(boxes[:, [0, 1, 0, 1]], features.is_valid).any()


def test_what_judges_a_box_looks_under_it() -> None:
    torch.manual_seed(0)
    head = RegionHead(STATE, DEPTH, width=WIDTH)
    features = make_rows([(2, 4, 4)])[1]
    cells = torch.randn(1, 32, WIDTH, generator=torch.Generator().manual_seed(0))
    weights = torch.zeros(1, 32)
    weights[0, 15] = 1.0  # the first frame, and a cell beside the box
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    judged = head._judge(boxes, cells, weights, features.is_valid)
    for place in range(32):
        other = cells.clone()
        other[0, place] += torch.arange(WIDTH)
        is_same = torch.equal(head._judge(boxes, other, weights, features.is_valid), judged)
        assert is_same == (place not in (0, 1, 4, 5, 15)), place


def test_what_judges_a_box_does_not_bend_it() -> None:
    states, features = make_rows(SHAPES)
    head = seed_head("vision")
    found = head(states, features)
    found.iou_logits.sum().backward()
    trained = {key.split(".")[0] for key, weight in head.named_parameters() if weight.grad is not None}
    assert trained == {"judge"}
    assert seed_head("state")(states, features).iou_logits is None


@pytest.mark.parametrize("name", HEADS)
def test_weights_can_be_filled_again(name: str) -> None:
    head = seed_head(name)
    with torch.no_grad():
        for weight in head.parameters():
            weight.fill_(float("nan"))
    torch.manual_seed(0)
    head.apply(init_head_weights)
    fresh = dict(seed_head(name).named_parameters())
    for key, weight in head.named_parameters():
        assert weight.isfinite().all(), key
        assert weight.numel() < 50 or weight.std().item() == pytest.approx(fresh[key].std().item(), rel=0.5), key


def test_loaded_weights_are_left_alone() -> None:
    layer = nn.Linear(2, 2)
    kept = layer.weight.clone()
    layer.weight._is_hf_initialized = True  # type: ignore[attr-defined]  # the mark of what came from a checkpoint
    init_head_weights(layer)
    assert torch.equal(layer.weight, kept)
    assert layer.bias.tolist() == [0.0, 0.0]


def test_output_layers_start_at_a_tenth() -> None:
    torch.manual_seed(0)
    plain, small = nn.Linear(400, 50), OutputLinear(400, 50)
    for layer in (plain, small):
        init_head_weights(layer)
    assert plain.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert small.weight.std().item() == pytest.approx(0.005, rel=0.05)


def test_fresh_queries_cover_the_clip() -> None:
    spans = seed_head("temporal")(*make_rows([(8, 2, 2)])).spans[-1, 0]
    centres = spans.mean(-1).sort().values
    assert centres[0] < 0.2
    assert centres[-1] > 0.8
    assert centres.diff().max() < 0.25


@pytest.mark.parametrize("name", HEADS)
def test_half_precision_gives_full_precision(name: str) -> None:
    states, features = make_rows(SHAPES)
    for head, inputs in ((seed_head(name).bfloat16(), states.bfloat16()), (seed_head(name), states)):
        with torch.autocast("cpu", torch.bfloat16, enabled=inputs is states):
            found = list_outputs(head(inputs, features))
        assert {value.dtype for value in found.values()} <= {torch.float32, torch.bool}
        assert all(value.isfinite().all() for value in found.values())


def test_the_state_changes_what_is_seen() -> None:
    states, features = make_rows([(4, 3, 3)] * 2)
    features = features.select(torch.tensor([0, 0]))
    for name in ("temporal", "vision", "mask"):
        first = next(iter(list_outputs(seed_head(name)(states, features)).values()))
        rows = first.unbind(1 if name == "temporal" else 0)
        assert not torch.allclose(rows[0], rows[1], atol=1e-3), name


def test_saliency_alone_is_that_of_detection() -> None:
    states, features = make_rows(SHAPES)
    head = seed_head("temporal")
    assert torch.equal(head.score_saliency(states, features), head(states, features).saliency)  # type: ignore[operator]
    assert not head(states, features).saliency[~features.frames_valid()].any()


def test_states_and_features_that_do_not_fit_are_refused() -> None:
    states, features = make_rows([(2, 1, 1)] * 2)
    head = seed_head("temporal")
    for wrong in (states[:1], states[:, :5]):
        with pytest.raises(ValueError, match=re.escape("allowed are states [N, 24] and features [N, T, H, W, 12]")):
            head(wrong, features)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("Got width=15, num_layers=2, num_queries=10; allowed are an even")):
        TemporalHead(STATE, DEPTH, width=15)
    with pytest.raises(ValueError, match=re.escape("num_queries=0; allowed are an even width and at least one layer")):
        TemporalHead(STATE, DEPTH, num_queries=0)
    with pytest.raises(ValueError, match=re.escape("Got kind='both' and width=128; allowed are 'vision'")):
        RegionHead(STATE, DEPTH, kind="both")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=re.escape("Got kind='both'; allowed are 'vision', 'state', 'features'. Pass")
    ):
        TemporalHead(STATE, DEPTH, kind="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape("a width that is a multiple of 4")):
        RegionHead(STATE, DEPTH, width=18)
    with pytest.raises(ValueError, match=re.escape("Got width=16 and num_heads=3; allowed is a width that the heads")):
        Attention(16, 3)


def test_a_reach_is_counted_in_cells_and_ends_at_the_edge() -> None:
    head = RegionHead(STATE, DEPTH, width=WIDTH)
    with torch.no_grad():
        for parameter in (*head.reach.parameters(), *head.score.parameters()):
            parameter.zero_()
    states, features = make_rows([(1, 1, 1), (1, 2, 4)])
    share = torch.tensor(2.0).neg().exp() / 2  # half a picture of room, and a cell as large as the picture
    torch.testing.assert_close(head(states, features).boxes[0], torch.stack([share, share, 1 - share, 1 - share]))
    middles = torch.tensor([0.125, 0.375, 0.625, 0.875])
    left = (middles * (-0.25 / middles).exp()).mean()
    torch.testing.assert_close(head(states, features).boxes[1, 0], left)
    for reach in (-100.0, 100.0):
        with torch.no_grad():
            head.reach.bias.fill_(reach)
        boxes = head(states, features).boxes
        edges = [0.5] * 4 if reach < 0 else [0.0, 0.0, 1.0, 1.0]
        torch.testing.assert_close(boxes[0], torch.tensor(edges))
        boxes.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((1, 1, 1), [0.0, 0.0, 1.0, 1.0]),
        ((1, 1, 1), [0.49, 0.48, 0.52, 0.51]),
        ((1, 1, 6), [0.0, 0.0, 1.0, 1.0]),
        ((1, 1, 6), [0.9, 0.4, 1.0, 0.6]),
        ((3, 4, 5), [0.0, 0.0, 1.0, 1.0]),
        ((3, 4, 5), [0.0, 0.0, 0.2, 0.25]),
        ((3, 4, 5), [0.8, 0.8, 1.0, 1.0]),
        ((3, 4, 5), [0.0, 0.3, 1.0, 0.4]),
        ((3, 4, 5), [0.48, 0.36, 0.52, 0.39]),
    ],
)
def test_boxes_of_any_size_and_place_can_be_told(shape: tuple[int, int, int], wanted: list[float]) -> None:
    """By the cell that is nearest to the middle of the box, and inside it."""
    middle = torch.tensor([(wanted[0] + wanted[2]) / 2, (wanted[1] + wanted[3]) / 2])
    features = make_rows([shape, (4, 7, 7)])[1].select(torch.tensor([0]))  # padded
    places = features.positions()[..., :2].flatten(1, 3)
    is_valid = features.is_valid.flatten(1)[0]
    nearest = int((places[0] - middle).norm(dim=-1).masked_fill(~is_valid, 9.0).argmin())
    place = places[:, [nearest]]
    target = torch.tensor([wanted])
    reach = torch.zeros(1, 1, 4, requires_grad=True)
    optimizer = torch.optim.Adam([reach], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        found = _find_corners(place, reach, features.is_valid)[:, 0]
        sum(WEIGHTS[name] * term for name, term in grade_boxes(found, target).items()).backward()  # type: ignore[union-attr]
        assert reach.grad is not None
        assert reach.grad.isfinite().all()
        optimizer.step()
    assert box_iou(found.detach().numpy(), target.numpy())[0] > 0.95


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [-1e4, -100.0, -20.0, 0.0, 5.9, 6.1, 100.0, 6e4])
def test_corners_and_their_gradients_are_finite_whatever_the_reach(dtype: Any, value: float) -> None:
    features = make_rows([(1, 1, 1), (3, 9, 2), (2, 1, 7)])[1]
    reach = torch.full((*features.is_valid.flatten(1).shape, 4), value, dtype=dtype, requires_grad=True)
    corners = _find_corners(features.positions()[..., :2].flatten(1, 3), reach.float(), features.is_valid)
    assert corners.dtype == torch.float32
    assert ((corners >= 0) & (corners <= 1)).all()
    assert (corners[..., :2] <= corners[..., 2:]).all()
    (corners * torch.randn(corners.shape)).sum().backward()
    assert reach.grad is not None
    assert reach.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_a_region_head_in_half_precision_are_finite(dtype: Any) -> None:
    states, features = make_rows(SHAPES)
    head = seed_head("vision").to(dtype)
    found = head(10 * states, features)
    targets = torch.tensor(
        [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.1, 0.1], [0.9, 0.9, 1.0, 1.0], [0.4, 0.4, 0.5, 0.6]] * 2
    )
    sum(grade_boxes(found.boxes, targets, found.iou_logits).values()).backward()  # type: ignore[union-attr]
    for key, weight in head.named_parameters():
        assert weight.grad is not None, key
        assert weight.grad.isfinite().all(), key
