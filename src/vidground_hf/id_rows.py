"""Rows without their texts, and back: ids, verdicts and scores that are joined with the source again.

Reads and writes no file. A row is known by a key made from all its own plain cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features, LargeList, List, Value

from vidground_hf.adapters import GENERIC_COLUMNS, Adapter, find_adapter
from vidground_hf.rows import KIND_FEATURES, append_columns, build_columns, hash_rows, iterate_rows, read_cells
from vidground_hf.schema import Example

ROW_KEY, CHOICES = "row_key", "blind_choices"
_ID_NAMES = {*GENERIC_COLUMNS["id"], *GENERIC_COLUMNS["video"], "split"}
_UNHASHABLE = ("timestamp", "date", "time", "duration", "decimal")


class SourceColumns(NamedTuple):
    """Columns of the source, as `report.json` names them under `ids_only`.

    Attributes:
        columns (`list[str]`): all of them, in order; none of those that this package adds.
        key_columns (`list[str]`): those that make the key of a row: all but media.
    """

    columns: list[str]
    key_columns: list[str]


def list_source_columns(features: Features) -> SourceColumns:
    """Names the columns that came from the source, and those of them that a key can be made from."""
    columns = [name for name in features if name not in KIND_FEATURES]
    return SourceColumns(columns, [name for name in columns if _is_plain(features[name])])


def _is_plain(feature: Any, nested: bool = False) -> bool:
    if isinstance(feature, Value):
        return not (nested and feature.dtype.startswith(_UNHASHABLE))
    if isinstance(feature, (List, LargeList)):
        return _is_plain(feature.feature, nested=True)
    if isinstance(feature, dict):
        return all(_is_plain(part, nested=True) for part in feature.values())
    return isinstance(feature, ClassLabel)


def strip_rows(rows: Dataset, report: Mapping[str, Any]) -> Dataset:
    """Takes the source's texts out of one curated split.

    What is left: columns that hold ids, `row_key` (32 hexadecimal digits), the added columns, and `blind_choices`:
    which option each blind answer was, counted from 0, with the gold answer counted after the last option.
    `blind_answers` keeps only answers that are neither, in the model's own words.

    Args:
        rows (`Dataset`): one split, as `curate` made it.
        report (`dict`): its report; `adapter` and `columns` say how a row is read.

    Returns:
        `Dataset`: as many rows, in the same order.
    """
    table = rows.with_format("arrow")[:]
    source = list_source_columns(rows.features)
    examples = _read_examples(table, find_report_adapter(source.columns, report))
    added = {name: feature for name, feature in rows.features.items() if name in KIND_FEATURES}
    cells = dict(zip(added, read_cells(table, list(added)), strict=True))
    pairs = [
        _encode_answers(answers, example) for answers, example in zip(cells["blind_answers"], examples, strict=True)
    ]
    ids = {name: rows.features[name] for name in _list_ids(rows.features, source.columns, report)}
    features = Features(ids | {ROW_KEY: Value("string"), CHOICES: List(Value("int32"))} | added)
    columns = dict(zip(ids, (table[name] for name in ids), strict=True)) | {
        ROW_KEY: [key.hex() for key in hash_rows(read_cells(table, source.key_columns))],
        CHOICES: [choices for choices, _ in pairs],
        **cells,
        "blind_answers": [texts for _, texts in pairs],
    }
    return Dataset(pa.table(columns, schema=features.arrow_schema))


def find_report_adapter(columns: Sequence[str], report: Mapping[str, Any]) -> Adapter:
    """The adapter that a report's rows were read with."""
    return find_adapter(columns, name=report["adapter"], mapping=report.get("columns"))


def _read_examples(table: pa.Table, adapter: Adapter) -> list[Example]:
    cells = read_cells(table, adapter.columns)
    return [adapter.convert(row) for row in iterate_rows(adapter.columns, cells)]


def _list_ids(features: Features, columns: Sequence[str], report: Mapping[str, Any]) -> list[str]:
    mapping = report.get("columns") or {}
    names = _ID_NAMES | {mapping[key] for key in ("id", "video") if key in mapping}
    return [name for name in columns if name in names and isinstance(features[name], (Value, ClassLabel))]


def _encode_answers(answers: list[str | None] | None, example: Example) -> tuple[Any, Any]:
    """Positions of the answers that the source holds, and the texts of those that it does not."""
    if answers is None:
        return None, None
    known = [*example.options, example.answer]
    choices = [known.index(text) if text is not None and text in known else None for text in answers]
    return choices, [text if choice is None else None for choice, text in zip(choices, answers, strict=True)]


def _decode_answers(choices: list[int | None] | None, texts: list[str | None] | None, example: Example) -> Any:
    if choices is None or texts is None:
        return None
    known = [*example.options, example.answer]
    return [text if choice is None else known[choice] for choice, text in zip(choices, texts, strict=True)]


def find_rows(stripped: Dataset, source: Dataset, key_columns: Sequence[str]) -> list[int | None]:
    """Finds each stripped row in the source; a row that occurs twice there is found once for each time.

    Returns:
        `list[int | None]`: positions in `source`; `None` for a row that is not there, or not as it was.
    """
    table = source.with_format("arrow")[:]
    places: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(hash_rows(read_cells(table, key_columns))):
        places[key.hex()].append(index)
    for found in places.values():
        found.reverse()
    return [places[key].pop() if places.get(key) else None for key in stripped[ROW_KEY]]


def join_rows(stripped: Dataset, source: Dataset, positions: Sequence[int], report: Mapping[str, Any]) -> Dataset:
    """Puts the rows of the source and their verdicts together again.

    Args:
        stripped (`Dataset`): what `strip_rows` made.
        source (`Dataset`): the source, which has the columns of `report["ids_only"]`.
        positions (`Sequence[int]`): of each stripped row in it.
        report (`dict`): of the curation.

    Returns:
        `Dataset`: the split that was stripped.
    """
    columns = report["ids_only"]["columns"]
    rows = source.select_columns(columns).select(positions)
    examples = _read_examples(rows.with_format("arrow")[:], find_report_adapter(columns, report))
    added = [name for name in KIND_FEATURES if name in stripped.column_names]
    cells = dict(zip(added, read_cells(stripped.with_format("arrow")[:], added), strict=True))
    cells["blind_answers"] = [
        _decode_answers(choices, texts, example)
        for choices, texts, example in zip(stripped[CHOICES], cells["blind_answers"], examples, strict=True)
    ]
    values = [dict(zip(added, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    table = append_columns(rows.with_format("arrow")[:], build_columns(values, has_kinds="shortcut_kind" in added))
    features = Features(rows.features | {name: KIND_FEATURES[name] for name in added})
    return Dataset(table, info=DatasetInfo(features=features))
