"""`curate` with the probe on 20,000 and 200,000 rows: time and peak memory, each size in a process of its own.

Prints one JSON line. `python benchmarks/curate_scaling.py [SMALL LARGE]`
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(num_rows: int) -> None:
    import datasets
    from synthetic import make_rows

    from vidground_hf import curate

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.parquet"
        make_rows(num_rows).to_parquet(path)
        rows = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=folder)
        started = time.perf_counter()
        curate(rows).save(Path(folder) / "out")
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": num_rows, "seconds": round(seconds, 1), "peak_memory_mib": round(peak)}))


def main(sizes: list[int]) -> None:
    parts = []
    for size in sizes:
        command = [sys.executable, __file__, "--measure", str(size)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
        parts.append(json.loads(done.stdout.splitlines()[-1]))
    small, large = parts
    print(
        json.dumps(
            {
                "benchmark": "curate_scaling",
                "sizes": parts,
                "ratio_of_rows": round(large["rows"] / small["rows"], 2),
                "ratio": round(large["seconds"] / small["seconds"], 2),
                "aim": "time in proportion to rows",
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(int(sys.argv[2]))
    else:
        main([int(argument) for argument in sys.argv[1:]] or [20_000, 200_000])
