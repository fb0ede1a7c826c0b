"""Floors: what a question set gives away without any model, from its options and gold positions alone.

Accuracies of answerers, and intervals around floors, are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidground_hf.schema import LETTERS, classify_options


class Floor(NamedTuple):
    """A mean over rows.

    Attributes:
        value (`float`, *optional*): the mean, in [0, 1]; `None` when every row was left out.
        num_rows (`int`): rows it is the mean of.
        num_left_out (`int`): rows it does not apply to.
    """

    value: float | None
    num_rows: int
    num_left_out: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FloorScores:
    """What each answerer without a model gets on each of N rows, in [0, 1]; nan where it does not apply.

    Attributes:
        chance (`float64[N]`): 1 / distinct options; 0 for open-ended rows; nan with options but no gold.
        gold_options (`uint32[N]`): bit k says whether option k equals the gold answer. Options beyond the last letter
            have no bit.
        longest_option (`float64[N]`): the option with the most characters; ties share the credit.
        shortest_option (`float64[N]`): the option with the fewest characters; ties share the credit.
        has_duplicates (`float64[N]`): 1 where two options are the same text; nan for open-ended rows only.
        num_options (`int32[N]`): options as given, duplicates counted; 0 for open-ended rows.
        gold_position (`float64[N]`): position of the gold option; nan where there is none.
    """

    chance: NDArray[np.float64]
    gold_options: NDArray[np.uint32]
    longest_option: NDArray[np.float64]
    shortest_option: NDArray[np.float64]
    has_duplicates: NDArray[np.float64]
    num_options: NDArray[np.int32]
    gold_position: NDArray[np.float64]


class Floors(NamedTuple):
    """The floors of a set of rows.

    Attributes:
        chance (`Floor`): expected accuracy of guessing; leaves out rows with options but no gold.
        constant_option (`Floor`): always the same position, the best one with the answers known; leaves out
            open-ended rows and those without gold, as do the next two.
        constant_position (`int`, *optional*): that position, the first of equally good ones.
        longest_option (`Floor`): always the longest option.
        shortest_option (`Floor`): always the shortest option.
        duplicate_options (`Floor`): share of rows with two options of the same text; leaves out open-ended rows.
        gold_positions (`dict[int, tuple[int, ...]]`): for each option count, how often each position is gold.
    """

    chance: Floor
    constant_option: Floor
    constant_position: int | None
    longest_option: Floor
    shortest_option: Floor
    duplicate_options: Floor
    gold_positions: dict[int, tuple[int, ...]]


def score_floors(options: Sequence[Sequence[str]], gold: Sequence[int | None]) -> FloorScores:
    """Scores every row once, so that floors of any group of rows are quick to measure.

    Args:
        options (`Sequence[Sequence[str]]`): the option texts of each row, without letters; empty for open-ended rows.
        gold (`Sequence[int | None]`): position of the gold option; `None` where there is none.

    Returns:
        `FloorScores`: one value per row.

    Raises:
        `ValueError`: for lengths that differ, or a gold position outside the options.

    Example:
        >>> scores = score_floors([["yes", "no"], ["red", "green", "blue"]], [0, 1])
        >>> scores.chance.round(3).tolist(), scores.longest_option.tolist()
        ([0.5, 0.333], [1.0, 1.0])
    """
    if len(options) != len(gold):
        raise ValueError(f"got {len(options)} rows of options and {len(gold)} gold positions; pass one per row")
    num_rows = len(options)
    num_options = np.array([len(texts) for texts in options], dtype=np.int32)
    chance, longest, shortest, has_duplicates, gold_position = np.full((5, num_rows), np.nan)
    gold_options = np.zeros(num_rows, np.uint32)
    for row, (texts, position) in enumerate(zip(options, gold, strict=True)):
        if position is not None and not 0 <= position < len(texts):
            allowed = f"; allowed are 0 to {len(texts) - 1}, or None" if texts else ", but no options; pass None"
            raise ValueError(f"row {row} has gold position {position}{allowed}")
        if not texts:
            chance[row] = 0.0
            continue
        classes = classify_options(tuple(texts))
        num_distinct = len(set(classes))
        has_duplicates[row] = num_distinct < len(texts)
        if position is None:
            continue
        is_gold = [option_class == classes[position] for option_class in classes]
        lengths = [len(text) for text in texts]
        gold_position[row] = position
        chance[row] = 1 / num_distinct
        gold_options[row] = sum(gold << option for option, gold in enumerate(is_gold[: len(LETTERS)]))
        longest[row] = _share_credit(is_gold, lengths, max(lengths))
        shortest[row] = _share_credit(is_gold, lengths, min(lengths))
    return FloorScores(
        chance=chance,
        gold_options=gold_options,
        longest_option=longest,
        shortest_option=shortest,
        has_duplicates=has_duplicates,
        num_options=num_options,
        gold_position=gold_position,
    )


def _share_credit(is_gold: Sequence[bool], lengths: Sequence[int], length: int) -> float:
    """The share of the options of one length that are gold."""
    tied = [gold for gold, other in zip(is_gold, lengths, strict=True) if other == length]
    return sum(tied) / len(tied)


def measure_floors(scores: FloorScores, rows: NDArray[np.bool_] | NDArray[np.int64] | None = None) -> Floors:
    """Averages the scores of some rows.

    Args:
        scores (`FloorScores`): of all rows.
        rows (`bool[N]` or `int64[M]`, *optional*): which rows to average, or their places; defaults to all.

    Returns:
        `Floors`: each with how many rows were left out.

    Example:
        >>> scores = score_floors([["red", "dark blue"], ["yes", "no"], []], [1, 0, None])
        >>> floors = measure_floors(scores)
        >>> floors.longest_option, floors.constant_position, floors.gold_positions
        (Floor(value=1.0, num_rows=2, num_left_out=1), 0, {2: (1, 1)})
    """
    rows = np.ones(scores.chance.size, dtype=bool) if rows is None else rows
    gold_position, num_options = scores.gold_position[rows], scores.num_options[rows]
    has_gold = ~np.isnan(gold_position)
    gold_of_count = {
        int(count): gold_position[has_gold & (num_options == count)].astype(int)
        for count in np.unique(num_options[has_gold])
    }
    position, constant = _find_constant(scores.gold_options[rows][has_gold], max(gold_of_count, default=0))
    return Floors(
        chance=_average(scores.chance[rows]),
        constant_option=Floor(constant, int(has_gold.sum()), int((~has_gold).sum())),
        constant_position=position,
        longest_option=_average(scores.longest_option[rows]),
        shortest_option=_average(scores.shortest_option[rows]),
        duplicate_options=_average(scores.has_duplicates[rows]),
        gold_positions={
            count: tuple(np.bincount(positions, minlength=count).tolist())
            for count, positions in gold_of_count.items()
        },
    )


def _find_constant(gold_options: NDArray[np.uint32], num_options: int) -> tuple[int | None, float | None]:
    """The option that is gold most often, the first of equally good ones, and in which share of the rows."""
    if not len(gold_options):
        return None, None
    counts = [int(((gold_options >> option) & 1).sum()) for option in range(min(num_options, len(LETTERS)))]
    best = int(np.argmax(counts))
    return best, counts[best] / len(gold_options)


def _average(scores: NDArray[np.float64]) -> Floor:
    scored = scores[~np.isnan(scores)]
    value = float(scored.mean()) if scored.size else None
    return Floor(value, int(scored.size), int(scores.size - scored.size))
