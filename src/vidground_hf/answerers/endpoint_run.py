"""`Run`: many questions at once, each asked until it is answered or there is a reason to stop.

Knows nothing of HTTP; what is sent, and what a reply means, is in `endpoint_reply.py` and `endpoint.py`.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.endpoint_reply import Failure
from vidground_hf.answerers.endpoint_throttle import Throttle
from vidground_hf.answerers.endpoint_traffic import Traffic
from vidground_hf.prompts import Prompt

# Our guess: eight tries wait up to a minute in all.
_MAX_TRIES = 8
_MAX_DELAYS = 50
_BACKOFF_SECONDS = 0.5
_MAX_BACKOFF_SECONDS = 30.0
# Our guess: more than the orders in which one question is usually asked, so that it alone does not stop a run.
_MAX_FAILED_IN_A_ROW = 8
_MAX_REFUSED_AT_FIRST = 20  # our guess
_REST_SECONDS = 60.0  # our guess: how long a server that answered nothing is left alone
Q = TypeVar("Q")


class Run(Generic[Q]):
    """What the requests of one call share.

    Args:
        name (`str`): who is asked, for messages.
        concurrency (`int`): requests in flight at most.
        traffic (`Traffic`): counted up; says whether to go on.
        prepare (`Callable`): makes what is asked of a prompt, or says why it cannot be asked.
        ask (`Callable`): sends one request and says what came of it.
    """

    def __init__(
        self,
        name: str,
        concurrency: int,
        traffic: Traffic,
        prepare: Callable[[Prompt], Awaitable[Q | Answer]],
        ask: Callable[[Q], Awaitable[Answer | Failure]],
    ) -> None:
        self.name = name
        self.concurrency = concurrency
        self.traffic = traffic
        self.prepare = prepare
        self.ask = ask
        self.throttle = Throttle(concurrency)
        self.resume_at = 0.0
        self.is_stopped = asyncio.Event()

    async def answer_each(
        self, prompts: Sequence[tuple[int, Prompt]], on_answer: Callable[[int, Answer], None]
    ) -> None:
        """Answers prompts by their positions; what is held is held for as many as are in flight, however many come."""
        left = iter(prompts)
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
            on_answer(index, await self._prepare_and_answer(prompt))

    async def _prepare_and_answer(self, prompt: Prompt) -> Answer:
        if self.traffic.stop_reason is not None:
            return Answer(text=None, error=self.traffic.stop_reason)
        question = await self.prepare(prompt)
        return question if isinstance(question, Answer) else await self.answer(question)

    async def answer(self, question: Q) -> Answer:
        """Answers one question, however many tries it takes."""
        num_failed = num_delayed = 0
        while self.traffic.stop_reason is None:
            outcome = await self._take_turn(question)
            if isinstance(outcome, Answer):
                return outcome
            if outcome.then == "stop":
                self.stop(outcome.reason, outcome.wait_seconds or math.inf)
            elif outcome.then in ("leave", "unseen"):
                return Answer(text=None, error=outcome.reason, num_prompt_tokens=outcome.num_prompt_tokens)
            elif outcome.then == "refused":
                return self._leave_refused(outcome.reason)
            elif outcome.then == "slow_down":
                num_delayed += 1
            else:
                num_failed += 1
            if num_failed == _MAX_TRIES or num_delayed == _MAX_DELAYS:
                return self._give_up(f"{num_failed + num_delayed} requests failed, the last because {outcome.reason}")
            backoff_seconds = min(_MAX_BACKOFF_SECONDS, _BACKOFF_SECONDS * 2 ** max(num_failed - 1, 0))
            await self._sleep(outcome.wait_seconds + random.uniform(0, backoff_seconds))
        return Answer(text=None, error=self.traffic.stop_reason)

    def _leave_refused(self, reason: str) -> Answer:
        self.traffic.num_refused += 1
        if self.traffic.num_answered == 0 and self.traffic.num_refused == _MAX_REFUSED_AT_FIRST:
            refused = f"it refused each of the first {_MAX_REFUSED_AT_FIRST} questions, the last because {reason}"
            self.stop(f"{self.name} answers nothing: {refused}", _REST_SECONDS)
        return Answer(text=None, error=reason)

    def _give_up(self, reason: str) -> Answer:
        self.traffic.num_failed_in_a_row += 1
        if self.traffic.num_answered == 0:
            self.stop(f"{self.name} answers nothing: {reason}", _REST_SECONDS)
        elif self.traffic.num_failed_in_a_row == _MAX_FAILED_IN_A_ROW:
            in_a_row = f"{_MAX_FAILED_IN_A_ROW} questions in a row failed, the last because {reason}"
            self.stop(f"{self.name} answers no more: {in_a_row}", _REST_SECONDS)
        return Answer(text=None, error=self.traffic.stop_reason or reason)

    def stop(self, reason: str, seconds: float) -> None:
        """Sends nothing more for some time; requests in flight may finish."""
        self.traffic.stop(reason, seconds)
        self.is_stopped.set()

    async def _sleep(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.is_stopped.wait(), seconds)

    async def _take_turn(self, question: Q) -> Answer | Failure:
        ticket = await self.throttle.acquire()
        try:
            while (pause_seconds := self.resume_at - time.monotonic()) > 0 and self.traffic.stop_reason is None:
                await self._sleep(pause_seconds)
            if self.traffic.stop_reason is not None:
                return Failure("stop", self.traffic.stop_reason)
            if self.traffic.num_sent == self.traffic.max_requests:
                return Failure("stop", f"the budget of {self.traffic.max_requests} requests is spent")
            self.traffic.num_sent += 1
            self.traffic.num_in_flight += 1
            try:
                outcome = await self.ask(question)
            finally:
                self.traffic.num_in_flight -= 1
            if isinstance(outcome, Answer):
                self.traffic.num_answered += 1
                self.traffic.num_failed_in_a_row = 0
                self.throttle.grow()
            elif outcome.then == "slow_down":
                self.throttle.shrink(ticket)
                self.resume_at = max(self.resume_at, time.monotonic() + outcome.wait_seconds)
            return outcome
        finally:
            self.throttle.release()
