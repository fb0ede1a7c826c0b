from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")
ops = pytest.importorskip("torchvision", reason="compares with it; pip install 'vidground-hf[models]'").ops

from torch import Generator, Tensor  # noqa: E402
from torch.distributions import Bernoulli, kl_divergence  # noqa: E402
from torch.nn import functional  # noqa: E402

from vidground_hf.task_preference.heads_temporal import TemporalOutput  # noqa: E402
from vidground_hf.task_preference.losses import (  # noqa: E402
    BACKGROUND_WEIGHT,
    LEVELS,
    MARGIN,
    TEMPERATURE,
    WEIGHTS,
    box_giou,
    grade_boxes,
    grade_masks,
    grade_mismatched,
    grade_prompts,
    grade_saliency,
    grade_spans,
)
from vidground_hf.task_preference.losses_terms import find_surprise  # noqa: E402
from vidground_hf.task_preference.mask_conv import MaskOutput  # noqa: E402

SEEDS = st.integers(0, 10**6)


def draw_boxes(generator: Generator, count: int) -> Tensor:
    sides = torch.rand(count, 2, 2, generator=generator).sort(1).values
    return torch.cat([sides[:, 0], sides[:, 1]], dim=1)


def make_masks(logits: Tensor, *, object_logits: Tensor | None = None, iou_logits: Tensor | None = None) -> MaskOutput:
    frames = torch.zeros(logits.shape[:2])
    return MaskOutput(
        logits,
        frames if object_logits is None else object_logits,
        frames if iou_logits is None else iou_logits,
        torch.ones_like(logits, dtype=torch.bool),
    )


def test_moments_are_graded_by_hand() -> None:
    spans = torch.tensor([[[[0.0, 0.4], [0.5, 1.0]], [[0.0, 1.0], [0.2, 0.3]]]])
    logits = torch.tensor([[[2.0, -1.0], [0.5, 0.0]]])
    terms = grade_spans(
        TemporalOutput(spans, logits, torch.zeros(2, 1)), [torch.tensor([[0.0, 0.5]]), torch.zeros(0, 2)]
    )
    positive, negatives = math.log1p(math.exp(-2.0)), [math.log1p(math.exp(x)) for x in (-1.0, 0.5, 0.0)]
    assert terms["moment_span"].item() == pytest.approx((0.05 + 0.1) / 2)
    assert terms["moment_giou"].item() == pytest.approx(1 - 0.8)
    assert terms["moment_label"].item() == pytest.approx((positive + BACKGROUND_WEIGHT * sum(negatives)) / 4)


def test_layers_are_added_up_each_with_its_own_matching() -> None:
    generator = torch.Generator().manual_seed(0)
    spans = torch.rand(2, 3, 4, 2, generator=generator).sort(-1).values
    logits = torch.randn(2, 3, 4, generator=generator)
    targets = [torch.rand(count, 2, generator=generator).sort(-1).values for count in (2, 0, 1)]
    layers = [
        grade_spans(TemporalOutput(spans[[layer]], logits[[layer]], torch.zeros(3, 1)), targets) for layer in range(2)
    ]
    both = grade_spans(TemporalOutput(spans, logits, torch.zeros(3, 1)), targets)
    for name, value in both.items():
        assert value.item() == pytest.approx(sum(layer[name].item() for layer in layers), abs=1e-6)


def test_moments_are_averaged_over_moments_and_not_over_rows() -> None:
    spans = torch.tensor([[[[0.0, 0.5], [0.5, 1.0]]] * 2])
    targets = [torch.tensor([[0.0, 0.5], [0.5, 1.0]]), torch.tensor([[0.0, 0.2]])]
    terms = grade_spans(TemporalOutput(spans, torch.zeros(1, 2, 2), torch.zeros(2, 1)), targets)
    assert terms["moment_span"].item() == pytest.approx((0.0 + 0.0 + (0.15 + 0.3) / 2) / 3)


def test_without_moments_the_spans_rest_and_the_labels_learn() -> None:
    spans = torch.tensor([[[[0.2, 0.5]]]], requires_grad=True)
    logits = torch.zeros(1, 1, 1, requires_grad=True)
    terms = grade_spans(TemporalOutput(spans, logits, torch.zeros(1, 1)), [torch.zeros(0, 2)])
    assert terms["moment_span"].item() == terms["moment_giou"].item() == 0
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert spans.grad is not None
    assert spans.grad.abs().sum() == 0
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(0.5 * BACKGROUND_WEIGHT)


def test_the_margin_is_over_all_pairs_of_frames_that_differ() -> None:
    saliency = torch.tensor([[0.5, 0.4, 0.9, 7.0], [1.0, 2.0, 3.0, 4.0]])
    targets = torch.tensor([[3.0, 1.0, 1.0, 0.0], [2.0, 2.0, 2.0, 0.0]])
    is_scored = torch.tensor([[True, True, True, False], [True, True, True, False]])
    wanted = ((MARGIN - 0.1) + (MARGIN + 0.4)) / 2  # the second row has no pair
    assert grade_saliency(saliency, targets, is_scored)["saliency_margin"].item() == pytest.approx(wanted)


def test_ranks_are_averaged_over_the_levels_that_part_a_row() -> None:
    saliency, targets = torch.tensor([[0.5, 0.1, -0.4]]), torch.tensor([[12.0, 4.0, 0.0]])
    logs = (saliency[0] / TEMPERATURE).log_softmax(0)
    per_level = [-logs[:2].mean() if level <= 4 else -logs[0] for level in LEVELS]
    terms = grade_saliency(saliency, targets, torch.ones(1, 3, dtype=torch.bool))
    assert terms["saliency_rank"].item() == pytest.approx(float(sum(per_level)) / len(LEVELS))


def test_frames_in_a_moment_are_ranked_as_one_level() -> None:
    saliency, targets = torch.tensor([[0.5, 0.1, -0.4]]), torch.tensor([[1.0, 1.0, 0.0]])
    logs = (saliency[0] / TEMPERATURE).log_softmax(0)
    terms = grade_saliency(saliency, targets, torch.ones(1, 3, dtype=torch.bool))
    assert terms["saliency_rank"].item() == pytest.approx(-float(logs[:2].mean()))


@given(seed=SEEDS)
def test_frames_without_a_target_do_not_count(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    saliency, targets = torch.randn(2, 5, generator=generator), torch.randint(13, (2, 5), generator=generator).float()
    is_scored = torch.ones(2, 5, dtype=torch.bool)
    padded = [functional.pad(part, (0, 3), value=9.0) for part in (saliency, targets)]
    terms = grade_saliency(*padded, functional.pad(is_scored, (0, 3)))  # type: ignore[call-arg]
    for name, value in grade_saliency(saliency, targets, is_scored).items():
        assert terms[name].item() == pytest.approx(value.item(), abs=1e-5)


def test_saliency_without_a_pair_is_0_with_a_gradient_path() -> None:
    saliency = torch.zeros(1, 3, requires_grad=True)
    terms = grade_saliency(saliency, torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))
    assert {name: value.item() for name, value in terms.items()} == {"saliency_margin": 0, "saliency_rank": 0}
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert saliency.grad is not None
    assert saliency.grad.abs().sum() == 0


def test_mismatched_clips_are_pushed_down() -> None:
    saliency = torch.tensor([[1.0, -2.0, 50.0]])
    wanted = sum(-math.log(1 - 1 / (1 + math.exp(-value))) for value in (1.0, -2.0)) / 2
    terms = grade_mismatched(saliency, torch.tensor([[True, True, False]]))
    assert terms["saliency_mismatched"].item() == pytest.approx(wanted, rel=1e-5)


@given(seed=SEEDS)
def test_boxes_are_graded_as_torchvision_does(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes, targets = draw_boxes(generator, 6), draw_boxes(generator, 6)
    said = torch.randn(6, generator=generator)
    terms = grade_boxes(boxes, targets, said)
    iou = ops.box_iou(boxes, targets).diagonal()
    surprise = kl_divergence(Bernoulli(probs=iou), Bernoulli(logits=said))
    assert terms["box_iou"].item() == pytest.approx(surprise.mean().item(), abs=1e-4)
    wanted = ops.generalized_box_iou_loss(boxes, targets, reduction="mean")
    assert terms["box_giou"].item() == pytest.approx(wanted.item(), abs=1e-4)
    assert terms["box_l1"].item() == pytest.approx(functional.l1_loss(boxes, targets).item(), abs=1e-6)
    pairs = ops.generalized_box_iou(boxes, targets)
    assert torch.allclose(box_giou(boxes[:, None], targets), pairs, atol=1e-4)


def test_a_box_with_swapped_corners_is_pulled_back() -> None:
    boxes = torch.tensor([[0.8, 0.7, 0.2, 0.3]], requires_grad=True)
    giou = box_giou(boxes, torch.tensor([[0.4, 0.4, 0.6, 0.6]]))
    assert -1 <= giou.item() < 0
    giou.sum().backward()
    assert boxes.grad is not None
    assert (boxes.grad != 0).all()
    assert boxes.grad.sign().tolist() == [[-1.0, -1.0, 1.0, 1.0]]  # each corner towards the target


def test_no_boxes_cost_nothing() -> None:
    terms = grade_boxes(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4), torch.zeros(0))
    assert {name: value.item() for name, value in terms.items()} == {"box_l1": 0, "box_giou": 0, "box_iou": 0}
    sum(terms.values()).backward()  # type: ignore[union-attr]


@given(seed=SEEDS)
def test_focal_loss_is_torchvisions(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, 3, 4, 5, generator=generator)
    targets = (torch.rand(2, 3, 4, 5, generator=generator) > 0.5).float()
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    terms = grade_masks(make_masks(logits), targets, everywhere, everywhere, pixel_loss="focal")
    wanted = ops.sigmoid_focal_loss(logits, targets, alpha=0.25, gamma=2.0, reduction="mean")
    assert terms["mask_focal"].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_masks_are_graded_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 2.0], [-1.0, 3.0]]]])
    targets = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    shown = torch.ones(1, 1, dtype=torch.bool)
    output = make_masks(logits, object_logits=torch.tensor([[-1.0]]), iou_logits=torch.tensor([[0.9]]).logit())
    terms = grade_masks(output, targets, shown, shown)
    share = [1 / (1 + math.exp(-value)) for value in (0.0, 2.0, -1.0, 3.0)]
    entropy = -(math.log(share[0]) + math.log(share[1]) + math.log(1 - share[2]) + math.log(1 - share[3])) / 4
    assert terms["mask_bce"].item() == pytest.approx(entropy, rel=1e-5)
    assert terms["mask_dice"].item() == pytest.approx(
        1 - (2 * (share[0] + share[1]) + 1) / (sum(share) + 2 + 1), rel=1e-5
    )
    surprise = math.log(1 / 3 / 0.9) / 3 + math.log(2 / 3 / 0.1) * 2 / 3
    assert terms["mask_iou"].item() == pytest.approx(surprise, rel=1e-5)
    assert terms["mask_object"].item() == pytest.approx(math.log1p(math.exp(1.0)), rel=1e-5)


def test_frames_without_the_object_teach_the_object_score_alone() -> None:
    logits = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    object_logits = torch.zeros(1, 3, requires_grad=True)
    has_object, is_scored = torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]])
    terms = grade_masks(make_masks(logits, object_logits=object_logits), torch.ones(1, 3, 2, 2), has_object, is_scored)
    sum(terms.values()).backward()  # type: ignore[union-attr]
    assert logits.grad is not None
    assert logits.grad.abs().sum((2, 3)).gt(0).tolist() == [[True, False, False]]
    assert object_logits.grad is not None
    assert object_logits.grad.tolist() == [[-0.25, 0.25, 0.0]]


@given(seed=SEEDS)
def test_padded_pixels_do_not_count(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    targets = torch.rand(2, 3, 4, 5, generator=generator)
    everywhere = torch.ones(2, 3, dtype=torch.bool)
    small = make_masks(logits, iou_logits=torch.full((2, 3), 0.3))
    large = MaskOutput(
        functional.pad(logits, (0, 2, 0, 1), value=5.0),
        small.object_logits,
        small.iou_logits,
        functional.pad(small.is_valid, (0, 2, 0, 1)),
    )
    wanted = grade_masks(small, targets, everywhere, everywhere)
    terms = grade_masks(large, functional.pad(targets, (0, 2, 0, 1), value=1.0), everywhere, everywhere)
    for name, value in terms.items():
        assert value.item() == pytest.approx(wanted[name].item(), abs=1e-5)


def test_an_empty_mask_of_an_empty_target_fits() -> None:
    shown = torch.ones(1, 1, dtype=torch.bool)
    output = make_masks(-torch.ones(1, 1, 2, 2), iou_logits=torch.full((1, 1), 99.0))
    assert grade_masks(output, torch.zeros(1, 1, 2, 2), shown, shown)["mask_iou"].item() == pytest.approx(0, abs=1e-9)


def test_nothing_drawn_of_an_object_smaller_than_a_cell_does_not_fit() -> None:
    shown = torch.ones(1, 1, dtype=torch.bool)
    output = make_masks(-torch.ones(1, 1, 2, 2), iou_logits=torch.full((1, 1), -99.0))
    targets = torch.tensor([[[[0.3, 0.0], [0.0, 0.0]]]])
    assert grade_masks(output, targets, shown, shown)["mask_iou"].item() == pytest.approx(0, abs=1e-9)


def test_prompts_are_graded_by_their_mean_distance() -> None:
    prompts, targets = torch.tensor([[[1.0, 2.0], [0.0, 0.0], [3.0, 3.0]]]), torch.zeros(1, 3, 2)
    assert grade_prompts(prompts, targets)["prompt_l1"].item() == pytest.approx(1.5)


def test_what_a_head_expects_of_a_box_does_not_move_it() -> None:
    boxes, said = torch.rand(3, 4).requires_grad_(), torch.rand(3).requires_grad_()
    grade_boxes(boxes, torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 3), said)["box_iou"].backward()
    assert boxes.grad is None
    assert said.grad is not None


@given(said=st.floats(-120, 120), iou=st.floats(0, 1))
def test_the_slope_of_a_judgement_is_its_error(said: float, iou: float) -> None:
    logit = torch.tensor(said, requires_grad=True)
    surprise = find_surprise(logit, torch.tensor(iou))
    surprise.backward()
    share = 1 / (1 + math.exp(-said))
    assert surprise.item() >= -1e-4
    assert logit.grad is not None
    assert logit.grad.item() == pytest.approx(share - iou, abs=1e-6)
    costs = [max(x, 0.0) + math.log1p(math.exp(-abs(x))) for x in (-said, said)]  # of being 1, and of being 0
    left = sum(part * math.log(part) for part in (iou, 1 - iou) if part > 0)
    assert surprise.item() == pytest.approx(iou * costs[0] + (1 - iou) * costs[1] + left, rel=1e-4, abs=1e-4)


def test_a_right_judgement_costs_nothing_and_a_ratio_above_1_is_1() -> None:
    iou = torch.tensor([0.25, 0.5, 0.9])
    torch.testing.assert_close(find_surprise(iou.logit(), iou), torch.zeros(3), atol=1e-6, rtol=0)
    assert find_surprise(torch.tensor(30.0), torch.tensor(1.0 + 2**-20)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("start", [-20.0, 20.0])
def test_a_head_that_is_sure_of_the_wrong_judgement_comes_back(start: float) -> None:
    """L1 behind the sigmoid stays where it is: its slope is 2e-9 there."""
    iou = torch.tensor([0.2, 0.6, 0.95])
    learned, stuck = (torch.full((3,), start, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.Adam([learned, stuck], lr=0.3, eps=1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        (find_surprise(learned, iou).sum() + (stuck.sigmoid() - iou).abs().sum()).backward()
        optimizer.step()
    torch.testing.assert_close(learned.detach().sigmoid(), iou, atol=0.02, rtol=0)
    assert (stuck.detach() - start).abs().max() < 1


def test_everything_is_graded_in_full_precision() -> None:
    shown = torch.ones(1, 1, dtype=torch.bool)
    half = torch.full((1, 4), 0.5, dtype=torch.bfloat16)
    terms = grade_boxes(half, half.float()) | grade_prompts(half, half.float()) | grade_mismatched(half, half > 0)
    terms |= grade_saliency(half, half.float(), half > 0)
    terms |= grade_masks(make_masks(torch.zeros(1, 1, 2, 2)), torch.ones(1, 1, 2, 2).bfloat16(), shown, shown)
    assert {value.dtype for value in terms.values()} == {torch.float32}


def test_every_term_has_a_weight() -> None:
    shown = torch.ones(1, 1, dtype=torch.bool)
    masks = make_masks(torch.zeros(1, 1, 2, 2))
    output = TemporalOutput(torch.tensor([[[[0.0, 1.0]]]]), torch.zeros(1, 1, 1), torch.zeros(1, 1))
    terms = grade_spans(output, [torch.zeros(0, 2)]) | grade_boxes(torch.zeros(1, 4), torch.ones(1, 4), torch.zeros(1))
    terms |= grade_saliency(torch.zeros(1, 1), torch.zeros(1, 1), shown) | grade_mismatched(torch.zeros(1, 1), shown)
    terms |= grade_masks(masks, torch.ones(1, 1, 2, 2), shown, shown) | grade_prompts(torch.ones(1), torch.ones(1))
    terms |= grade_masks(masks, torch.ones(1, 1, 2, 2), shown, shown, pixel_loss="focal")
    assert terms.keys() == WEIGHTS.keys()


def test_targets_of_another_shape_are_refused() -> None:
    with pytest.raises(
        ValueError, match=re.escape("Got shapes {'boxes': (2, 4), 'targets': (1, 4)}; allowed are equal")
    ):
        grade_boxes(torch.zeros(2, 4), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="Bring the targets to the head's rows, frames and size"):
        grade_masks(make_masks(torch.zeros(1, 1, 2, 2)), torch.zeros(1, 1, 4, 4), *[torch.ones(1, 1).bool()] * 2)


def test_another_pixel_loss_is_refused() -> None:
    shown = torch.ones(1, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match=re.escape("Got pixel_loss='mse'; allowed are 'bce' and 'focal'")):
        grade_masks(make_masks(torch.zeros(1, 1, 2, 2)), torch.zeros(1, 1, 2, 2), shown, shown, pixel_loss="mse")  # type: ignore[arg-type]
