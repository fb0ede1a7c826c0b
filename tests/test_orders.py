from __future__ import annotations

from collections import Counter
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.orders import count_orders, draw_orders, draw_shares
from vidground_hf.schema import Example


def make_example(num_options: int, question: str = "which?") -> Example:
    options = tuple(f"option {index}" for index in range(num_options))
    return Example(id="1", question=question, problem_type="multiple_choice", options=options)


@given(st.integers(0, 12), st.integers(0, 30), st.integers(), st.text())
def test_all_rotations_come_before_other_permutations(
    num_options: int, num_trials: int, seed: int, question: str
) -> None:
    orders = draw_orders(make_example(num_options, question), num_trials, seed)
    assert len(orders) == num_trials
    assert all(sorted(order) == list(range(num_options)) for order in orders)
    rotations = [order for order in orders[:num_options] if num_options]
    assert len(set(rotations)) == min(num_options, num_trials)
    assert all((order[k] + 1) % num_options == order[(k + 1) % num_options] for order in rotations for k in order)
    assert draw_orders(make_example(num_options, question), num_trials + 5, seed)[:num_trials] == orders


def test_the_first_rotation_is_uniform_over_rows() -> None:
    firsts = Counter(draw_orders(make_example(4, f"question {index}"), 1)[0] for index in range(4000))
    assert len(firsts) == 4
    assert max(abs(count - 1000) for count in firsts.values()) < 120  # four standard deviations


def test_orders_depend_on_the_seed_and_the_words_alone() -> None:
    example = make_example(6)
    other = Example(id="2", question="which?", problem_type="multiple_choice", options=example.options, video="b.mp4")
    assert draw_orders(example, 9) == draw_orders(other, 9)
    assert draw_orders(example, 9, seed=1) != draw_orders(example, 9, seed=2)
    assert draw_orders(example, 1, seed=None) == [(0, 1, 2, 3, 4, 5)]


def test_words_that_are_no_valid_text_have_orders_too() -> None:
    assert len(draw_orders(make_example(3, "\ud800\x00\u202e"), 3)) == 3


def test_shares_are_uniform_and_not_tied_to_the_orders() -> None:
    examples = [make_example(4, f"question {index}") for index in range(4000)]
    shares = draw_shares(examples)
    assert shares != draw_shares(examples, seed=1)
    assert all(0 <= share < 1 for share in shares)
    assert abs(sum(share < 0.5 for share in shares) - 2000) < 130
    low = [draw_orders(example, 1)[0] for example, share in zip(examples, shares, strict=True) if share < 0.5]
    assert max(abs(count - len(low) / 4) for count in Counter(low).values()) < 90


def test_rows_with_the_same_words_have_shares_of_their_own() -> None:
    shares = draw_shares([make_example(2)] * 4000)
    assert len(set(shares)) == 4000
    assert abs(sum(share < 0.5 for share in shares) - 2000) < 130
    answered = Example(id="7", question="which?", problem_type="multiple_choice", options=("option 0", "option 1"),
                       answer_index=1, answer="option 1", video="v.mp4")  # fmt: skip
    assert draw_shares([answered]) == draw_shares([make_example(2)])


@given(st.lists(st.sampled_from("abc"), max_size=6))
def test_orders_are_counted_like_distinct_permutations(options: list[str]) -> None:
    assert count_orders(options) == len(set(permutations(options)))


def test_a_set_that_is_cut_draws_the_same_shares() -> None:
    examples = [make_example(3)] * 4
    assert draw_shares(examples[2:], num_before=[2, 3]) == draw_shares(examples)[2:]
