"""Floors: exact values on small tables, what each leaves out, and figures of real sets."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.stats.floors import Floor, Floors, measure_floors, score_floors

NEXTQA = Path(__file__).resolve().parents[3] / "shared" / "data" / "nextqa" / "dataset" / "nextqa" / "val.csv"


def measure(options: Sequence[Sequence[str]], gold: Sequence[int | None]) -> Floors:
    return measure_floors(score_floors(options, gold))


# A plain row, one with the gold twice, one of two options, one without gold, and an open-ended one.
OPTIONS = [["a", "bb", "ccc", "dd"], ["yes", "no", "Yes."], ["long one", "x"], ["p", "q"], []]
GOLD = [2, 0, 1, None, None]


def test_a_small_table() -> None:
    floors = measure(OPTIONS, GOLD)
    assert floors == Floors(
        chance=Floor((1 / 4 + 1 / 2 + 1 / 2 + 0) / 4, 4, 1),
        constant_option=Floor(2 / 3, 3, 2),
        constant_position=2,
        longest_option=Floor((1 + 1 + 0) / 3, 3, 2),
        shortest_option=Floor((0 + 0 + 1) / 3, 3, 2),
        duplicate_options=Floor(1 / 4, 4, 1),
        gold_positions={2: (0, 1), 3: (1, 0, 0), 4: (0, 0, 1, 0)},
    )


def test_ties_share_the_credit() -> None:
    floors = measure([["aa", "bb", "c"], ["aa", "bb", "c"]], [0, 2])
    assert floors.longest_option.value == (0.5 + 0) / 2
    assert floors.shortest_option.value == (0 + 1) / 2
    # A tie among copies of the gold is no tie.
    assert measure([["aa", "AA", "c"]], [0]).longest_option.value == 1.0


def test_a_position_that_a_row_lacks_is_wrong_there() -> None:
    floors = measure([["a", "b"], ["a", "b", "c"], ["a", "b", "c"]], [0, 2, 2])
    assert (floors.constant_position, floors.constant_option.value) == (2, pytest.approx(2 / 3))
    # Of equally good positions the first.
    assert measure([["a", "b"], ["a", "b"]], [1, 0]).constant_position == 0


def test_groups_are_measured_from_the_same_scores() -> None:
    scores = score_floors(OPTIONS, GOLD)
    rows = np.array([True, False, True, False, False])
    assert measure_floors(scores, rows) == measure([OPTIONS[0], OPTIONS[2]], [GOLD[0], GOLD[2]])


@pytest.mark.parametrize(
    ("options", "gold", "chance", "duplicates"),
    [
        ([], [], Floor(None, 0, 0), Floor(None, 0, 0)),
        ([[], []], [None, None], Floor(0.0, 2, 0), Floor(None, 0, 2)),
        ([["a", "b"]], [None], Floor(None, 0, 1), Floor(0.0, 1, 0)),
    ],
)
def test_nothing_to_measure_is_none(
    options: list[list[str]], gold: list[None], chance: Floor, duplicates: Floor
) -> None:
    floors = measure(options, gold)
    assert (floors.chance, floors.duplicate_options) == (chance, duplicates)
    for floor in (floors.constant_option, floors.longest_option, floors.shortest_option):
        assert floor == Floor(None, 0, len(options))
    assert floors.constant_position is None
    assert floors.gold_positions == {}


@given(st.lists(st.lists(st.text(max_size=3), min_size=1, max_size=5), min_size=1, max_size=10), st.data())
def test_every_row_is_counted_or_left_out(options: list[list[str]], data: st.DataObject) -> None:
    gold = [data.draw(st.none() | st.integers(0, len(texts) - 1)) for texts in options]
    floors = measure(options, gold)
    for floor in floors:
        if isinstance(floor, Floor):
            assert floor.num_rows + floor.num_left_out == len(options)
            assert floor.value is None or 0 <= floor.value <= 1
    assert sum(map(sum, floors.gold_positions.values())) == sum(position is not None for position in gold)
    if floors.constant_option.value is not None:
        assert floors.chance.value is not None
        assert floors.constant_option.value > 0


@pytest.mark.parametrize(
    ("options", "gold", "message"),
    [
        ([["a"]], [], "got 1 rows of options and 0 gold positions; pass one per row"),
        ([["a", "b"], ["a", "b"]], [0, 2], "row 1 has gold position 2; allowed are 0 to 1, or None"),
        ([["a", "b"]], [-1], "row 0 has gold position -1; allowed are 0 to 1, or None"),
        ([[]], [0], "row 0 has gold position 0, but no options; pass None"),
    ],
)
def test_refusals_name_the_row(options: list[list[str]], gold: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        score_floors(options, gold)


def test_next_qa_validation() -> None:
    if not NEXTQA.is_file():
        pytest.skip("needs the public data folder 'shared/data' beside the checkout")
    with NEXTQA.open() as file:
        rows = list(csv.DictReader(file))
    floors = measure([[row[f"a{k}"] for k in range(5)] for row in rows], [int(row["answer"]) for row in rows])
    assert floors.longest_option.value == pytest.approx(0.206, abs=5e-4)
    assert floors.constant_option == Floor(1013 / 4996, 4996, 0)
    assert floors.gold_positions == {5: (1013, 1013, 991, 967, 1012)}
    assert floors.duplicate_options.value == 3 / 4996
