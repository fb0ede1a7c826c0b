"""Refuses answers that do not belong together row by row, and says which rows.

Nothing is scored or joined here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vidground_hf.schema import LETTERS, PROBLEM_TYPES

Column = Sequence[Any]


def check_rows(texts: Mapping[str, Column], others: Mapping[str, Column]) -> None:
    """Checks the columns of a blind-visual comparison.

    Args:
        texts (`Mapping[str, Sequence]`): answers and references by name; `predictions` is the first.
        others (`Mapping[str, Sequence]`): what else is known of each row, by the names of `gap.measure_gap`.

    Raises:
        `ValueError`: for the first fault found, with the rows (counted from 0).
    """
    check_lengths({**texts, **others})
    for name, column in texts.items():
        bad = [row for row, cell in enumerate(column) if not isinstance(cell, str)]
        _refuse(bad, column, f"{name} must be text; pass UNANSWERED where there is none")
    for name, column in others.items():
        bad = [row for row, cell in enumerate(column) if cell is None]
        _refuse(bad, column, f"{name} must have a value in every row; leave {name} out otherwise")
    if "options" in others and "num_options" in others:
        raise ValueError("got options and num_options; pass options alone, which say their number")
    counts, kinds = others.get("num_options", ()), others.get("problem_types", ())
    bad = [row for row, count in enumerate(counts) if not 0 <= count <= len(LETTERS)]
    _refuse(bad, counts, f"num_options must be in 0 to {len(LETTERS)}; give 0 to open-ended questions")
    bad = [row for row, kind in enumerate(kinds) if kind not in PROBLEM_TYPES]
    _refuse(bad, kinds, f"problem_types allows {', '.join(PROBLEM_TYPES)}")
    _check_ids(others.get("ids"), others.get("blind_ids"))


def check_lengths(columns: Mapping[str, Column]) -> None:
    """Refuses columns that are not as long as the first, and names the rows without a partner.

    Example:
        >>> check_lengths({"predictions": ["A", "B"], "references": ["A"]})
        Traceback (most recent call last):
        ValueError: references has 1 rows and predictions has 2: row 1 stands alone; pass one of each per row
    """
    first, wanted = next((name, len(column)) for name, column in columns.items())
    for name, column in columns.items():
        if len(column) != wanted:
            alone = range(*sorted((len(column), wanted)))
            raise ValueError(
                f"{name} has {len(column)} rows and {first} has {wanted}: {_list_rows(alone)} "
                f"{'stand' if len(alone) > 1 else 'stands'} alone; pass one of each per row"
            )


def _check_ids(ids: Column | None, blind_ids: Column | None) -> None:
    repeated = [name for name, times in Counter(ids or ()).items() if times > 1]
    if ids is not None and repeated:
        rows = [row for row, name in enumerate(ids) if name == repeated[0]]
        more = f" ({len(repeated)} ids are repeated)" if len(repeated) > 1 else ""
        raise ValueError(f"ids must be unique; got {repeated[0]!r} in {_list_rows(rows)}{more}; keep one row of each")
    if blind_ids is None:
        return
    if ids is None:
        raise ValueError("got blind_ids without ids; pass both, so that they can be compared")
    bad = [row for row, pair in enumerate(zip(ids, blind_ids, strict=True)) if pair[0] != pair[1]]
    if bad:
        raise ValueError(
            f"blind_ids must equal ids; got {blind_ids[bad[0]]!r} for {ids[bad[0]]!r} in {_list_rows(bad)}; "
            "bring both runs into one order"
        )


def _refuse(bad: Sequence[int], column: Column, rule: str) -> None:
    if bad:
        raise ValueError(f"{rule}; got {column[bad[0]]!r} in {_list_rows(bad)}")


def _list_rows(rows: Sequence[int]) -> str:
    listed = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return f"{'rows' if len(rows) > 1 else 'row'} {listed}"
