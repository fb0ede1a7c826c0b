"""Rows without their texts, and back: ids, verdicts and scores that are joined with the source again.

Reads and writes no file. A row is known by a key made from its own cells, a blind answer by a key of row and text.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import pyarrow as pa
from datasets import ClassLabel, Dataset, DatasetInfo, Features, LargeList, List, Value

from vidground_hf.adapters import GENERIC_COLUMNS, find_adapter
from vidground_hf.loading import DataError
from vidground_hf.rows import (
    KIND_FEATURES,
    append_columns,
    build_columns,
    hash_rows,
    iterate_rows,
    read_cells,
    read_media,
)
from vidground_hf.schema import LETTERS, Example

ROW_KEY, ANSWER_KEYS = "row_key", "blind_answer_keys"
_ID_NAMES = {*GENERIC_COLUMNS["id"], *GENERIC_COLUMNS["video"], "split"}
_TEXT_KEYS = ("question", "options", "answer", "subtitles")
_MEDIA_NAMES = {"image", "videos", "path"}  # of strings that may hold the media itself, or a place on a disk
_ABSOLUTE = re.compile(r"/|~|file:|\\\\|[A-Za-z]:[/\\]")
_NUM_SHOWN = 5
_UNHASHABLE = ("timestamp", "date", "time", "duration", "decimal")


class SourceColumns(NamedTuple):
    """Columns of the source, as `report.json` names them under `ids_only`.

    Attributes:
        columns (`list[str]`): all of them, in order; none of those that this package adds.
        key_columns (`list[str]`): those that make the key of a row: plain ones and media.
        media_columns (`list[str]`): those of them that hold media, or lists of media: they count by file name.
    """

    columns: list[str]
    key_columns: list[str]
    media_columns: list[str]


class SourceIndex(NamedTuple):
    """The source of a curated dataset, ready to be looked up.

    Attributes:
        rows (`Dataset`): with the columns of the source and no other.
        places (`dict[str, list[int]]`): where a row key occurs; taken from when a row is found.
        salts (`list[bytes]`): what each row's answer keys are made with.
        examples (`list[Example]`): each row as it was judged.
    """

    rows: Dataset
    places: dict[str, list[int]]
    salts: list[bytes]
    examples: list[Example]


def list_source_columns(features: Features) -> SourceColumns:
    """Names the columns that came from the source, and those of them that a key can be made from."""
    columns = [name for name in features if name not in KIND_FEATURES]
    media = [name for name in columns if _is_media(features[name])]
    return SourceColumns(columns, [name for name in columns if name in media or _is_plain(features[name])], media)


def _is_media(feature: Any) -> bool:
    return _is_media(feature.feature) if isinstance(feature, (List, LargeList)) else hasattr(feature, "embed_storage")


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
    cells = _read_key_cells(table, source.key_columns, source.media_columns)
    columns = {name: table[name] for name in added} | {
        **{name: [_cut_folder(cell) for cell in table[name].to_pylist()] for name in ids},
        ROW_KEY: [key.hex() for key in hash_rows(cells)],
        ANSWER_KEYS: [
            None if texts is None else [None if text is None else _make_answer_key(salt, text) for text in texts]
            for salt, texts in zip(_make_salts(cells), answers, strict=True)
        ],
    }
    return Dataset(pa.table({name: columns[name] for name in features}, schema=features.arrow_schema))


def _list_ids(features: Features, columns: Sequence[str], mapping: Mapping[str, str]) -> list[str]:
    mapped = {key: {part.strip() for part in value.split(",")} for key, value in mapping.items()}
    texts = {name for key in _TEXT_KEYS for name in (*GENERIC_COLUMNS[key], *mapped.get(key, ()))}
    names = (_ID_NAMES | mapped.get("id", set()) | mapped.get("video", set())) - texts - _MEDIA_NAMES
    return [name for name in columns if name in names and isinstance(features[name], (Value, ClassLabel))]


def _cut_folder(cell: Any) -> Any:
    return _name_file(cell) if isinstance(cell, str) and _ABSOLUTE.match(cell) else cell


def _name_file(path: str) -> str:
    return re.split(r"[/\\]", path)[-1]


def _name_media(cell: Any) -> Any:
    """What a media cell is called on every disk: its file name, or a digest of its bytes where it has none."""
    if isinstance(cell, list):
        return [_name_media(part) for part in cell]
    name = read_media(cell)
    return _name_file(name) if isinstance(name, str) else name


def _read_key_cells(table: pa.Table, key_columns: Sequence[str], media_columns: Sequence[str]) -> list[list[Any]]:
    return [
        # One at a time: a cell may hold a whole clip.
        [_name_media(cell.as_py()) for cell in table[name]] if name in media_columns else read_cells(table, [name])[0]
        for name in key_columns
    ]


def _make_salts(cells: Sequence[Sequence[Any]]) -> list[bytes]:
    """What only who has a row can make; the row's public key would not do."""
    return hash_rows([*cells, ["blind answer"] * len(cells[0])])


def _make_answer_key(salt: bytes, text: str) -> str:
    return hash_rows([[salt], [text]])[0].hex()


def check_keys(rows: Dataset, source: SourceColumns) -> list[str]:
    """Makes the key of each row.

    Args:
        rows (`Dataset`): all rows of a source, or of all splits of a curation.
        source (`SourceColumns`): its columns.

    Returns:
        `list[str]`: 32 hexadecimal digits for each row.

    Raises:
        `DataError`: when rows have the same key and different media.
    """
    table = rows.select_columns(source.key_columns).with_format("arrow")[:]
    keys = [key.hex() for key in hash_rows(_read_key_cells(table, source.key_columns, source.media_columns))]
    first: dict[str, int] = {}
    shared = {}
    for index, key in enumerate(keys):
        other = first.setdefault(key, index)
        for name in source.media_columns:
            if other != index and not table[name][other].equals(table[name][index]):
                shared[index] = _name_media(table[name][index].as_py())
    if shared:
        names = list(dict.fromkeys(str(name) for name in shared.values()))
        raise DataError(
            f"{len(shared):,} rows have the same cells as another row and media of the same file name in another "
            f"folder or with other content, so no key tells them apart: {', '.join(names[:_NUM_SHOWN])}"
            f"{', ...' if len(names) > _NUM_SHOWN else ''}. Rename the files, or add a column that differs"
        )
    return keys


def index_source(source: Dataset, report: Mapping[str, Any]) -> SourceIndex:
    """Makes the keys of a source.

    Args:
        source (`Dataset`): which has the columns of `report["ids_only"]`.
        report (`dict`): of the curation.

    Returns:
        `SourceIndex`: of all its rows.

    Raises:
        `DataError`: when rows of it have the same key and different media.
    """
    columns = SourceColumns(*(report["ids_only"][name] for name in SourceColumns._fields))
    rows = source.select_columns(columns.columns)
    places: dict[str, list[int]] = defaultdict(list)
    for index, key in reversed(list(enumerate(check_keys(rows, columns)))):
        places[key].append(index)
    table = rows.with_format("arrow")[:]
    salts = _make_salts(_read_key_cells(table, columns.key_columns, columns.media_columns))
    adapter = find_adapter(rows.column_names, name=report["adapter"], mapping=report["columns"])
    cells = read_cells(table, adapter.columns)
    examples = [adapter.convert(row) for row in iterate_rows(adapter.columns, cells)]
    return SourceIndex(rows, places, salts, examples)


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
        are a model's own words: neither letters, nor options or the gold answer of their row, nor, where it has no
        options, the gold answer of another.
    """
    added = [name for name in KIND_FEATURES if name in stripped.column_names]
    cells = dict(zip(added, read_cells(stripped.with_format("arrow")[:], added), strict=True))
    keys = stripped[ANSWER_KEYS]
    golds = list(dict.fromkeys(example.answer for example in source.examples if example.answer is not None))
    answers = cells["blind_answers"] = [
        None if row is None else _find_texts(row, source.salts[position], source.examples[position], golds)
        for row, position in zip(keys, positions, strict=True)
    ]
    num_lost = sum(row.count(None) for row in answers if row) - sum(row.count(None) for row in keys if row)
    values = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    rows = source.rows.select(positions)
    columns = build_columns(values, has_kinds="shortcut_kind" in added)
    features = Features(rows.features | {name: KIND_FEATURES[name] for name in columns.column_names})
    joined = append_columns(rows.with_format("arrow")[:], columns)
    return Dataset(joined, info=DatasetInfo(features=features)), num_lost


def _find_texts(keys: Sequence[str | None], salt: bytes, example: Example, golds: Sequence[str]) -> list[str | None]:
    """Finds the texts of one row's answer keys, likeliest first; the probe gives open questions others' answers."""
    sought = {key for key in keys if key is not None}
    found: dict[str, str] = {}
    likely = [*example.options, *([] if example.answer is None else [example.answer]), *LETTERS]
    for text in chain(likely, () if example.options else golds):
        if len(found) == len(sought):
            break
        key = _make_answer_key(salt, text)
        if key in sought:
            found[key] = text
    return [None if key is None else found.get(key) for key in keys]
