"""Checks that the metrics share on what they are given.

No scores are computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

Mode = Literal["strict", "official"]

# Stands for an answer that is not there; no model says it.
UNANSWERED = "<unanswered>"


def check_mode(mode: str) -> None:
    """Raises unless `mode` is one of the two ways to count.

    Args:
        mode (`str`): `"strict"` or `"official"`.

    Raises:
        ValueError: for any other value.

    Example:
        >>> check_mode("strict")
    """
    if mode not in get_args(Mode):
        raise ValueError(
            f"Got mode {mode!r}; allowed are 'strict' (a missing prediction is wrong) and 'official' (as the "
            "public evaluator counts). Pass one of them."
        )


def check_lengths(columns: Mapping[str, Sequence[Any]]) -> None:
    """Raises unless all columns are as long as the first.

    Args:
        columns (`Mapping[str, Sequence]`): the rows of each input, by the input's name.

    Raises:
        ValueError: names the columns and the rows without a partner (counted from 0).

    Example:
        >>> check_lengths({"blind": ["A", "B"], "gold": ["A"]})
        Traceback (most recent call last):
        ValueError: gold has 1 rows and blind has 2: row 1 stands alone; pass one of each per row, missing or not
    """
    first, wanted = next((name, len(column)) for name, column in columns.items())
    for name, column in columns.items():
        if len(column) != wanted:
            alone = range(*sorted((len(column), wanted)))
            raise ValueError(
                f"{name} has {len(column)} rows and {first} has {wanted}: {list_rows(alone)} "
                f"{'stand' if len(alone) > 1 else 'stands'} alone; pass one of each per row, missing or not"
            )


def check_rows(**columns: Sequence[Any]) -> None:
    """Raises unless all columns have as many rows as the first, and no row is `None`.

    Args:
        columns (`Sequence`): the rows of each input, by the input's name.

    Raises:
        ValueError: names the columns, and the rows that are `None` or have no partner.

    Example:
        >>> check_rows(predictions=[[0, 5], None], references=[[0, 4], [1, 2]])
        Traceback (most recent call last):
        ValueError: Got None in row 1 of predictions; an empty list stands for what is missing.
    """
    check_lengths(columns)
    for name, column in columns.items():
        empty = [index for index, row in enumerate(column) if row is None]
        if empty:
            raise ValueError(f"Got None in {list_rows(empty)} of {name}; an empty list stands for what is missing.")


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Raises unless every threshold lies in (0, 1].

    Args:
        thresholds (`Sequence[float]`): overlaps from which a prediction counts as right.

    Raises:
        ValueError: names the first threshold outside the range.

    Example:
        >>> check_thresholds([0.5, 70])
        Traceback (most recent call last):
        ValueError: Got the threshold 70; allowed is 0 < threshold <= 1. Give fractions, not %.
    """
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise ValueError(f"Got the threshold {threshold}; allowed is 0 < threshold <= 1. Give fractions, not %.")


def list_rows(rows: Sequence[int]) -> str:
    """Names rows for a message, the first five only.

    Example:
        >>> list_rows([3]), list_rows(range(7))
        ('row 3', 'rows 0, 1, 2, 3, 4 and 2 more')
    """
    listed = ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
    return f"{'rows' if len(rows) > 1 else 'row'} {listed}"
