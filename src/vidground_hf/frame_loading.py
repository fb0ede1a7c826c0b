"""Decodes the clips of many requests ahead of their use, in processes of their own.

What is read of each is `video.py`'s.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from queue import SimpleQueue
from threading import Lock

from vidground_hf.frame_process import FrameProcess
from vidground_hf.media import FrameRequest
from vidground_hf.video_errors import VideoReadError
from vidground_hf.video_reading import VideoFrames, read_video, spell_request

Loaded = VideoFrames | VideoReadError


class FrameLoader:
    """Reads the clips of requests while the caller is busy with those before.

    A decoder that hangs or crashes costs its own clip and a new process. Use it in a `with` statement: at its end, and
    so at Ctrl-C too, no process is left.

    Args:
        num_workers (`int`, *optional*, defaults to 2): decoding processes; 0 decodes in this one, without time limit.
        timeout_seconds (`float`, *optional*, defaults to 60.0): for one clip; `None` waits for ever.
        max_ahead (`int`, *optional*, defaults to 4): clips that are decoded or being decoded and not yet asked for.

    Raises:
        `ValueError`: for numbers out of range.

    Example:
        >>> with FrameLoader() as loader:  # doctest: +SKIP
        ...     for frames in loader.load(requests):
        ...         answer(frames)
    """

    def __init__(self, num_workers: int = 2, timeout_seconds: float | None = 60.0, max_ahead: int = 4) -> None:
        if num_workers < 0 or max_ahead < 1:
            raise ValueError(f"num_workers = {num_workers}, max_ahead = {max_ahead}; pass 0 or more and 1 or more")
        if timeout_seconds is not None and timeout_seconds <= 0:
            raise ValueError(f"timeout_seconds = {timeout_seconds} is out of range; it is above 0, or None")
        self.num_workers, self.timeout_seconds, self.max_ahead = num_workers, timeout_seconds, max_ahead
        self._num_threads = max(1, (os.cpu_count() or 1) // num_workers) if num_workers else 0
        self._threads = ThreadPoolExecutor(max(num_workers, 1), "frame-loader")
        self._idle: SimpleQueue[FrameProcess | None] = SimpleQueue()
        for _ in range(num_workers):
            self._idle.put(None)
        self._lock, self._alive, self._is_open = Lock(), set[FrameProcess](), True

    def __enter__(self) -> FrameLoader:
        return self

    def __exit__(self, *details: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            self._is_open = False
            for process in self._alive:
                process.kill()
        self._threads.shutdown()

    def load(self, requests: Iterable[FrameRequest]) -> Iterator[Loaded]:
        """Read the clip of each request; `pick` and `shuffle_seed` are left for `video.show_frames`.

        Args:
            requests (`Iterable[FrameRequest]`): read as far ahead as clips are.

        Yields:
            `VideoFrames` or `VideoReadError`: one for each request, in their order.

        Raises:
            `ImportError`, `TypeError`, `ValueError`: for requests that no video could satisfy.
        """
        remaining = iter(requests)
        if not self.num_workers:
            yield from map(self._read_here, remaining)
            return
        ahead = deque(self._threads.submit(self._read_there, request) for request in islice(remaining, self.max_ahead))
        try:
            while ahead:
                loaded = ahead.popleft().result()
                ahead.extend(self._threads.submit(self._read_there, request) for request in islice(remaining, 1))
                yield loaded
        finally:
            if ahead:
                self._drop(ahead)

    def _read_here(self, request: FrameRequest) -> Loaded:
        try:
            return read_video(*spell_request(request, self._num_threads))
        except VideoReadError as error:
            return error

    def _read_there(self, request: FrameRequest) -> Loaded:
        process = self._idle.get()
        if process is not None and not process.is_alive:  # it may be killed while it waits, for want of memory
            self._bury(process)
            process = None
        process = process or self._start()
        try:
            return process.read(spell_request(request, self._num_threads), self.timeout_seconds)
        except VideoReadError as error:
            return error
        finally:
            if not process.is_alive:
                self._bury(process)
            self._idle.put(process if process.is_alive else None)

    def _start(self) -> FrameProcess:
        with self._lock:
            if not self._is_open:
                raise RuntimeError("the loader is closed; use it inside its with statement")
            process = FrameProcess()
            self._alive.add(process)
            return process

    def _bury(self, process: FrameProcess) -> None:
        with self._lock:
            self._alive.discard(process)
            process.kill()

    def _drop(self, waiting: Iterable[Future[Loaded]]) -> None:
        """Ends what nobody waits for any more; this process could not exit before it is done."""
        for future in waiting:
            future.cancel()
        with self._lock:
            for process in self._alive:
                process.kill()
