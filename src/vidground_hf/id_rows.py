"""Rows without their texts, and back: ids, verdicts and scores that are joined with the source again.

Reads and writes no file. A row is known by a key made from its own plain cells, a blind answer by a key of its text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features, LargeList, List, Value

from vidground_hf.adapters import GENERIC_COLUMNS, find_adapter
from vidground_hf.rows import KIND_FEATURES, append_columns, build_columns, hash_rows, iterate_rows, read_cells
from vidground_hf.schema import LETTERS

ROW_KEY, ANSWER_KEYS = "row_key", "blind_answer_keys"
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


class SourceIndex(NamedTuple):
    """The source of a curated dataset, ready to be looked up.

    Attributes:
        rows (`Dataset`): with the columns of the source and no other.
        places (`dict[str, list[int]]`): where a row key occurs; taken from when a row is found.
        texts (`dict[str, str]`): its options and gold answers, and the letters, by their keys.
    """

    rows: Dataset
    places: dict[str, list[int]]
    texts: dict[str, str]


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


def strip_rows(rows: Dataset, mapping: Mapping[str, str] | None = None) -> Dataset:
    """Takes all texts out of one curated split.

    What is left: columns that hold ids, `row_key` (32 hexadecimal digits), the added columns, and in place of
    `blind_answers` a key of each text, `blind_answer_keys`.

    Args:
        rows (`Dataset`): one split, as `curate` made it.
        mapping (`Mapping[str, str]`, *optional*): the column mapping it was curated with.

    Returns:
        `Dataset`: as many rows, in the same order.
    """
    table = rows.with_format("arrow")[:]
    source = list_source_columns(rows.features)
    added = {name: feature for name, feature in rows.features.items() if name in KIND_FEATURES}
    answers = read_cells(table, ["blind_answers"])[0]
    del added["blind_answers"]
    ids = {name: rows.features[name] for name in _list_ids(rows.features, source.columns, mapping or {})}
    features = Features(ids | {ROW_KEY: Value("string"), ANSWER_KEYS: List(Value("string"))} | added)
    columns = {name: table[name] for name in [*ids, *added]} | {
        ROW_KEY: [key.hex() for key in hash_rows(read_cells(table, source.key_columns))],
        ANSWER_KEYS: [
            None if texts is None else [None if text is None else make_text_key(text) for text in texts]
            for texts in answers
        ],
    }
    return Dataset(pa.table({name: columns[name] for name in features}, schema=features.arrow_schema))


def _list_ids(features: Features, columns: Sequence[str], mapping: Mapping[str, str]) -> list[str]:
    names = _ID_NAMES | {mapping[key] for key in ("id", "video") if key in mapping}
    return [name for name in columns if name in names and isinstance(features[name], (Value, ClassLabel))]


def make_text_key(text: str) -> str:
    """A key of 32 hexadecimal digits for a text."""
    return hash_rows([[text]])[0].hex()


def index_source(source: Dataset, report: Mapping[str, Any]) -> SourceIndex:
    """Makes the keys of a source.

    Args:
        source (`Dataset`): which has the columns of `report["ids_only"]`.
        report (`dict`): of the curation.

    Returns:
        `SourceIndex`: of all its rows.
    """
    rows = source.select_columns(report["ids_only"]["columns"])
    table = rows.with_format("arrow")[:]
    places: dict[str, list[int]] = defaultdict(list)
    keys = hash_rows(read_cells(table, report["ids_only"]["key_columns"]))
    for index in reversed(range(len(keys))):
        places[keys[index].hex()].append(index)
    adapter = find_adapter(rows.column_names, name=report["adapter"], mapping=report["columns"])
    cells = read_cells(table, adapter.columns)
    examples = [adapter.convert(row) for row in iterate_rows(adapter.columns, cells)]
    options = {option for example in examples for option in example.options}
    texts = {*LETTERS, *options, *(example.answer for example in examples if example.answer is not None)}
    return SourceIndex(rows, places, {make_text_key(text): text for text in texts})


def find_rows(stripped: Dataset, source: SourceIndex) -> list[int | None]:
    """Finds each stripped row in the source; a row that occurs twice there is found once for each time.

    Returns:
        `list[int | None]`: positions in `source.rows`; `None` for a row that is not there, or not as it was.
    """
    return [source.places[key].pop() if source.places.get(key) else None for key in stripped[ROW_KEY]]


def join_rows(stripped: Dataset, source: SourceIndex, positions: Sequence[int]) -> tuple[Dataset, int]:
    """Puts rows of the source and their verdicts together again.

    Args:
        stripped (`Dataset`): what `strip_rows` made.
        source (`SourceIndex`): where its texts are.
        positions (`Sequence[int]`): of each stripped row in it.

    Returns:
        `tuple[Dataset, int]`: the split that was stripped, and how many of its blind answers are `None` because they
        are no letters, options or gold answers but a model's own words.
    """
    added = [name for name in KIND_FEATURES if name in stripped.column_names]
    cells = dict(zip(added, read_cells(stripped.with_format("arrow")[:], added), strict=True))
    keys = stripped[ANSWER_KEYS]
    cells["blind_answers"] = [None if row is None else [source.texts.get(key) for key in row] for row in keys]
    num_lost = sum(key is not None and key not in source.texts for row in keys for key in row or ())
    values = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    rows = source.rows.select(positions)
    columns = build_columns(values, has_kinds="shortcut_kind" in added)
    features = Features(rows.features | {name: KIND_FEATURES[name] for name in columns.column_names})
    joined = append_columns(rows.with_format("arrow")[:], columns)
    return Dataset(joined, info=DatasetInfo(features=features)), num_lost
