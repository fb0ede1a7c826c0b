"""Refuses answers that do not belong together row by row, and says which rows.

Nothing is scored or joined here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from vidground_hf.schema import LETTERS, PROBLEM_TYPES
from vidground_hf.stats.checks import check_lengths, list_rows

Column = Sequence[Any]


def check_columns(texts: Mapping[str, Column], others: Mapping[str, Column]) -> None:
    """Checks the columns of a blind-visual comparison.

    Args:
        texts (`Mapping[str, Sequence]`): answers and references by name; `predictions` is the first.
        others (`Mapping[str, Sequence]`): what else is known of each row, by the names of `gap.measure_gap`.

    Raises:
        `ValueError`: for the first fault found, with the rows (counted from 0).

    Example:
        >>> check_columns({"predictions": ["A", "B"], "references": ["A", "B"]}, {"ids": ["q1", "q1"]})
        Traceback (most recent call last):
        ValueError: ids must be unique; got 'q1' in rows 0, 1; keep one row of each
    """
    check_lengths({**texts, **others})
    check_texts(texts)
    for name, column in others.items():
        bad = [row for row, cell in enumerate(column) if cell is None]
        _refuse(bad, column, f"{name} must have a value in every row; leave {name} out otherwise")
    if "options" in others and "num_options" in others:
        raise ValueError("got options and num_options; pass options alone, which say their number")
    options, counts = others.get("options", ()), others.get("num_options", ())
    bad = [row for row, cell in enumerate(options) if isinstance(cell, str)]
    _refuse(bad, options, "options must be a list of texts in every row; give an empty one to open-ended questions")
    bad = [row for row, count in enumerate(counts) if not (isinstance(count, Integral) and 0 <= count <= len(LETTERS))]
    _refuse(bad, counts, f"num_options must be whole and in 0 to {len(LETTERS)}; give 0 to open-ended questions")
    kinds = others.get("problem_types", ())
    bad = [row for row, kind in enumerate(kinds) if kind not in PROBLEM_TYPES]
    _refuse(bad, kinds, f"problem_types allows {', '.join(PROBLEM_TYPES)}")
    _check_ids(others.get("ids"), others.get("blind_ids"))


def check_texts(columns: Mapping[str, Column]) -> None:
    """Refuses columns of unequal length, and cells that are not text.

    Args:
        columns (`Mapping[str, Sequence]`): answers and references by name.

    Raises:
        `ValueError`: with the rows (counted from 0).

    Example:
        >>> check_texts({"predictions": ["A", None]})
        Traceback (most recent call last):
        ValueError: predictions must be text; pass UNANSWERED where there is none; got None in row 1
    """
    check_lengths(columns)
    for name, column in columns.items():
        bad = [row for row, cell in enumerate(column) if not isinstance(cell, str)]
        _refuse(bad, column, f"{name} must be text; pass UNANSWERED where there is none")


def _check_ids(ids: Column | None, blind_ids: Column | None) -> None:
    if ids is None:
        if blind_ids is not None:
            raise ValueError("got blind_ids without ids; pass both, so that they can be compared")
        return
    repeated = [name for name, times in Counter(ids).items() if times > 1]
    if repeated:
        rows = [row for row, name in enumerate(ids) if name == repeated[0]]
        more = f" ({len(repeated)} ids are repeated)" if len(repeated) > 1 else ""
        raise ValueError(f"ids must be unique; got {repeated[0]!r} in {list_rows(rows)}{more}; keep one row of each")
    if blind_ids is None:
        return
    bad = [row for row, pair in enumerate(zip(ids, blind_ids, strict=True)) if pair[0] != pair[1]]
    if bad:
        raise ValueError(
            f"blind_ids must equal ids; got {blind_ids[bad[0]]!r} for {ids[bad[0]]!r} in {list_rows(bad)}; "
            "bring both runs into one order"
        )


def _refuse(bad: Sequence[int], column: Column, rule: str) -> None:
    if bad:
        raise ValueError(f"{rule}; got {column[bad[0]]!r} in {list_rows(bad)}")
