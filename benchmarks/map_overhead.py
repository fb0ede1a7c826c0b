"""`map` of a fitted filter beside a `map` that reads the same columns and writes the same schema.

Prints one JSON line. `python benchmarks/map_overhead.py [ROWS]`
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import datasets
from synthetic import make_rows

from vidground_hf import GroundFilter
from vidground_hf.rows import append_columns, build_columns

REPEATS = 5


class ReadAndWrite:
    """The least a filter could do: read the columns as Python values, append columns that are all there already."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns

    def __call__(self, batch: Any) -> Any:
        values = [batch[name] for name in self.columns]
        row = {"blind_answers": ["A"], "blind_scores": [1.0], "bias_score": 0.5, "is_visually_grounded": True}
        return append_columns(batch.pa_table, build_columns([{**row, "drop_reason": "right"}] * len(values[0])))


def time_map(rows: datasets.Dataset, function: Callable[[Any], Any]) -> float:
    started = time.perf_counter()
    rows.map(function, batched=True, load_from_cache_file=False)
    return time.perf_counter() - started


def main(num_rows: int) -> None:
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/rows.parquet"
        make_rows(num_rows).to_parquet(path)
        rows = datasets.load_dataset("parquet", data_files=path, split="train", cache_dir=folder)
        ground_filter = GroundFilter().fit(rows)
        baseline = ReadAndWrite(("question", "options", "answer", "video", "id", "category"))
        pairs = [(time_map(rows, ground_filter), time_map(rows, baseline)) for _ in range(REPEATS)]
    ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        json.dumps(
            {
                "benchmark": "map_overhead",
                "rows": num_rows,
                "filter_us_per_row": round(ours / num_rows * 1e6, 2),
                "baseline_us_per_row": round(theirs / num_rows * 1e6, 2),
                "ratio": round(statistics.median(a / b for a, b in pairs), 2),
                "aim_ratio_at_most": 2.0,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
