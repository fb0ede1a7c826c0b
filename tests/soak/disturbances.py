"""What happens to a run: one function a kind. Each starts runs in a place, disturbs them and says what came of it.

What must hold afterwards is checked in `trials.py`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tests.chat_server import ChatServer
from tests.soak.checks import check_message
from tests.soak.runs import Ended, Place, Running, start_run, wait_until

MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")
CAN_MOUNT = os.geteuid() == 0 and Path("/proc/mounts").exists()
CAN_GROUP = os.access(MEMORY_GROUPS / "memory.limit_in_bytes", os.W_OK) and os.geteuid() == 0
NUM_WORKERS = 2
_MEBIBYTE = 2**20
_NUM_RENAMES = 11  # of a run with four shards and an earlier output in its place
# A file is whole from its last rename on, so these are the moments at which a run goes from one state to the next.
_END_AT_RENAME = """
import os, signal
def replace(source, target, *, replace=os.replace, left=[{number}], **given):
    left[0] -= 1
    if left[0] == 0 and {is_before}:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target, **given)
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace
"""
# What is left to a library without memory: glibc's loader exits with 127, others abort or fault. Python is not asked.
_NATIVE_ENDS = (127, -signal.SIGABRT, -signal.SIGSEGV)
# Set behind the imports: below what these take nothing of ours runs that could say what is wrong.
_LIMIT_MEMORY = """
import re, resource, vidground_hf.cli, vidground_hf.curation, vidground_hf.answerers.endpoint
taken = 1024 * int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1])
resource.setrlimit(resource.RLIMIT_AS, (taken + {spare},) * 2)
"""


@dataclass(frozen=True, slots=True)
class Reference:
    """An undisturbed run: what it wrote, how long it took, how many files it left and answers it asked for."""

    options: list[str]
    folder: Path
    output: dict[str, Any]
    seconds: float
    num_files: int
    num_requests: int


class Setting(NamedTuple):
    """One trial: where, over which set, beside which reference, with which server and whose dice."""

    place: Place
    data: Path
    reference: Reference
    server: ChatServer
    rng: random.Random

    def start(self, first: str = "") -> Running:
        return start_run(self.place, self.data, self.reference.options, first=first)


def kill(setting: Setting) -> str:
    """Ends a run at a random moment, by SIGKILL more often than by SIGTERM or SIGINT."""
    rng = setting.rng
    number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    running = setting.start()
    moment = _wait_for_moment(setting, running)
    if number == signal.SIGINT:  # while Python imports, an interrupt is its own affair
        wait_until(lambda: "questions, asking" in running.read() or running.is_over())
    if not running.is_over():
        running.process.send_signal(number)
    ended = running.wait()
    if ended.status == 0:
        return f"over before {number.name} {moment}"
    if number == signal.SIGINT and ended.status == -signal.SIGINT:
        assert (setting.place.output / "report.json").exists(), f"interrupted without a word: {ended.said}"
        return f"{number.name} while Python left, the work being done, {moment}"
    if number == signal.SIGINT:
        assert "interrupted" in check_message(ended)
    else:
        assert ended.status == -number, f"{number.name} ended a run with {ended.status}: {ended.said}"
    return f"{number.name} {moment}"


def end_at_rename(setting: Setting) -> str:
    """Ends a run by SIGKILL right before or behind one of the times it puts a whole file or folder in its place."""
    number, is_before = setting.rng.randint(1, _NUM_RENAMES), setting.rng.random() < 0.5
    ended = setting.start(first=_END_AT_RENAME.format(number=number, is_before=is_before)).wait()
    told = f"{'before' if is_before else 'behind'} rename {number}"
    if ended.status == 0:
        return f"over {told}"
    assert ended.status == -signal.SIGKILL, f"status {ended.status}: {ended.said}"
    return f"SIGKILL {told}"


def kill_worker(setting: Setting) -> str:
    """Ends a worker of Ray by SIGKILL at a random request; the run goes on without it."""
    running = setting.start()
    wanted = setting.server.num_requests + setting.rng.randint(1, setting.reference.num_requests)
    _wait_at_most(lambda: setting.server.num_requests >= wanted, running)
    workers = sorted(pid for pid in list_descendants(running.process.pid) if "Worker" in _read_title(pid))
    chosen = setting.rng.choice(workers or [None])
    if chosen is not None:
        os.kill(chosen, signal.SIGKILL)
    ended = running.wait()
    assert ended.status == 0, f"a run does not outlive its worker: {ended.said}"
    return f"{'no worker was there' if chosen is None else 'a worker died'} at request {wanted}"


def list_descendants(process: int) -> list[int]:
    """Processes that a process started, and those that they did."""
    children = [int(word) for path in Path(f"/proc/{process}/task").glob("*/children") for word in _read(path).split()]
    return children + [one for child in children for one in list_descendants(child)]


def _read_title(process: int) -> str:
    return _read(Path(f"/proc/{process}/cmdline")).partition("\0")[0]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # it ended
        return ""


def _wait_for_moment(setting: Setting, running: Running) -> str:
    """Waits for a time, a number of requests or a number of files; each hits other steps of a run."""
    rng, reference, place = setting.rng, setting.reference, setting.place
    kinds = ["time", "files"] + ["requests"] * (reference.num_requests > 0)
    kind = rng.choice(kinds)
    if kind == "time":
        seconds = rng.uniform(0, 1.1 * reference.seconds)
        _wait_at_most(lambda: False, running, seconds)
        return f"after {seconds:.2f} s"
    if kind == "requests":
        wanted = setting.server.num_requests + rng.randint(1, reference.num_requests)
        _wait_at_most(lambda: setting.server.num_requests >= wanted, running)
        return f"at request {wanted}"
    wanted = place.count_files() + rng.randint(1, reference.num_files)
    _wait_at_most(lambda: place.count_files() >= wanted, running)
    _wait_at_most(lambda: False, running, rng.uniform(0, 0.02))
    return f"at file {wanted}"


def _wait_at_most(is_true: Callable[[], bool], running: Running, seconds: float = 180.0) -> None:
    try:
        wait_until(lambda: is_true() or running.is_over(), seconds)
    except TimeoutError:
        assert seconds < 180.0, f"a run hangs: {running.read()}"


def starve_of_memory(setting: Setting) -> str:
    """Limits the address space to a little more than the imports take."""
    spare = setting.rng.randint(1, 160) * _MEBIBYTE
    ended = setting.start(first=_LIMIT_MEMORY.format(spare=spare)).wait()
    if ended.status in _NATIVE_ENDS and "Traceback" not in ended.said:
        return f"{spare // _MEBIBYTE} MiB more: ended by a native library, {ended.status}"
    return f"{spare // _MEBIBYTE} MiB more: {_tell(ended)}"


def run_out_of_memory(setting: Setting) -> str:
    """Puts the run into a memory group that is too small, whose end is a SIGKILL from the kernel."""
    group = MEMORY_GROUPS / f"vidground-soak-{os.getpid()}"
    group.mkdir()
    limit = setting.rng.randint(60, 260)
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit * _MEBIBYTE))
        ended = setting.start(first=f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))").wait()
    finally:
        group.rmdir()
    if ended.status == 0:
        return f"{limit} MiB in all: done"
    assert ended.status == -signal.SIGKILL, f"status {ended.status}: {ended.said}"
    return f"{limit} MiB in all: killed by the kernel"


def fill_the_disk(setting: Setting) -> str:
    """Gives the output, the cache or the tables of `datasets` a disk that is too small, and then a larger one."""
    place, rng = setting.place, setting.rng
    folder = rng.choice([place.parent, place.parent, place.cache, place.datasets])
    num_bytes = rng.randint(8, 640) * 1024
    _mount("-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder))
    ended = setting.start().wait()
    _mount("-o", "remount,size=64m", str(folder))
    return f"{num_bytes // 1024} KiB for {folder.name}: {_tell(ended)}"


def refuse_writing(setting: Setting) -> str:
    """Makes the folder around the output, or the cache, one that cannot be written to, and then can be again."""
    folder = setting.rng.choice([setting.place.parent, setting.place.cache])
    if CAN_MOUNT:  # root may write whatever the mode is
        _mount("--bind", str(folder), str(folder))
        _mount("-o", "remount,bind,ro", str(folder))
        ended = setting.start().wait()
        _mount("-o", "remount,bind,rw", str(folder))
    else:
        folder.chmod(0o555)
        ended = setting.start().wait()
        folder.chmod(0o755)
    return f"{folder.name} read-only: {_tell(ended)}"


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def unmount(place: Place) -> None:
    """Takes away what a trial has mounted, one on the other too."""
    if CAN_MOUNT:
        mounted = [line.split()[1] for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
        for folder in reversed([folder for folder in mounted if Path(folder).parent == place.root]):
            subprocess.run(["umount", folder], check=True)


def run_two_at_once(setting: Setting) -> str:
    """Starts a second run on the same output while the first is at work."""
    first = setting.start()
    seconds = setting.rng.uniform(0, 0.7 * setting.reference.seconds)
    _wait_at_most(lambda: False, first, seconds)
    second = setting.start()
    ends = [running.wait() for running in (first, second)]
    told = [_tell(ended) for ended in ends]
    assert any(ended.status == 0 for ended in ends), f"neither of two runs came to an end: {told}"
    return f"{seconds:.2f} s apart: {' / '.join(told)}"


def _tell(ended: Ended) -> str:
    return "done" if ended.status == 0 else check_message(ended)


DISTURBANCES: dict[str, Callable[[Setting], str]] = {
    "kill": kill,
    "rename": end_at_rename,
    "dead worker": kill_worker,
    "little memory": starve_of_memory,
    "out of memory": run_out_of_memory,
    "full disk": fill_the_disk,
    "read-only": refuse_writing,
    "two at once": run_two_at_once,
}


def find_obstacle(kind: str) -> str | None:
    """Why a kind of disturbance cannot be made on this machine."""
    if kind == "full disk" and not CAN_MOUNT:
        return "mounting a small disk takes root"
    if kind == "out of memory" and not CAN_GROUP:
        return f"no memory group can be made under {MEMORY_GROUPS}"
    if kind == "dead worker" and (find_spec("ray") is None or not Path("/proc/self/task").exists()):
        return "it takes Ray, pip install 'vidground-hf[ray]', and Linux"
    return None
