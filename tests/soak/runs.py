"""`vidground curate` as a child process of its own group, and the folders that one trial gives it.

What is done to the process is in `disturbances.py`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
CONCURRENCY = 8
"""Requests in flight at most, and so the most answers that a killed run may have paid for and not kept."""
_WAIT_SECONDS = 180.0  # an undisturbed run takes 4; our guess at what is a hang on the slowest machine of a CI
ROWS_PER_SHARD = 40
"""In place of the package's own, so that a run of a few hundred rows has several shards, and ends between them too."""
# A shell's background jobs are started deaf to an interrupt. Modules take the size of a shard when they are imported.
_CURATE = f"""
import signal; signal.signal(signal.SIGINT, signal.default_int_handler)
import vidground_hf.shards; vidground_hf.shards.ROWS_PER_SHARD = {ROWS_PER_SHARD}
{{first}}
from vidground_hf.cli import main; main()
"""


class Place(NamedTuple):
    """The folders of one trial; each may be a small disk of its own."""

    root: Path

    @property
    def parent(self) -> Path:
        return self.root / "outputs"

    @property
    def output(self) -> Path:
        return self.parent / "curated"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    def make(self) -> Place:
        for folder in (self.parent, self.cache, self.datasets, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)
        return self

    def count_files(self) -> int:
        return sum(len(files) for _, _, files in os.walk(self.root))


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: exit status (minus the signal, if one ended it), and what it said on stderr."""

    status: int
    said: str


@dataclass(frozen=True, slots=True)
class Running:
    """A run that was started."""

    process: subprocess.Popen[bytes]
    stderr: Path

    def read(self) -> str:
        return self.stderr.read_text(encoding="utf-8", errors="replace")

    def wait(self, seconds: float = _WAIT_SECONDS) -> Ended:
        """Waits for the end of the process and of all that it started.

        Raises:
            `AssertionError`: when that takes too long; the group is killed.
        """
        try:
            status = self.process.wait(seconds)
            wait_until(lambda: not _has_members(self.process.pid), 20.0)
        except (subprocess.TimeoutExpired, TimeoutError) as error:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"a run, or a process of it, hangs: {error}; it said: {self.read()}") from error
        return Ended(status, self.read())

    def is_over(self) -> bool:
        return self.process.poll() is not None


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(is_true: Callable[[], bool], seconds: float = _WAIT_SECONDS) -> None:
    """Polls every millisecond.

    Raises:
        `TimeoutError`: when it does not become true.
    """
    deadline = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"nothing happened in {seconds:.0f} s")
        time.sleep(0.001)


def start_run(place: Place, data: Path, options: Sequence[str], *, first: str = "") -> Running:
    """Starts `vidground curate`.

    Args:
        place (`Place`): where it writes.
        data (`Path`): the set.
        options (`Sequence[str]`): who answers, and where.
        first (`str`, *optional*): code that the process runs before the command.
    """
    arguments = ["curate", str(data), "--output", str(place.output), *options]
    settings = {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "VIDGROUND_CACHE": str(place.cache),
        "HF_DATASETS_CACHE": str(place.datasets),
        "TMPDIR": str(place.scratch),
        "RAY_TMPDIR": tempfile.gettempdir(),  # its sockets take a short path; what it leaves is its own affair
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    stderr = place.root / f"stderr_{len(list(place.root.glob('stderr_*')))}.txt"
    with stderr.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _CURATE.format(first=first), *arguments],
            env=os.environ | settings, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file,
            start_new_session=True,
        )  # fmt: skip
    return Running(process, stderr)
