"""One run at a time in a folder: a lock on the folder itself, which ends with the process and leaves no file.

What the folder is for, and what is said to the run that comes second, is elsewhere.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_folder(path: Path) -> int:
    """Makes a folder and locks it for as long as the handle that is returned (`int`) is open.

    Raises:
        `BlockingIOError`: when another handle has it, or has just moved or deleted it.
    """
    path.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not path.exists() or not os.path.samestat(os.fstat(handle), path.stat()):
            raise BlockingIOError(f"{str(path)!r} is not there any more")
    except BlockingIOError:
        os.close(handle)
        raise
    return handle
