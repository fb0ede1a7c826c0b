"""How much time the evaluations of a training may take, so that they never had more than a share of it.

Measures no time itself: it is told.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrainingClock:
    """What evaluations took so far of a run, and what they may take now.

    Attributes:
        max_share (`float`): of the time since training began, in (0, 1].
        began (`float`, *optional*): when training did, on any clock of seconds; `None` outside of it.
        seconds (`float`): that evaluations took.

    Example:
        >>> clock = TrainingClock(max_share=0.05, began=0.0, seconds=1.0)
        >>> round(clock.measure_left(now=115.0), 3)  # so that it is 6 of 120 seconds
        5.0
    """

    max_share: float
    began: float | None = None
    seconds: float = 0.0

    def start(self, now: float, run_seconds: float = 0.0, seconds: float = 0.0) -> None:
        """A run begins, or goes on from where so many seconds had passed and evaluations had taken some of them."""
        self.began, self.seconds = now - run_seconds, seconds

    def add(self, seconds: float) -> None:
        """An evaluation is over."""
        self.seconds += seconds

    def measure_left(self, now: float, pending_seconds: float = 0.0) -> float:
        """The seconds that asking may take from now on.

        Args:
            now (`float`): on the same clock as `began`.
            pending_seconds (`float`, *optional*, defaults to 0): what this evaluation took already.

        Returns:
            `float`: at least 0; endless outside of training.
        """
        if self.began is None or self.max_share == 1:
            return float("inf")
        # What is asked for x seconds adds x to the time of the run, too.
        left_seconds = self.max_share * (now - self.began) - self.seconds - pending_seconds
        return max(0.0, left_seconds / (1 - self.max_share))

    def measure_share(self, now: float) -> float | None:
        """The share of evaluations in the time since training began (`float`); `None` outside of training."""
        return None if self.began is None else self.seconds / (now - self.began)
