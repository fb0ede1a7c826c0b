"""Which rows of a set need the video, as an earlier curation decided, joined by the rows' own content.

Judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, concatenate_datasets

from vidground_hf.folders import read_report, read_splits
from vidground_hf.id_rows import ROW_KEY, SourceColumns, check_keys, list_source_columns
from vidground_hf.ladder_needs import NEED_COLUMNS
from vidground_hf.loading import DataError


class StoredVerdicts(NamedTuple):
    """The verdicts of a curation.

    Attributes:
        is_visually_grounded (`list[bool | None]`): of each row; `None` for undecided rows and for those that the
            curation does not have.
        num_unmatched (`int`): rows that it does not have.
        report (`Mapping`): its `report.json`.
    """

    is_visually_grounded: list[bool | None]
    num_unmatched: int
    report: Mapping[str, Any]


def read_verdicts(folder: str | Path, dataset: Dataset) -> StoredVerdicts:
    """Looks up every row of a set in a folder that `vidground curate` wrote, or in what was pushed with ids only.

    Args:
        folder (`str` or `Path`): has `report.json` and `data/*.parquet`.
        dataset (`Dataset`): N rows; rows are known by the columns that both have.

    Returns:
        `StoredVerdicts`: for N rows.

    Raises:
        `DataError`: when there is no curation, or it has none of the rows.
    """
    path = Path(folder)
    curated = concatenate_datasets(list(read_splits(path).values()))
    report = read_report(path)
    if ROW_KEY in curated.column_names:
        columns = SourceColumns(*(report["ids_only"][name] for name in SourceColumns._fields))
        missing = [name for name in columns.key_columns if name not in dataset.column_names]
        if missing:
            raise DataError(
                f"{str(path)!r} knows rows by the columns {', '.join(columns.key_columns)}, and the data lacks "
                f"{', '.join(missing)}; pass the data that was curated"
            )
        keys = list(curated[ROW_KEY])
    else:
        added = NEED_COLUMNS if report.get("kind") == "ladder" else ()  # the data may have columns of these names
        names = [name for name in curated.column_names if name in dataset.column_names and name not in added]
        shared = curated.select_columns(names)
        columns = list_source_columns(shared.features)
        keys = check_keys(shared, columns) if columns.key_columns else []
    decided = dict(zip(keys, curated["is_visually_grounded"], strict=bool(keys)))
    mine = check_keys(dataset, columns) if columns.key_columns else []
    num_unmatched = sum(key not in decided for key in mine) if mine else len(dataset)
    if num_unmatched == len(dataset):
        raise DataError(
            f"none of the {len(dataset):,} rows is among the {len(curated):,} of {str(path)!r}; pass the folder that "
            "was curated from this data"
        )
    return StoredVerdicts([decided.get(key) for key in mine], num_unmatched, report)
