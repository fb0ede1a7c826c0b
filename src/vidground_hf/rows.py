"""Rows as Arrow holds them: the cells an adapter reads, a key made from them, and the columns this package adds.

Media cells are read as their path, or as a digest of their bytes; nothing is decoded.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import xxhash
from datasets import Features, List, Value

ADDED_FEATURES = Features(
    {
        "blind_answers": List(Value("string")),
        "blind_scores": List(Value("float64")),
        "bias_score": Value("float64"),
        "is_visually_grounded": Value("bool"),
        "drop_reason": Value("string"),
    }
)
KIND_FEATURES = Features(ADDED_FEATURES | {"shortcut_kind": Value("string")})


def read_media(cell: Any) -> Any:
    """Reads an undecoded Video, Image or Audio cell, `{"bytes", "path"}`, as one string; others as they are."""
    if not isinstance(cell, dict) or cell.keys() != {"bytes", "path"}:
        return cell
    if cell["path"] is not None or cell["bytes"] is None:
        return cell["path"]
    return "sha256:" + hashlib.sha256(cell["bytes"]).hexdigest()


def read_cells(table: pa.Table, columns: Sequence[str]) -> list[list[Any]]:
    """Reads columns of an Arrow table as Python values.

    Args:
        table (`pa.Table`): N rows.
        columns (`Sequence[str]`): C columns of it.

    Returns:
        `list[list]`: C lists of N values.

    Raises:
        `ValueError`: for text that is no UTF-8.
    """
    cells = []
    for name in columns:
        column = table[name]
        if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
            column = column.cast(pa.string())
        try:
            values = column.to_pylist()
        except UnicodeDecodeError as error:  # Arrow takes the bytes of some JSON files as they are
            raise ValueError(
                f"column {name!r} holds text that is no UTF-8 ({error}); save the file as UTF-8"
            ) from error
        cells.append([read_media(value) for value in values] if pa.types.is_struct(column.type) else values)
    return cells


def hash_rows(cells: Sequence[Sequence[Any]]) -> list[bytes]:
    """Makes a key of 16 bytes from each row's cells; equal cells give equal keys in every process.

    Args:
        cells (`Sequence[Sequence]`): C columns of N values each.

    Returns:
        `list[bytes]`: N keys.

    Example:
        >>> hash_rows([["why?"], [["a", "b"]]])[0].hex()
        '560f3f6e056dde98054bacbc15bf6d7d'
    """
    # This runs for every row of every `map`. Version 2 of marshal writes a value and nothing about the object that
    # holds it, in half the time of `repr`; it is never read back.
    return [xxhash.xxh3_128_digest(marshal.dumps(row, 2)) for row in zip(*cells, strict=True)]


def iterate_rows(columns: Sequence[str], cells: Sequence[Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yields each row's cells as a mapping, which is what an adapter converts."""
    for row in zip(*cells, strict=True):
        yield dict(zip(columns, row, strict=True))


def build_columns(rows: Sequence[Mapping[str, Any]], *, has_kinds: bool = False) -> pa.Table:
    """Types the added columns of some rows once and for all, however many of them are `None`.

    Args:
        rows (`Sequence[Mapping]`): one mapping a row, with the keys of `ADDED_FEATURES`.
        has_kinds (`bool`, *optional*, defaults to `False`): with those of `KIND_FEATURES`.

    Returns:
        `pa.Table`: with the types of these features.
    """
    return pa.Table.from_pylist(list(rows), schema=(KIND_FEATURES if has_kinds else ADDED_FEATURES).arrow_schema)


def append_columns(table: pa.Table, added: pa.Table) -> pa.Table:
    """Puts the added columns behind a table's own; columns of an earlier run with the same names are replaced."""
    kept = table.drop_columns([name for name in added.column_names if name in table.column_names])
    for name in added.column_names:
        kept = kept.append_column(added.schema.field(name), added[name])
    return kept
