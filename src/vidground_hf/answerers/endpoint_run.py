"""`Run`: many questions at once, each asked until it is answered or there is a reason to stop.

Knows nothing of HTTP; what is sent, and what a reply means, is in `endpoint_reply.py` and `endpoint.py`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.endpoint_reply import Failure
from vidground_hf.answerers.endpoint_throttle import Throttle
from vidground_hf.prompts import Prompt

# Our guess: eight tries wait up to a minute in all.
_MAX_TRIES = 8
_MAX_REFUSALS = 50
_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0


@dataclass(slots=True)
class Traffic:
    """The requests of all runs of one answerer.

    Attributes:
        max_requests (`int`, *optional*): what may be sent in all.
        num_sent (`int`): tries included.
        num_in_flight (`int`): sent and not yet answered.
    """

    max_requests: int | None
    num_sent: int = 0
    num_in_flight: int = 0


class Run:
    """What the requests of one call share: the bound, and the reason to stop, once there is one.

    Args:
        name (`str`): who is asked, for messages.
        concurrency (`int`): requests in flight at most.
        traffic (`Traffic`): counted up.
        ask (`Callable`): sends one request and says what came of it.
    """

    def __init__(
        self,
        name: str,
        concurrency: int,
        traffic: Traffic,
        ask: Callable[[Prompt], Awaitable[Answer | Failure]],
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.traffic = traffic
        self.ask = ask
        self.throttle = Throttle(concurrency)
        self.num_answered = 0
        self.resume_at = 0.0
        self.stop_reason: str | None = None
        self.is_stopped = asyncio.Event()

    async def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        """Answers prompts; none is taken before it can be asked, so what is held does not grow with their number."""
        left = iter(enumerate(prompts))
        num_workers = min(self.concurrency, len(prompts))
        workers = [asyncio.create_task(self._work(left, on_answer)) for _ in range(num_workers)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, left: Iterator[tuple[int, Prompt]], on_answer: Callable[[int, Answer], None]) -> None:
        for index, prompt in left:
            on_answer(index, await self.answer(prompt))

    async def answer(self, prompt: Prompt) -> Answer:
        """Answers one prompt, however many tries it takes."""
        num_answered_before = self.num_answered
        num_failed = num_refused = 0
        while self.stop_reason is None:
            outcome = await self._take_turn(prompt)
            if isinstance(outcome, Answer):
                return outcome
            if outcome.then == "stop":
                self.stop(outcome.reason)
            elif outcome.then == "leave":
                return Answer(text=None, error=outcome.reason)
            elif outcome.then == "slow_down":
                num_refused += 1
            else:
                num_failed += 1
            if num_failed == _MAX_TRIES or num_refused == _MAX_REFUSALS:
                reason = f"{num_failed + num_refused} requests failed, the last because {outcome.reason}"
                if self.num_answered > num_answered_before:
                    return Answer(text=None, error=reason)
                self.stop(f"{self.name} answers nothing: {reason}")
            backoff_seconds = min(_MAX_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2 ** max(num_failed - 1, 0))
            await self._sleep(outcome.wait_seconds + random.uniform(0, backoff_seconds))
        return Answer(text=None, error=self.stop_reason)

    def stop(self, reason: str) -> None:
        """Sends nothing more; requests in flight may finish."""
        self.stop_reason = self.stop_reason or reason
        self.is_stopped.set()

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.is_stopped.wait(), seconds)

    async def _take_turn(self, prompt: Prompt) -> Answer | Failure:
        ticket = await self.throttle.acquire()
        try:
            while (pause_seconds := self.resume_at - time.monotonic()) > 0 and self.stop_reason is None:
                await self._sleep(pause_seconds)
            if self.stop_reason is not None:
                return Failure("stop", self.stop_reason)
            if self.traffic.num_sent == self.traffic.max_requests:
                return Failure("stop", f"the budget of {self.traffic.max_requests} requests is spent")
            self.traffic.num_sent += 1
            self.traffic.num_in_flight += 1
            try:
                outcome = await self.ask(prompt)
            finally:
                self.traffic.num_in_flight -= 1
            if isinstance(outcome, Answer):
                self.num_answered += 1
                self.throttle.grow()
            elif outcome.then == "slow_down":
                self.throttle.shrink(ticket)
                self.resume_at = max(self.resume_at, time.monotonic() + outcome.wait_seconds)
            return outcome
        finally:
            self.throttle.release()
