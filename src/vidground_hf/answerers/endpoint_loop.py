"""One event loop in a background thread, for requests that run at once.

It is made when it is first needed, so it works where a loop is running already (notebooks) and after a fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_loop: asyncio.AbstractEventLoop | None = None
_lock = threading.Lock()


def _forget_loop() -> None:
    """A fork copies the loop but not its thread."""
    global _loop, _lock
    _loop, _lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_loop)


def _find_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="vidground-requests", daemon=True).start()
        return _loop


def run_in_background(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on the background loop and waits for its result.

    When the wait is interrupted, the coroutine is cancelled and has cleaned up before this raises.
    """
    is_done = threading.Event()

    async def finish() -> T:
        try:
            return await work
        finally:
            is_done.set()

    future = asyncio.run_coroutine_threadsafe(finish(), _find_loop())
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        is_done.wait(timeout=10)
        raise
