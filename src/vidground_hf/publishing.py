"""What goes into a pushed dataset: shards with their media inside, card, page, figures and `report.json`.

Talks to no server. The same files are written for a push and for a dry run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, DatasetInfo, SplitDict, SplitInfo, concatenate_datasets, config
from datasets.table import embed_table_storage

from vidground_hf.command_line import hide_places
from vidground_hf.folders import count_bytes, write_report, write_shards
from vidground_hf.id_rows import check_keys, list_source_columns, strip_rows
from vidground_hf.loading import DataError
from vidground_hf.pages import SPLITS

# Files of an earlier push that a new one deletes where it does not write them again.
REPLACED = (rf"data/({'|'.join(SPLITS)})-\d+-of-\d+\.parquet", r"figures/(split|groups|confidence|error|needs)\.png")
# Group names are pushed with ids where there are at most so many, or one for every ten rows, and two rows to each:
# our guess at what is a set of labels and no free text.
_MAX_GROUPS = 50


def write_dataset(
    splits: DatasetDict, report: Mapping[str, Any], folder: Path, repo_id: str, *, ids_only: str | None
) -> None:
    """Writes the files of a pushed dataset.

    Args:
        splits (`DatasetDict`): of a curation.
        report (`dict`): of it.
        folder (`Path`): an empty folder.
        repo_id (`str`): where it will be found, for the card.
        ids_only (`str`, *optional*): why texts are left out; left out itself, whole rows are written.

    Raises:
        `DataError`: when a media file that the rows name is not there, ids alone do not tell rows apart, or the rows
            are labelled by need, whose ids cannot be pushed alone.
    """
    if ids_only is not None and report.get("kind") == "ladder":
        raise DataError(
            f"what questions need cannot be pushed as ids alone yet, and their texts are not to be pushed ({ids_only})"
            "; push what vidground curate writes without --ladder, or share the labels.jsonl that vidground audit "
            "--ladder --output writes, which has row numbers and labels"
        )
    features = next(iter(splits.values())).features
    report = hide_addresses(hide_folders(report, splits))
    if ids_only is not None:
        source = list_source_columns(features)
        check_keys(concatenate_datasets([rows.select_columns(source.columns) for rows in splits.values()]), source)
        report = strip_report(report)
        report["ids_only"] |= {**source._asdict(), "why": ids_only}
        splits = DatasetDict({name: strip_rows(rows, report.get("columns")) for name, rows in splits.items()})
    described = DatasetInfo(
        config_name="default",
        features=next(iter(splits.values())).features,
        splits=SplitDict(),
        download_size=0,
        dataset_size=0,
    )
    with tempfile.TemporaryDirectory(prefix="vidground-push-") as scratch:
        for name, rows in splits.items():
            embedded = embed_media(rows, name, Path(scratch) / f"{name}.arrow")
            write_shards(embedded, folder / "data", name)
            described.splits.add(SplitInfo(name, count_bytes(embedded), len(embedded)))
    described.dataset_size = sum(split.num_bytes for split in described.splits.values())
    described.download_size = sum(path.stat().st_size for path in (folder / "data").iterdir())
    write_report(report, folder, load_path=repo_id, dataset_info=described)


def strip_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report without the rows it shows: figures and settings are left, and groups where they are few.

    Names of groups, but for problem types, are data and may be captions. How many of each
    grouping were left out is under `ids_only`.
    """
    most = min(max(_MAX_GROUPS, report["num_rows"] / 10), report["num_rows"] / 2)
    left_out = {
        name: len(groups) for name, groups in report["groups"].items() if name != "problem_type" and len(groups) > most
    }
    return {
        **report,
        "groups": {name: {} if name in left_out else groups for name, groups in report["groups"].items()},
        "ids_only": {"num_groups_left_out": left_out},
        "samples": {name: [] for name in report["samples"]},
        "leaks": {**report["leaks"], "examples": []},
    }


def hide_addresses(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report that names served models without the address of their server."""
    hidden = [
        {**one, "id": hide_places(one["id"])} if "://" in one["id"] else dict(one) for one in report["answerers"]
    ]
    return {**report, "answerers": hidden, "answerer": ", ".join(one["id"] for one in hidden)}


def hide_folders(report: Mapping[str, Any], splits: DatasetDict) -> dict[str, Any]:
    """A report whose ids do not say where clips lie on this machine; layouts without ids make them of the path."""
    media = [
        name for name, feature in next(iter(splits.values())).features.items() if hasattr(feature, "embed_storage")
    ]
    paths = {
        path
        for rows in splits.values()
        for name in media
        for chunk in rows.data.column(name).chunks
        for path in chunk.field("path").unique().to_pylist()
    }
    folders = {f"{Path(path).parent}/" for path in paths if path is not None and Path(path).is_absolute()}

    def cut(text: str) -> str:
        return next((text.removeprefix(folder) for folder in folders if text.startswith(folder)), text)

    return {
        **report,
        "samples": {name: [{**row, "id": cut(row["id"])} for row in rows] for name, rows in report["samples"].items()},
        "leaks": {**report["leaks"], "examples": [cut(text) for text in report["leaks"]["examples"]]},
    }


def embed_media(rows: Dataset, split: str, path: Path) -> Dataset:
    """Puts the files that Video, Image and Audio cells name into the cells; other columns stay as they are.

    Args:
        rows (`Dataset`): one split.
        split (`str`): its name, for the error.
        path (`Path`): a file that holds the result while it is in use.

    Returns:
        `Dataset`: with bytes and file name in each media cell, no folder of this machine.
    """
    if not any(_holds_media(feature) for feature in rows.features.values()):
        return rows
    try:
        embedded = rows.with_format("arrow").map(
            embed_table_storage,
            batched=True,
            batch_size=config.ARROW_RECORD_BATCH_SIZE_FOR_VIDEO_DATASETS,
            cache_file_name=str(path),
            load_from_cache_file=False,  # a file may have changed under the same name
        )
    except FileNotFoundError as error:
        raise DataError(
            f"a media file that split {split!r} names is not there: {Path(error.filename or str(error)).name!r}. "
            "Media columns are pushed with their files: run this where the paths lead to them, or cast the column to "
            "a string to push the names alone"
        ) from error
    return embedded.with_format(None)


def _holds_media(feature: Any) -> bool:
    if isinstance(feature, dict):
        return any(_holds_media(part) for part in feature.values())
    inner = getattr(feature, "feature", None)
    return _holds_media(inner) if inner is not None else hasattr(feature, "embed_storage")
