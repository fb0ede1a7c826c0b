import asyncio
import os
import signal

import pytest

from vidground_hf.answerers import endpoint_loop
from vidground_hf.answerers.endpoint_loop import run_in_background


def test_it_waits_until_the_work_has_ended():
    told = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        told.append("ended")

    run_in_background(work)
    assert told == ["ended"]


def test_what_the_work_raises_is_raised_here():
    async def work() -> None:
        raise LookupError("no such server")

    with pytest.raises(LookupError, match="no such server"):
        run_in_background(work)


def test_interrupted_work_has_cleaned_up_before_the_interrupt_goes_on():
    told = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            told.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        run_in_background(work)
    assert told == ["cleaned up"]


@pytest.mark.parametrize("where", ["on the way there", "on the way back"])
def test_interrupts_around_the_start_leave_no_work_that_never_ran(monkeypatch, where):
    """A coroutine that is left before it ran would warn, which is an error in these tests."""
    loop, told = endpoint_loop._find_loop(), []

    class Interrupted:
        create_task = staticmethod(loop.create_task)

        def __init__(self) -> None:
            self.num_calls = 0

        def call_soon_threadsafe(self, callback):
            self.num_calls += 1
            if self.num_calls > 1 or where == "on the way back":
                loop.call_soon_threadsafe(callback)
            if self.num_calls == 1:
                raise KeyboardInterrupt

    async def work() -> None:
        told.append("began")
        try:
            await asyncio.sleep(60)
        finally:
            told.append("ended")

    monkeypatch.setattr(endpoint_loop, "_find_loop", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_in_background(work)
    assert told in ([], ["began", "ended"])
    assert told == [] or where == "on the way back"
