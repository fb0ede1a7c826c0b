from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'vidground-hf[models]'")

from vidground_hf.task_preference.sampling import TaskBalancedSampler  # noqa: E402

TASKS = ["dialogue"] * 50 + ["moment"] * 3 + ["box"] * 10 + ["mask"] * 7


def count_tasks(places: list[int]) -> Counter[str]:
    return Counter(TASKS[place] for place in places)


def test_every_step_has_equal_shares_however_many_rows_a_task_has() -> None:
    drawn = list(TaskBalancedSampler(TASKS, num_samples=80, block_size=8))
    for start in range(0, 80, 8):
        assert count_tasks(drawn[start : start + 8]) == {"dialogue": 2, "moment": 2, "box": 2, "mask": 2}


def test_shares_are_held_and_a_task_left_out_is_not_drawn() -> None:
    sampler = TaskBalancedSampler(TASKS, shares={"dialogue": 3, "box": 1}, num_samples=40, block_size=4)
    drawn = list(sampler)
    assert len(sampler) == 40
    assert all(count_tasks(drawn[k : k + 4]) == {"dialogue": 3, "box": 1} for k in range(0, 40, 4))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.integers(0, 5))
def test_no_row_comes_twice_before_all_of_its_task_have_come(num_samples: int, block_size: int, seed: int) -> None:
    sampler = TaskBalancedSampler(TASKS, num_samples=num_samples, block_size=block_size, seed=seed)
    seen: dict[str, list[int]] = {}
    for epoch in range(4):
        sampler.set_epoch(epoch)
        for place in sampler:
            seen.setdefault(TASKS[place], []).append(place)
    for task, places in seen.items():
        num_rows = TASKS.count(task)
        for start in range(0, len(places), num_rows):
            stretch = places[start : start + num_rows]
            assert len(set(stretch)) == len(stretch)


def test_an_epoch_can_be_entered_without_the_ones_before() -> None:
    unbroken = TaskBalancedSampler(TASKS, num_samples=33, block_size=6, seed=3)
    epochs = []
    for epoch in range(3):
        unbroken.set_epoch(epoch)
        epochs.append(list(unbroken))
    resumed = TaskBalancedSampler(TASKS, num_samples=33, block_size=6, seed=3)
    resumed.set_epoch(2)
    assert list(resumed) == epochs[2]
    assert list(resumed) == epochs[2]  # asking again changes nothing
    assert epochs[0] != epochs[1] != epochs[2]
    assert list(TaskBalancedSampler(TASKS, num_samples=33, block_size=6, seed=4)) != epochs[0]


def test_uneven_blocks_stay_within_a_row_of_their_share() -> None:
    drawn = list(TaskBalancedSampler(TASKS, num_samples=70, block_size=7))
    for start in range(0, 70, 7):
        assert max(count_tasks(drawn[start : start + 7]).values()) <= 2
    assert max(count_tasks(drawn).values()) - min(count_tasks(drawn).values()) <= 1


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=re.escape("the share of 'mask' is 0; allowed are shares above 0")):
        TaskBalancedSampler(TASKS, shares={"mask": 0})
    with pytest.raises(ValueError, match=re.escape("the share of 'audio' is 1; allowed are shares above 0 of tasks")):
        TaskBalancedSampler(TASKS, shares={"audio": 1})
    with pytest.raises(ValueError, match=re.escape("num_samples = 0 or block_size = 1 is out of range")):
        TaskBalancedSampler([])
    with pytest.raises(ValueError, match=re.escape("num_samples = 70 or block_size = 0 is out of range")):
        TaskBalancedSampler(TASKS, block_size=0)
