"""From a dataset to its examples, with a key for every row; pixels are pointed at, never decoded.

What the cells mean is left to `adapters.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from vidground_hf.adapters import Adapter, find_adapter
from vidground_hf.rows import hash_rows, iterate_rows, read_cells
from vidground_hf.schema import Example

AnyDataset: TypeAlias = Dataset | DatasetDict | IterableDataset | IterableDatasetDict
ROWS_PER_BATCH = 1000  # what `Dataset.map` itself takes at a time


def read_examples(
    dataset: AnyDataset,
    *,
    adapter: str | None = None,
    columns: Mapping[str, str] | None = None,
    media_root: str | None = None,
    with_media: bool = False,
) -> tuple[Adapter, list[bytes], list[Example]]:
    """Reads every row of a set, all of its splits one after the other.

    Args:
        dataset (`Dataset`, `DatasetDict` or their iterable kinds): N rows in all.
        adapter (`str`, *optional*): the layout, a key of `ADAPTERS`; found by the columns when left out.
        columns (`Mapping[str, str]`, *optional*): which column holds what, as in `adapters.find_adapter`.
        media_root (`str`, *optional*): the folder that relative media paths start from.
        with_media (`bool`, *optional*, defaults to `False`): point at the bytes of media that the rows hold.

    Returns:
        `tuple[Adapter, list[bytes], list[Example]]`: how rows were read, and N keys of 16 bytes and N examples.

    Raises:
        `ValueError`: when the layout is unknown or the set is empty.

    Example:
        >>> rows = [{"question": "Sky?", "options": ["red", "blue"], "answer": "B"}]
        >>> read_examples(Dataset.from_list(rows))[2][0].answer
        'blue'
    """
    parts = list(dataset.values()) if isinstance(dataset, dict) else [dataset]
    found = find_adapter(name_columns(parts[0]), name=adapter, mapping=columns)
    keys: list[bytes] = []
    examples: list[Example] = []
    for part in parts:
        # Arrow batches hold the cells as they are stored: no Video is opened, whatever the file behind it.
        for table in part.with_format("arrow").iter(batch_size=ROWS_PER_BATCH):
            cells = read_table(table, found)
            keys += hash_rows(cells)
            batch = [found.convert(row) for row in iterate_rows(found.columns, cells)]
            examples += _add_media(batch, table, found) if with_media else batch
    if media_root is not None:
        examples = [replace(example, media_root=media_root) for example in examples]
    if not examples:
        raise ValueError("the dataset has no rows; there is nothing to read")
    return found, keys, examples


def name_columns(dataset: Dataset | IterableDataset) -> list[str]:
    """The names of a dataset's columns; of a streamed one they may have to be read off its first row."""
    return list(dataset.column_names or next(iter(dataset)))


def read_table(table: pa.Table, adapter: Adapter) -> list[list[Any]]:
    """Reads the columns that an adapter needs, as Python values.

    Raises:
        `ValueError`: when a column is missing.
    """
    missing = [name for name in adapter.columns if name not in table.column_names]
    if missing:
        raise ValueError(f"the rows lack the columns {', '.join(missing)}; found {', '.join(table.column_names)}")
    return read_cells(table, adapter.columns)


def _add_media(examples: Sequence[Example], table: pa.Table, adapter: Adapter) -> Sequence[Example]:
    """Points at the bytes in the first media column; those of a memory-mapped table stay on the disk."""
    names = [name for name in adapter.columns if _holds_bytes(table.schema.field(name).type)]
    if not names:
        return examples
    buffers = _iterate_buffers(table[names[0]])
    return [
        example if content is None else replace(example, media_content=content)
        for example, content in zip(examples, buffers, strict=True)
    ]


def _holds_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def _iterate_buffers(column: pa.ChunkedArray) -> Iterator[pa.Buffer | None]:
    """Cuts each cell out of the column's own memory; a cell asked for as a scalar would be a copy."""
    for chunk in column.chunks:
        content = chunk.field("bytes")
        _, places, held = content.buffers()
        width = np.int64 if pa.types.is_large_binary(content.type) else np.int32
        bounds = np.frombuffer(places, width)[content.offset : content.offset + len(content) + 1].tolist()
        is_there = pc.and_(chunk.is_valid(), content.is_valid()).to_pylist()
        for start, end, has_bytes in zip(bounds, bounds[1:], is_there, strict=False):
            yield (held or pa.py_buffer(b"")).slice(start, end - start) if has_bytes else None
