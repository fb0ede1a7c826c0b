"""Which rows come when: shares of the tasks held in every step, the same order from the same seed, resumable anywhere.

Rows are looked up by their place; what is made of them is the collator's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler


class TaskBalancedSampler(Sampler[int]):
    """Draws rows so that each task has its share of every step, however many rows it has.

    Each task's rows are gone through in a fresh order again and again, and no row comes a second time before all
    others of its task have come once, over the borders of epochs too. What comes at a place depends on nothing but
    seed and epoch, so that skipping to a place, as a resumed `Trainer` does, gives what an unbroken run would have
    got.

    Args:
        tasks (`Sequence[str]`): N, of each row.
        shares (`Mapping[str, float]`, *optional*): of each task, above 0, in any unit; a task left out is not drawn.
            Equal for all tasks that have rows when left out.
        num_samples (`int`, *optional*): in an epoch; N when left out.
        block_size (`int`, *optional*, defaults to 1): rows of one step, on all processes and over all accumulated
            batches: each block has its shares as nearly as whole rows allow, in an order drawn anew.
        seed (`int`, *optional*, defaults to 0): of all draws.

    Raises:
        `ValueError`: for no rows, shares that are not above 0 or of a task without rows, and numbers below 1.

    Example:
        >>> sampler = TaskBalancedSampler(["dialogue"] * 8 + ["box"], num_samples=4, block_size=2)
        >>> [place == 8 for place in sampler].count(True)
        2
    """

    def __init__(
        self,
        tasks: Sequence[str],
        *,
        shares: Mapping[str, float] | None = None,
        num_samples: int | None = None,
        block_size: int = 1,
        seed: int = 0,
    ) -> None:
        num_samples = len(tasks) if num_samples is None else num_samples
        if num_samples < 1 or block_size < 1:
            raise ValueError(f"{num_samples = } or {block_size = } is out of range; both are at least 1")
        shares = read_shares(tasks, shares)
        self.places = {task: np.flatnonzero(np.array(tasks) == task) for task in shares}
        self.num_samples, self.block_size, self.seed, self.epoch = num_samples, block_size, seed, 0
        self._names = list(shares)
        self._order = _spread_tasks(np.array([*shares.values()]), num_samples)

    def __len__(self) -> int:
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Goes to an epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = self._shuffle_blocks()
        drawn = np.empty(self.num_samples, dtype=np.int64)
        for number, task in enumerate(self._names):
            is_task = order == number
            drawn[is_task] = self._draw_rows(number, self.places[task], int(is_task.sum()))
        return iter(drawn.tolist())

    def _shuffle_blocks(self) -> NDArray[np.int64]:
        rng = np.random.default_rng([self.seed, 0, self.epoch])
        starts = range(0, self.num_samples, self.block_size)
        return np.concatenate([rng.permutation(self._order[start : start + self.block_size]) for start in starts])

    def _draw_rows(self, number: int, places: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """The next rows of a task: a stretch of one order of all its rows behind another."""
        first = self.epoch * count
        passes = range(first // len(places), -(-(first + count) // len(places)))
        orders = [np.random.default_rng([self.seed, 1 + number, one]).permutation(places) for one in passes]
        start = first - passes.start * len(places)
        return np.concatenate([*orders, places[:0]])[start : start + count]


def read_shares(tasks: Sequence[str], shares: Mapping[str, float] | None) -> Mapping[str, float]:
    """The share of each task, equal for all that have rows where none are given.

    Args:
        tasks (`Sequence[str]`): of each row.
        shares (`Mapping[str, float]`, *optional*): of tasks.

    Raises:
        `ValueError`: for shares that are not above 0 or of a task without rows.

    Example:
        >>> read_shares(["box", "dialogue", "box"], None)
        {'box': 1.0, 'dialogue': 1.0}
    """
    known = sorted(set(tasks))
    if shares is None:
        return dict.fromkeys(known, 1.0)
    for task, share in shares.items():
        if share <= 0 or task not in known:
            raise ValueError(
                f"the share of {task!r} is {share}; allowed are shares above 0 of tasks that have rows "
                f"({', '.join(known)}); leave out a task that is not to be drawn"
            )
    return shares


def _spread_tasks(shares: NDArray[np.float64], num_samples: int) -> NDArray[np.int64]:
    """The task of each place: always the one that lags most behind its share, so that any stretch is balanced."""
    shares = shares / shares.sum()
    lag = np.zeros(len(shares))
    order = np.empty(num_samples, dtype=np.int64)
    for place in range(num_samples):
        lag += shares
        order[place] = np.argmax(lag.round(9))  # rounded, so that ties go to the first whatever the sums' last bits
        lag[order[place]] -= 1
    return order
