from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from scipy.optimize import linear_sum_assignment  # noqa: E402
from torch import Generator, Tensor  # noqa: E402

from vidground_hf.task_preference.matching import find_centre_width, match_spans, span_giou  # noqa: E402


def draw_spans(generator: Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, 2, generator=generator).sort(-1).values


def cost(span: Tensor, logit: Tensor, target: Tensor) -> float:
    """Written out once more in numpy, number by number."""
    (s0, e0), (s1, e1) = span.double().tolist(), target.double().tolist()
    l1 = abs((s0 + e0) / 2 - (s1 + e1) / 2) + abs((e0 - s0) - (e1 - s1))
    shared = max(0.0, min(e0, e1) - max(s0, s1))
    covered = (e0 - s0) + (e1 - s1) - shared
    hull = max(e0, e1) - min(s0, s1)
    probability = 1 / (1 + np.exp(-float(logit)))
    return 10 * l1 - (shared / covered - (hull - covered) / hull) - 4 * probability


@given(
    seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 6), min_size=1, max_size=4), queries=st.integers(1, 5)
)
def test_each_row_is_matched_as_scipy_matches_it_alone(seed: int, counts: list[int], queries: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    spans, logits = draw_spans(generator, len(counts), queries), torch.randn(len(counts), queries, generator=generator)
    targets = [draw_spans(generator, count) for count in counts]
    matches = match_spans(spans, logits, targets)
    for row, count in enumerate(counts):
        table = np.zeros((queries, count))
        for query, target in itertools.product(range(queries), range(count)):
            table[query, target] = cost(spans[row, query], logits[row, query], targets[row][target])
        own = matches.rows == row
        chosen = table[matches.queries[own].numpy(), matches.targets[own].numpy()]
        assert int(own.sum()) == min(queries, count)
        assert len(set(matches.queries[own].tolist())) == len(set(matches.targets[own].tolist())) == len(chosen)
        assert chosen.sum() == pytest.approx(table[linear_sum_assignment(table)].sum(), abs=1e-4)


def test_a_small_table_is_matched_by_hand() -> None:
    spans = torch.tensor([[[0.0, 0.2], [0.5, 0.7], [0.8, 1.0]], [[0.0, 1.0], [0.4, 0.6], [0.0, 0.1]]])
    targets = [torch.tensor([[0.82, 1.0], [0.0, 0.25]]), torch.tensor([[0.4, 0.6]])]
    matches = match_spans(spans, torch.zeros(2, 3), targets)
    assert matches.rows.tolist() == [0, 0, 1]
    assert matches.queries.tolist() == [0, 2, 1]
    assert matches.targets.tolist() == [1, 0, 0]


def test_of_two_equal_spans_the_surer_one_is_matched() -> None:
    spans = torch.tensor([[[0.2, 0.4], [0.2, 0.4]]])
    assert match_spans(spans, torch.tensor([[0.0, 3.0]]), [torch.tensor([[0.2, 0.4]])]).queries.tolist() == [1]


def test_a_batch_without_moments_has_no_matches() -> None:
    matches = match_spans(torch.rand(2, 3, 2).sort(-1).values, torch.zeros(2, 3), [torch.zeros(0, 2)] * 2)
    assert [part.tolist() for part in matches] == [[], [], []]


def test_half_precision_is_matched_in_full() -> None:
    generator = torch.Generator().manual_seed(0)
    spans, targets = draw_spans(generator, 2, 4).bfloat16(), [draw_spans(generator, 2)] * 2
    full = match_spans(spans.float(), torch.zeros(2, 4), targets)
    assert torch.equal(match_spans(spans, torch.zeros(2, 4).bfloat16(), targets).queries, full.queries)


@pytest.mark.parametrize("targets", [[], [torch.zeros(0, 2)] * 2, [torch.zeros(2)], [torch.zeros(1, 4)]])
def test_targets_that_are_no_spans_are_refused(targets: list[Tensor]) -> None:
    with pytest.raises(ValueError, match=re.escape("allowed is one [S, 2] a row, S from 0 on")):
        match_spans(torch.zeros(1, 3, 2), torch.zeros(1, 3), targets)


@given(seed=st.integers(0, 10**6))
def test_giou_of_spans_is_that_of_boxes_of_one_height(seed: int) -> None:
    torchvision = pytest.importorskip("torchvision", reason="compares; pip install 'vidground-hf[models]'")
    generator = torch.Generator().manual_seed(seed)
    first, second = draw_spans(generator, 5), draw_spans(generator, 4)

    def lift(spans: Tensor) -> Tensor:
        return torch.stack([spans[:, 0], torch.zeros(len(spans)), spans[:, 1], torch.ones(len(spans))], dim=1)

    wanted = torchvision.ops.generalized_box_iou(lift(first), lift(second))
    assert torch.allclose(span_giou(first[:, None], second), wanted, atol=1e-5)


def test_giou_of_points_is_finite() -> None:
    points = torch.tensor([[0.5, 0.5], [0.2, 0.2]])
    assert span_giou(points[0], points).tolist() == [0.0, -1.0]


def test_centre_and_width() -> None:
    assert find_centre_width(torch.tensor([[0.25, 0.75], [0.0, 1.0]])).tolist() == [[0.5, 0.5], [0.5, 1.0]]
