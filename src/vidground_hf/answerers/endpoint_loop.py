"""One event loop in a background thread, for requests that run at once.

It is made when it is first needed, so it works where a loop is running already (notebooks) and after a fork.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

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


def run_in_background(start: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs a coroutine on the background loop and waits until it has ended.

    When the wait is interrupted, the coroutine is cancelled and has cleaned up before this raises.

    Args:
        start (`Callable`): makes the coroutine. It is called on the loop's thread, which no interrupt reaches: one
            made on this thread could be left behind before it ever ran.
    """
    loop, has_ended = _find_loop(), threading.Event()
    tasks: list[asyncio.Task[None]] = []

    def begin() -> None:
        tasks.append(loop.create_task(start()))
        tasks[0].add_done_callback(lambda _: has_ended.set())

    def cancel() -> None:
        if tasks:
            tasks[0].cancel()
        else:
            has_ended.set()

    try:
        loop.call_soon_threadsafe(begin)
        has_ended.wait()
    except KeyboardInterrupt:
        loop.call_soon_threadsafe(cancel)
        has_ended.wait(timeout=10)
        raise
    tasks[0].result()  # raises what the coroutine raised
