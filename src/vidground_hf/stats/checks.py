"""Checks that the grounding metrics share on what they are given.

No scores are computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """
    if mode not in get_args(Mode):
        raise ValueError(
            f"Got mode {mode!r}; allowed are 'strict' (a missing prediction is wrong) and 'official' (as the "
            "public evaluator counts). Pass one of them."
        )


def check_rows(**columns: Sequence[Any]) -> None:
    """Raises unless all columns have as many rows as the first, and no row is `None`.

    Args:
        columns (`Sequence`): the rows of each input, by the input's name.

    Raises:
        ValueError: names the columns, and the first row that is `None` or has no partner.
    """
    (first, rows), *_ = columns.items()
    for name, column in columns.items():
        if len(column) != len(rows):
            raise ValueError(
                f"Got {len(rows)} rows of {first} and {len(column)} of {name}; row {min(len(rows), len(column))} is "
                "the first without a partner. Pass the same rows in the same order, a missing prediction as an empty "
                "list."
            )
        for index, row in enumerate(column):
            if row is None:
                raise ValueError(f"Got None in row {index} of {name}; an empty list stands for what is missing.")


def check_thresholds(thresholds: Sequence[float]) -> None:
    """Raises unless every threshold lies in (0, 1].

    Args:
        thresholds (`Sequence[float]`): overlaps from which a prediction counts as right.

    Raises:
        ValueError: names the first threshold outside the range.
    """
    for threshold in thresholds:
        if not 0 < threshold <= 1:
            raise ValueError(f"Got the threshold {threshold}; allowed is 0 < threshold <= 1. Give fractions, not %.")
