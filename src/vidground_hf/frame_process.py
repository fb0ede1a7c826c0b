"""A process that decodes, so that a decoder that hangs or crashes takes only its own clip with it.

Which clips, and in which order, is not decided here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from vidground_hf.video_backends import DEFAULT_BACKEND
from vidground_hf.video_errors import VideoReadError
from vidground_hf.video_reading import Arguments, VideoFrames, read_video
from vidground_hf.video_sources import name_source, unwrap_cell


class FrameProcess:
    """One decoding process, started at once and killed at the end.

    It is a plain child that imports neither the main module nor torch, unless torchcodec is asked for: no thread or
    lock of this process is copied, and a script needs no guard. The time limit is the system's alarm in the child,
    which ends it wherever it hangs, also when this process is gone.
    """

    def __init__(self) -> None:
        self._pipe, theirs = Pipe()
        number = theirs.fileno()
        # -P: the folder that the user happens to be in must not stand in for a package.
        command = [sys.executable, "-P", "-m", "vidground_hf.frame_process", str(number)]
        path = os.pathsep.join(folder for folder in sys.path if folder)
        with theirs:
            self._child = subprocess.Popen(command, pass_fds=[number], env=os.environ | {"PYTHONPATH": path})

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked again."""
        return self._child.poll() is None

    def __enter__(self) -> FrameProcess:
        return self

    def __exit__(self, *details: object) -> None:
        self.kill()

    def read(self, arguments: Arguments, timeout_seconds: float | None) -> VideoFrames:
        """What `read_video` returns or raises there.

        Args:
            arguments (`tuple`): those of `read_video`; its source is a path, an URL, bytes or a cell.
            timeout_seconds (`float`, *optional*): above 0.

        Raises:
            `VideoReadError`: also when the time is up or the process dies; it is of no more use then.
        """
        source, name = unwrap_cell(*arguments[:2])
        budget = arguments[2]
        if isinstance(source, memoryview):
            source = source.tobytes()
        if hasattr(source, "read"):
            raise TypeError("an open file cannot go to another process; pass its path or bytes, or no timeout_seconds")
        try:
            self._pipe.send(((source, name, *arguments[2:]), timeout_seconds))
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            cause = describe_end(self._child.wait(), timeout_seconds)
            raise VideoReadError(
                name or name_source(source), budget.backend or DEFAULT_BACKEND, cause, "leave this video out"
            ) from error
        if isinstance(answer, Exception):
            raise answer
        frames: VideoFrames = answer
        return frames

    def kill(self) -> None:
        """End it, whatever it does. Its pipe is left to who may be reading from it."""
        self._child.kill()
        self._child.wait()


def describe_end(status: int, timeout_seconds: float | None) -> str:
    """Why a process is gone.

    Example:
        >>> describe_end(-11, 60.0)
        'the decoder crashed (SIGSEGV)'
    """
    if status == -signal.SIGALRM:
        return f"no frames after {timeout_seconds} s"
    if status < 0:
        return f"the decoder crashed ({signal.Signals(-status).name})"
    return f"the decoding process ended with exit status {status}"


def serve(pipe: Connection) -> None:
    """Read what is asked for, one after the other, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    while True:
        try:
            arguments, timeout_seconds = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, timeout_seconds or 0)
        answer: Any
        try:
            answer = read_video(*arguments)
        except (VideoReadError, ImportError, TypeError, ValueError) as error:
            answer = error
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
