"""How many rows may be asked at an evaluation, so that all evaluations take no more than a share of the training.

Measures no time itself: it is told.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass
class TrainingClock:
    """What evaluations took so far of a run, and what the next may take.

    Attributes:
        max_share (`float`): of the run's time, in (0, 1].
        began (`float`, *optional*): when training did, on any clock of seconds; `None` outside of it.
        seconds (`float`): that evaluations took.
        num_evaluations (`int`): so far.
        seconds_per_row (`float`, *optional*): of the rows asked last.

    Example:
        >>> clock = TrainingClock(max_share=0.05, began=0.0, seconds_per_row=0.5)
        >>> clock.count_rows(0.25, now=100.0)  # 21 seconds beside 400, for four evaluations
        10
    """

    max_share: float
    began: float | None = None
    seconds: float = 0.0
    num_evaluations: int = 0
    seconds_per_row: float | None = None

    def start(self, now: float) -> None:
        """A run begins."""
        self.began, self.seconds, self.num_evaluations = now, 0.0, 0

    def add(self, seconds: float) -> None:
        """An evaluation is over."""
        self.seconds += seconds
        self.num_evaluations += 1

    def count_rows(self, progress: float, now: float, pending_seconds: float = 0.0) -> int:
        """How many rows to ask, if the run goes on as it did, with as many evaluations in each part of it.

        Args:
            progress (`float`): how much of the run is done, in [0, 1]; at 0 nothing is known, and 0 is the answer.
            now (`float`): on the same clock as `began`.
            pending_seconds (`float`, *optional*, defaults to 0): what this evaluation took already.

        Returns:
            `int`: at least 0.
        """
        if self.began is None or self.seconds_per_row is None or progress <= 0:
            return 0
        if self.max_share == 1:
            return sys.maxsize
        spent_seconds = self.seconds + pending_seconds
        training_seconds = (now - self.began - spent_seconds) / progress
        # A share of the whole, which is what training takes and evaluations besides.
        left_seconds = self.max_share / (1 - self.max_share) * training_seconds - spent_seconds
        num_left = max(1.0, (self.num_evaluations + 1) / progress - self.num_evaluations)
        return max(0, int(left_seconds / num_left / self.seconds_per_row))

    def measure_share(self, now: float) -> float | None:
        """The share of evaluations in the time since training began (`float`); `None` outside of training."""
        return None if self.began is None else self.seconds / (now - self.began)
