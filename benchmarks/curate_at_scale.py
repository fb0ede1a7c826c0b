"""`curate` at the size of a training set: time and peak memory of the probe and of an instant model at five rotations.

Each size, answerer and engine in a process of its own, from parquet to a written folder. Prints one JSON line, and
fails where Ray, with two workers that models are asked in, writes other splits than one process does. The paced model
takes five milliseconds for an answer and gives one at a time; `constant` says A, once a row and past the answer cache.
`python benchmarks/curate_at_scale.py [--answerers ...] [--engines local ray] [--folder DIR] [ROWS ...]`

Peak memory is that of the process, and without the pages of files that it has mapped, which the system takes back when
memory is short (`anonymous`). Seconds are of the wall and of the processor: on a machine that others use, too, only
the latter can be compared. Workers of Ray are in neither memory nor seconds of the processor.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from curate_at_scale_data import VIDEO_R1_ROWS, write_rows

ROTATIONS = 5
NUM_WORKERS = 2
MODELS = ("instant", "paced")
ANSWERERS = ("probe", "constant", *MODELS)
SECONDS_PER_ANSWER = 0.005  # of the paced model
_SECONDS_BETWEEN_LOOKS = 0.05


def measure(path: str, answerer: str, engine: str, folder: str) -> None:
    os.environ["VIDGROUND_CACHE"] = f"{folder}/cache"
    peak = [0]
    threading.Thread(target=_watch, args=(peak,), daemon=True).start()
    import datasets
    from instant import InstantAnswerer

    from vidground_hf import curate, load_answerer, single_shot

    datasets.disable_progress_bars()
    started, used = time.perf_counter(), time.process_time()
    rows = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=folder)
    pace = {"instant": 0.0, "paced": SECONDS_PER_ANSWER}.get(answerer)
    chosen: dict[str, Any] = {} if pace is None else {"answerer": InstantAnswerer(pace), "samples": ROTATIONS}
    if answerer == "constant":
        chosen = {"answerer": load_answerer("constant:A"), "rule": single_shot()}
    run = curate if engine == "local" else _load_ray()
    curation = run(rows, work_dir=f"{folder}/work", **chosen)
    curated = time.perf_counter() - started
    curation.save(Path(folder) / "out")
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "rows": len(rows),
                "answerer": answerer,
                "engine": engine,
                "seconds": round(seconds, 1),
                "seconds_to_save": round(seconds - curated, 1),
                "cpu_seconds": round(time.process_time() - used, 1),
                "rows_per_second": round(len(rows) / seconds),
                "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "peak_anonymous_mib": peak[0] // 1024,
                "answers": sum((curation.report["calls"] or {}).get(name, 0) for name in ("asked", "cached")),
                "num_text_answerable": curation.report["num_text_answerable"],
                "splits_sha256": _digest(Path(folder) / "out" / "data"),
            }
        )
    )


def _load_ray() -> Callable[..., Any]:
    from vidground_hf.ray_engine import curate_with_ray

    return partial(curate_with_ray, num_workers=NUM_WORKERS)


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _watch(peak: list[int]) -> None:
    status = Path("/proc/self/status")
    while True:
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        peak[0] = max(peak[0], int(lines["RssAnon"].split()[0]))
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def main(sizes: list[int], answerers: list[str], engines: list[str], base: str | None) -> None:
    parts = []
    ways = [(one, engine) for one in answerers for engine in engines if one in MODELS or engine == "local"]
    for size in sizes:
        for answerer, engine in ways:
            with tempfile.TemporaryDirectory(dir=base) as folder:
                path = Path(folder) / "rows.parquet"
                write_rows(path, size)
                command = [sys.executable, __file__, "--measure", str(path), answerer, engine, folder]
                paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]  # workers, too, need the model
                settings = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
                done = subprocess.run(command, env=settings, stdout=subprocess.PIPE, text=True, check=True)
                parts.append(json.loads(done.stdout.splitlines()[-1]))
                print(json.dumps(parts[-1]), file=sys.stderr)
        for answerer in answerers:
            own = {part["splits_sha256"] for part in parts if (part["rows"], part["answerer"]) == (size, answerer)}
            if len(own) > 1:
                sys.exit(f"{answerer} at {size} rows: engines differ in what they write")
    ratios = {}
    for answerer, engine in ways:
        own = [part for part in parts if (part["answerer"], part["engine"]) == (answerer, engine)]
        names = ("rows", "seconds", "cpu_seconds", "peak_memory_mib", "peak_anonymous_mib")
        ratios[f"{answerer} {engine}"] = {name: round(own[-1][name] / own[0][name], 2) for name in names}
    print(json.dumps({"benchmark": "curate_at_scale", "num_cpus": os.cpu_count(), "runs": parts, "ratios": ratios}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(*sys.argv[2:6])
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("sizes", nargs="*", type=int, default=[VIDEO_R1_ROWS // 10, VIDEO_R1_ROWS])
        parser.add_argument("--answerers", nargs="+", default=["probe", "instant"], choices=ANSWERERS)
        parser.add_argument("--engines", nargs="+", default=["local"], choices=["local", "ray"])
        parser.add_argument("--folder", help="where data and results lie meanwhile; the temporary folder if left out")
        given = parser.parse_args()
        main(given.sizes, given.answerers, given.engines, given.folder)
