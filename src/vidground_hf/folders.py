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

import pyarrow as pa
from datasets import Dataset, DatasetDict, load_dataset

from vidground_hf.figures import draw_figures
from vidground_hf.ladder_pages import draw_needs, render_ladder_card, render_ladder_html
from vidground_hf.loading import DataError, explain_damage
from vidground_hf.locks import lock_folder
from vidground_hf.pages import SPLITS, render_card, render_html

# What `Dataset.push_to_hub` aims for.
_BYTES_PER_ROW_GROUP = 100_000_000
_BYTES_PER_SHARD = 500_000_000
_ROWS_AT_ONCE = 1000
# What readers of a report rely on.
_READ_AGAIN = {"adapter", "columns", "source"}


def check_output_dir(output: Path, marker: str = "report.json") -> None:
    """Raises `DataError` unless `output` is free or holds an earlier result of ours, known by the file `marker`.

    An earlier result that a killed run had set aside, and nothing put in its place, is put back first.
    """
    above = next((folder for folder in output.resolve().parents if folder.exists()), output)
    if not os.access(above, os.W_OK):
        raise DataError(f"cannot write in {str(above)!r}, where output {output.name!r} is to be; name another folder")
    _put_back(output.resolve(), marker)
    if not output.exists():
        return
    if not output.is_dir():
        raise DataError(f"output {str(output)!r} is a file; name a folder")
    if any(output.iterdir()) and not (output / marker).exists():
        raise DataError(f"output {str(output)!r} holds something else, no earlier result; name another folder")


@contextmanager
def write_whole(output: Path, marker: str = "report.json") -> Iterator[Path]:
    """Hands out a folder beside `output` to write into, and moves it there when all is written.

    Whatever interrupts the writing leaves `output` as it was. An earlier result is set aside, and deleted last.

    Raises:
        `DataError`: when `output` holds something else, or another run is writing it.
    """
    output = output.resolve()
    check_output_dir(output, marker)
    if output == Path.cwd():
        raise DataError("output is the folder you are in, which would be replaced; name one inside it, or another")
    partial, earlier = _name_beside(output)
    with _claim(partial, output):
        try:
            yield partial
            if output.exists():
                shutil.rmtree(earlier, ignore_errors=True)
                os.replace(output, earlier)
            os.replace(partial, output)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        (earlier / marker).unlink(missing_ok=True)  # first, so that what is half deleted is never put back
        shutil.rmtree(earlier, ignore_errors=True)


def _name_beside(output: Path) -> tuple[Path, Path]:
    """The folders beside an output: the one that is written into, and the earlier result, set aside."""
    return output.parent / f".{output.name}.partial", output.parent / f".{output.name}.earlier"


def _put_back(output: Path, marker: str) -> None:
    partial, earlier = _name_beside(output)
    if output.exists() or not (earlier / marker).exists():
        return
    with _claim(partial, output):
        if not output.exists():  # else the run that set it aside has just ended
            os.replace(earlier, output)
        partial.rmdir()


@contextmanager
def _claim(partial: Path, output: Path) -> Iterator[None]:
    """Makes the folder that one run at a time may write into, without what a killed one left there."""
    try:
        handle = lock_folder(partial)
    except BlockingIOError as error:
        raise DataError(
            f"another run is writing {str(output)!r}; run the same command again when it has ended, or name another "
            "folder"
        ) from error
    try:
        for path in partial.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield
    finally:
        os.close(handle)


def count_bytes(rows: Dataset) -> int:
    """Bytes of the rows as Arrow holds them; of a selection, the share of its rows."""
    return int(rows.data.nbytes) * len(rows) // max(1, len(rows.data))


def write_shards(rows: Dataset, folder: Path, split: str) -> None:
    """Writes one split as `<split>-00000-of-0000N.parquet`; media cells are written as they are stored."""
    folder.mkdir(parents=True, exist_ok=True)
    num_bytes = count_bytes(rows)
    num_shards = max(1, math.ceil(num_bytes / _BYTES_PER_SHARD))
    # Left to choose a batch size itself, `to_parquet` opens the media files to learn how large they are.
    rows_per_group = max(1, len(rows) * _BYTES_PER_ROW_GROUP // max(1, num_bytes))
    for index in range(num_shards):
        shard = rows.shard(num_shards, index, contiguous=True)
        path = folder / f"{split}-{index:05d}-of-{num_shards:05d}.parquet"
        gathered = _gather_rows(shard, path.with_suffix(".arrow"), min(_ROWS_AT_ONCE, rows_per_group))
        gathered.to_parquet(str(path), batch_size=rows_per_group)
        path.with_suffix(".arrow").unlink()


def _gather_rows(rows: Dataset, path: Path, num_at_once: int) -> Dataset:
    """Puts chosen rows of a set one after the other in an Arrow file.

    `to_parquet` itself makes a table of one-row tables of each row group, with kilobytes for every row.
    """
    schema = rows.features.arrow_schema
    with path.open("wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for table in rows.with_format("arrow").iter(batch_size=num_at_once):
            writer.write_table(table.combine_chunks().cast(schema))
    return Dataset.from_file(str(path))


def read_splits(folder: Path) -> DatasetDict:
    """Reads the splits of a folder that `write_shards` filled.

    Raises:
        `DataError`: when there are none, or they are damaged.
    """
    found = {name: sorted(str(path) for path in (folder / "data").glob(f"{name}-*.parquet")) for name in SPLITS}
    files = {name: paths for name, paths in found.items() if paths}
    if not files or not (folder / "report.json").is_file():
        raise DataError(
            f"no curated dataset in {str(folder)!r}; it has report.json and data/SPLIT-*.parquet, as vidground curate "
            "DATA --output DIR writes them"
        )
    with explain_damage(folder):
        return load_dataset("parquet", data_files=files)


def read_report(folder: Path) -> dict[str, Any]:
    """Reads `report.json`.

    Raises:
        `DataError`: when it is no report.
    """
    path = folder / "report.json"
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read the report {str(path)!r} ({error}); curate the data again") from error
    missing = _READ_AGAIN - report.keys() if isinstance(report, dict) else _READ_AGAIN
    if missing:
        raise DataError(f"{str(path)!r} is no report, it lacks {', '.join(sorted(missing))}; curate the data again")
    return dict(report)


def write_report(report: dict[str, Any], folder: Path, **card: Any) -> None:
    """Writes `report.json`, `report.html`, `README.md` and `figures/`; `report.json` comes last.

    Args:
        report (`dict`): the report.
        folder (`Path`): where to.
        card: what `pages.render_card` takes besides.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    if report.get("kind") == "ladder":
        figures = {"needs": draw_needs(report)}
        page, readme = render_ladder_html(report, figures["needs"]), render_ladder_card(report, **card)
    else:
        figures = draw_figures(report)
        page, readme = render_html(report, figures), render_card(report, figures, **card)
    for name, content in figures.items():
        (folder / "figures" / f"{name}.png").write_bytes(content)
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "README.md").write_text(readme, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
