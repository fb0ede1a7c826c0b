"""What atheris runs: one target, with the package instrumented. Started by `python -m tests.fuzz`."""

from __future__ import annotations

import hashlib
import logging
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["vidground_hf"]):
    from tests.fuzz.targets import TARGETS

import datasets

_MAX_BYTES, _MAX_MEBIBYTES = 4096, 4096
_MAX_SECONDS = 20  # of one input, then it is a hang: our guess, ten times what the slowest seed takes


def main() -> None:
    name, seconds, corpus = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    logging.disable()
    datasets.disable_progress_bars()
    target, folder = TARGETS[name], Path(tempfile.mkdtemp())
    for seed in target.make_seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:40]).write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "timeout": _MAX_SECONDS,
        "rss_limit_mb": _MAX_MEBIBYTES,
        "max_len": _MAX_BYTES,
        "artifact_prefix": f"{corpus}/",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], *(f"-{option}={value}" for option, value in options.items()), str(corpus)]
    atheris.Setup(arguments, lambda data: target.check(data, folder))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
