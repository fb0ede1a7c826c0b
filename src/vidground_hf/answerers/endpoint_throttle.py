"""How many requests may be in flight: fewer when the server says it is too many, more when it answers.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio

_FIRST_LIMIT = 4  # what a server that refuses the key gets to see; our guess


class Throttle:
    """A bound that adapts as TCP's congestion window does (RFC 5681, sections 3.1 and 3.2).

    It starts small and grows by one an answer; the first refusal halves it, and from then on it grows by about one
    in as many answers as are in flight. Refusals of requests that were sent before the last halving do not count.

    Args:
        most (`int`): the bound is never above it.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = min(_FIRST_LIMIT, most)
        self._slots = asyncio.Semaphore(self.limit)
        self._num_slots = self.limit
        self._growth = 0.0
        self._num_halvings = 0

    async def acquire(self) -> int:
        """Waits for a slot and returns a ticket for `release` and `shrink` (`int`)."""
        await self._slots.acquire()
        return self._num_halvings

    def release(self) -> None:
        """Gives a slot back; it vanishes when there are more of them than the bound allows."""
        if self._num_slots > self.limit:
            self._num_slots -= 1
        else:
            self._slots.release()

    def grow(self) -> None:
        """Counts an answer."""
        self._growth += 1 if self._num_halvings == 0 else 1 / self.limit
        if self._growth >= 1 and self.limit < self.most:
            self._growth = 0.0
            self.limit += 1
            if self._num_slots < self.limit:
                self._num_slots += 1
                self._slots.release()

    def shrink(self, ticket: int) -> None:
        """Counts a refusal."""
        if ticket == self._num_halvings:
            self._num_halvings += 1
            self._growth = 0.0
            self.limit = max(1, self.limit // 2)
