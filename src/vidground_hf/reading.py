"""From a dataset to its examples, with a key for every row; pixels are pointed at, never decoded.

What the cells mean is left to `adapters.py`.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
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
_ROWS_PER_FILE = 10_000  # of a stream


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


class RowSource(Sequence[Example]):
    """The rows of a set, read from the disk each time they are needed; nothing is held.

    A streamed set is first written to `folder`, with the columns that the adapter reads and no others.

    Args:
        dataset (`Dataset`, `DatasetDict` or their iterable kinds): all splits, one after the other.
        folder (`Path`): for the rows of a streamed set.
        adapter, columns, media_root: as in `read_examples`.

    Attributes:
        adapter (`Adapter`): how rows are read.

    Raises:
        `ValueError`: when the layout is unknown or the set is empty.

    Example:
        >>> rows = [{"question": "Sky?", "options": ["red", "blue"], "answer": "B"}]
        >>> source = RowSource(Dataset.from_list(rows), Path("unused"))
        >>> len(source), source[0].answer
        (1, 'blue')
    """

    def __init__(
        self,
        dataset: AnyDataset,
        folder: Path,
        *,
        adapter: str | None = None,
        columns: Mapping[str, str] | None = None,
        media_root: str | None = None,
    ) -> None:
        parts = list(dataset.values()) if isinstance(dataset, dict) else [dataset]
        self.adapter = find_adapter(name_columns(parts[0]), name=adapter, mapping=columns)
        self._media_root = media_root
        self._parts = [
            self._prepare(own)
            for part in parts
            for own in (spool_rows(part, self.adapter, folder) if isinstance(part, IterableDataset) else [part])
        ]
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in self._parts])])
        if not len(self):
            raise ValueError("the dataset has no rows; there is nothing to read")

    def _prepare(self, part: Dataset) -> Dataset:
        missing = [name for name in self.adapter.columns if name not in part.column_names]
        if missing:
            raise ValueError(f"the rows lack the columns {', '.join(missing)}; found {', '.join(part.column_names)}")
        return part.select_columns(list(self.adapter.columns)).with_format("arrow")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: Any) -> Any:
        places = range(len(self))[index]
        if isinstance(places, int):
            return self.read(places, places + 1)[0]
        return self.read(places.start, places.stop) if places.step == 1 else self.take(places)

    def read_cells(self, start: int, stop: int) -> list[list[Any]]:
        """The cells of some neighbouring rows, column by column."""
        found: list[list[Any]] = [[] for _ in self.adapter.columns]
        for part, first in zip(self._parts, self._starts[:-1].tolist(), strict=True):
            begin, end = max(start - first, 0), min(stop - first, len(part))
            if begin < end:
                cells = read_table(part[begin:end], self.adapter)
                found = [[*one, *more] for one, more in zip(found, cells, strict=True)]
        return found

    def read(self, start: int, stop: int) -> list[Example]:
        """Some neighbouring rows."""
        return self.convert(self.read_cells(start, stop))

    def convert(self, cells: Sequence[Sequence[Any]]) -> list[Example]:
        """Reads cells as the adapter does."""
        examples = [self.adapter.convert(row) for row in iterate_rows(self.adapter.columns, cells)]
        if self._media_root is None:
            return examples
        return [replace(example, media_root=self._media_root) for example in examples]

    def take(self, indices: Sequence[int]) -> list[Example]:
        """Some rows in any order."""
        examples: dict[int, Example] = {}
        places = np.asarray(indices, np.int64)
        for part, first in zip(self._parts, self._starts[:-1].tolist(), strict=True):
            own = places[(places >= first) & (places < first + len(part))]
            if len(own):
                cells = read_table(part[(own - first).tolist()], self.adapter)
                examples.update(zip(own.tolist(), self.convert(cells), strict=True))
        return [examples[index] for index in places.tolist()]

    def __iter__(self) -> Iterator[Example]:
        for start in range(0, len(self), ROWS_PER_BATCH):
            yield from self.read(start, min(start + ROWS_PER_BATCH, len(self)))


def spool_rows(stream: IterableDataset, adapter: Adapter, folder: Path) -> Iterator[Dataset]:
    """Writes the columns of a stream that an adapter reads to Arrow files, and opens them one by one.

    Each file has types of its own: a column that begins with nothing but `None` may hold something later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for table in stream.with_format("arrow").iter(batch_size=_ROWS_PER_FILE):
        cells = read_table(table, adapter)
        kept = pa.table({name: pa.array(cell) for name, cell in zip(adapter.columns, cells, strict=True)})
        path = folder / f"{uuid.uuid4().hex}.arrow"
        with path.open("wb") as file, pa.ipc.new_stream(file, kept.schema) as writer:
            writer.write_table(kept)
        yield Dataset.from_file(str(path))


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
