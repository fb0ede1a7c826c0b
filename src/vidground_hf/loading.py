"""Opens a file, several files, a folder or a Hub id as one `datasets.Dataset`.

Reads tables only: no media is opened, no remote code is run, and what the columns mean is left to `adapters.py`.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import yaml  # type: ignore[import-untyped]
from datasets import Dataset, DatasetDict, concatenate_datasets, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError

from vidground_hf.adapters import find_adapter

_log = logging.getLogger(__name__)

_BUILDERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
_SPLIT = re.compile(r"(?:^|[^a-z])(train|val|valid|validation|dev|test)(?:[^a-z]|$)")
_READ_ERRORS = (datasets.exceptions.DatasetsError, OSError, ValueError, TypeError, KeyError)


class DataError(ValueError):
    """A dataset that cannot be opened or understood; the message is one line and says what to do."""


def open_dataset(
    data: str | Path | Sequence[str | Path],
    *,
    split: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    data_files: Sequence[str] | None = None,
    adapter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Dataset:
    """Opens a video question-answering set.

    Rows of several splits are put one after the other; where their files name more than one split, a column `split`
    says which row came from where. NExT-GQA's spans, kept in a second file, are joined as `evidence_spans`.

    Args:
        data (`str`, `Path` or a sequence of them): csv, tsv, json, jsonl or parquet files, a folder of them (or one
            written by `save_to_disk` or `curate`), or the id of a dataset on the Hub.
        split (`str`, *optional*): only this split.
        config (`str`, *optional*): the configuration of a Hub dataset.
        revision (`str`, *optional*): branch, tag or commit of a Hub dataset.
        data_files (`Sequence[str]`, *optional*): which files of a Hub dataset to read.
        adapter (`str`, *optional*): a layout by name; files of a folder that do not have it are left out.
        columns (`Mapping[str, str]`, *optional*): a column mapping, as in `find_adapter`.

    Returns:
        `datasets.Dataset`: with the columns as they are in the data.

    Raises:
        `DataError`: when nothing can be read, with the reason, what was found and what to pass.

    Example:
        >>> open_dataset("../shared/data/nextqa/dataset/nextqa/val.csv").num_rows  # doctest: +SKIP
        4996
    """
    sources = [data] if isinstance(data, (str, Path)) else list(data)
    paths = [Path(source).expanduser() for source in sources]
    if len(paths) == 1 and not paths[0].exists() and _looks_like_hub_id(str(sources[0])):
        return _open_hub(str(sources[0]), split=split, config=config, revision=revision, data_files=data_files)
    for path in paths:
        if not path.exists():
            raise DataError(f"no file or folder {str(path)!r}; pass a {_list_formats()} file, a folder, or a Hub id")
    if len(paths) == 1 and paths[0].is_dir():
        parts = _open_folder(paths[0], adapter, columns)
    else:
        parts = {path: _read_file(path) for path in paths}
    return _select_split(_join_parts(parts), split)


def _looks_like_hub_id(text: str) -> bool:
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", text) is not None and Path(text).suffix not in _BUILDERS


def _list_formats() -> str:
    return ", ".join(suffix[1:] for suffix in _BUILDERS)


def _read_file(path: Path) -> Dataset:
    builder = _BUILDERS.get(path.suffix.lower())
    if builder is None:
        raise DataError(f"cannot read {str(path)!r}: {path.suffix or 'no'} extension; allowed are {_list_formats()}")
    options: dict[str, Any] = {}
    if builder == "csv":
        # "None" and "NA" are words that people answer with; only an empty cell is missing.
        options = {"keep_default_na": False, "na_values": [""], "sep": "\t" if path.suffix == ".tsv" else ","}
    if path.stat().st_size == 0:
        raise DataError(f"{str(path)!r} is empty")
    try:
        return load_dataset(builder, data_files=[str(path)], split="train", **options)
    except _READ_ERRORS as error:
        if "corresponds to no data" in str(error):
            raise DataError(f"{str(path)!r} has no rows") from error
        raise DataError(f"cannot read {str(path)!r} as {builder}: {_root_cause(error)}") from error


@contextmanager
def explain_damage(folder: str | Path) -> Iterator[None]:
    """Turns whatever reading the files of a curated dataset raises into a `DataError`."""
    try:
        yield
    except (*_READ_ERRORS, yaml.YAMLError) as error:
        raise DataError(
            f"cannot read the dataset in {str(folder)!r} ({_root_cause(error)}); curate the data again, or download "
            "the folder anew"
        ) from error


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, UnicodeDecodeError):
        return f"{error}; save it as UTF-8"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"


def _open_folder(folder: Path, adapter: str | None, columns: Mapping[str, str] | None) -> dict[Path, Dataset]:
    if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
        saved = load_from_disk(str(folder))
        splits = saved if isinstance(saved, DatasetDict) else {folder.name: saved}
        return {Path(name): part for name, part in splits.items()}
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _BUILDERS)
    if not files or (folder / "data").is_dir():
        files += sorted((folder / "data").glob("*.parquet")) or sorted(folder.glob("*/*.parquet"))
    parts, left_out = {}, {}
    for path in files:
        if path.name == "report.json" or not _holds_rows(path):
            left_out[path.name] = "it is no table of rows"
            continue
        part = _read_file(path)
        try:
            find_adapter(part.column_names, name=adapter, mapping=columns)
        except ValueError as error:
            left_out[path.name] = str(error)
        else:
            parts[path] = part
    if not parts:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise DataError(
            f"no questions in {str(folder)!r}; "
            + (reasons or f"it has no {_list_formats()} file. Name a file instead")
        )
    for name, reason in left_out.items():
        _log.warning("left out %s: %s", name, reason.split(". Say")[0])
    return parts


def _holds_rows(path: Path) -> bool:
    """Whether a json file can be a list of rows: an array, or one object a line; one big object is not."""
    if path.suffix.lower() != ".json":
        return True
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline().strip()
    if not first.startswith("{"):
        return first.startswith("[")
    try:
        json.loads(first)
    except ValueError:
        return False
    return path.stat().st_size > len(first.encode()) + 2


def _find_split(path: Path) -> str | None:
    match = _SPLIT.search(path.stem.lower()) if path.suffix else None
    return match[1] if match else (path.name if not path.suffix else None)


def _join_parts(parts: dict[Path, Dataset]) -> Dataset:
    names = {path: _find_split(path) for path in parts}
    several = len({name for name in names.values() if name is not None}) > 1
    rows = []
    for path, part in parts.items():
        part = _join_spans(path, part)
        if several and "split" not in part.column_names:
            part = part.add_column("split", [names[path]] * part.num_rows)
        rows.append(part)
    if len(rows) == 1:
        return rows[0]
    try:
        return concatenate_datasets(rows)
    except (ValueError, TypeError) as error:
        listed = ", ".join(path.name for path in parts)
        raise DataError(f"the files {listed} do not have the same columns ({_root_cause(error)}); open one") from error


def _join_spans(path: Path, part: Dataset) -> Dataset:
    spans_file = path.with_name(f"gsub_{path.stem}.json")
    if not {"video_id", "qid", "a0"} <= set(part.column_names) or not spans_file.exists():
        return part
    located = json.loads(spans_file.read_text(encoding="utf-8"))
    spans = [
        located.get(str(video), {}).get("location", {}).get(str(question), [])
        for video, question in zip(part["video_id"], part["qid"], strict=True)
    ]
    return part.add_column("evidence_spans", spans, feature=datasets.List(datasets.List(datasets.Value("float64"))))


def _select_split(rows: Dataset, split: str | None) -> Dataset:
    if split is None:
        return rows
    if "split" not in rows.column_names:
        raise DataError(f"no split {split!r}: the data is one split; leave the split out")
    found = rows.unique("split")
    if split not in found:
        raise DataError(f"no split {split!r}; found {', '.join(str(name) for name in found)}")
    return rows.filter(lambda name: name == split, input_columns="split")


def _open_hub(
    repo_id: str, *, split: str | None, config: str | None, revision: str | None, data_files: Sequence[str] | None
) -> Dataset:
    try:
        opened = load_dataset(
            repo_id, name=config, split=split, revision=revision, data_files=list(data_files) if data_files else None
        )
    except (DatasetNotFoundError, ConnectionError) as error:
        raise DataError(
            f"{repo_id!r} is neither a file or folder here nor a reachable Hub dataset: {error}"
        ) from error
    except _READ_ERRORS as error:
        raise DataError(
            f"cannot open {repo_id!r} from the Hub as it is: {_root_cause(error)}. Name the annotation files with "
            "--data-files (in Python: data_files=['file.json']), or pick --config and --split"
        ) from error
    if isinstance(opened, Dataset):
        return opened
    return _join_parts({Path(name): part for name, part in opened.items()})
