"""The folder a curation is written to: parquet shards, card, page and figures, whole or not at all.

Which row goes where is decided elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datasets import Dataset

from vidground_hf.figures import draw_figures
from vidground_hf.loading import DataError
from vidground_hf.pages import render_card, render_html

_ROWS_PER_GROUP = 1000  # the default of `datasets`
_BYTES_PER_SHARD = 500_000_000  # what `Dataset.push_to_hub` aims for


def check_output_dir(output: Path) -> None:
    """Raises `DataError` unless `output` is free or holds an earlier result of ours."""
    if not output.exists():
        return
    if not output.is_dir():
        raise DataError(f"output {str(output)!r} is a file; name a folder")
    if any(output.iterdir()) and not (output / "report.json").exists():
        raise DataError(f"output {str(output)!r} holds something else, no earlier result; name another folder")


@contextmanager
def write_whole(output: Path) -> Iterator[Path]:
    """Hands out a folder beside `output` to write into, and moves it there when all is written.

    Whatever interrupts the writing leaves `output` as it was.
    """
    check_output_dir(output)
    partial = output.parent / f".{output.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if output.exists():
            shutil.rmtree(output)
        os.replace(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_shards(rows: Dataset, folder: Path, split: str) -> None:
    """Writes one split as `<split>-00000-of-0000N.parquet`; media cells are written as they are stored."""
    folder.mkdir(parents=True, exist_ok=True)
    num_shards = max(1, math.ceil((rows.data.nbytes or 0) / _BYTES_PER_SHARD))
    for index in range(num_shards):
        shard = rows.shard(num_shards, index, contiguous=True)
        path = folder / f"{split}-{index:05d}-of-{num_shards:05d}.parquet"
        # Left to choose a batch size itself, `to_parquet` opens the media files to learn how large they are.
        shard.to_parquet(str(path), batch_size=_ROWS_PER_GROUP)


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Writes `report.json`, `report.html`, `README.md` and `figures/`; `report.json` comes last."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    figures = draw_figures(report)
    for name, content in figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(content)
    (folder / "report.html").write_text(render_html(report, figures), encoding="utf-8")
    (folder / "README.md").write_text(render_card(report, figures), encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
