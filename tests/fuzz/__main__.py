"""`python -m tests.fuzz --target cache --seconds 60 --corpus DIR`: coverage-guided fuzzing with atheris.

Prints a line a target: executions, corpus, and what was found. A finding is left in the corpus folder as `crash-*`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Needs atheris: pip install '.[fuzz]'")
    parser.add_argument("--target", choices=["all", *TARGETS], default="all")
    parser.add_argument("--seconds", type=int, default=60, help="For each target.")
    parser.add_argument("--corpus", type=Path, required=True, help="Kept between runs, a folder a target.")
    given = parser.parse_args()
    names = list(TARGETS) if given.target == "all" else [given.target]
    return max([_fuzz(name, given.seconds, given.corpus / name) for name in names])


def _fuzz(name: str, seconds: int, corpus: Path) -> int:
    """One target in a process of its own, since a finding or a crash ends it; returns 1 for a finding."""
    corpus.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vidground-fuzz-") as scratch:
        settings = {
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "OMP_NUM_THREADS": "1",
            "TMPDIR": scratch,
            "HF_DATASETS_CACHE": f"{scratch}/datasets",
            "VIDGROUND_CACHE": f"{scratch}/vidground",
            "PYTHONWARNINGS": "ignore",
        }
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("harness.py")), name, str(seconds), str(corpus)],
            env=os.environ | settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            check=False,
        )  # fmt: skip
    executions = re.findall(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)", done.stdout, re.MULTILINE)
    coverage = re.findall(r"cov: (\d+)", done.stdout)
    kept = [path for path in corpus.iterdir() if not path.name.startswith(("crash-", "timeout-", "oom-"))]
    sys.stdout.write(
        f"{name:12} {max([int(a or b) for a, b in executions], default=0):>9,} executions, {len(kept):,} inputs of "
        f"{sum(path.stat().st_size for path in kept):,} bytes, coverage {coverage[-1] if coverage else 'unknown'}: "
        + (
            "nothing found\n"
            if done.returncode == 0
            else f"FOUND (status {done.returncode})\n{_cut_out_finding(done.stdout)}\n"
        )
    )
    sys.stdout.flush()
    return int(done.returncode != 0)


def _cut_out_finding(said: str) -> str:
    """The traceback and where the input was written, without libFuzzer's log of its progress."""
    return "\n".join(line for line in said.splitlines() if not line.startswith(("#", "INFO:", "stat::")))[-4000:]


if __name__ == "__main__":
    sys.exit(main())
