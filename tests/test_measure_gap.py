"""From answers to the gap: what counts as an answer, what is counted apart, and every refusal with its rows."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vidground_hf.gap import measure_gap
from vidground_hf.stats.checks import UNANSWERED

QUICK: dict[str, Any] = {"num_resamples": 20}


def test_letters_texts_and_completions_are_read() -> None:
    result = measure_gap(
        predictions=["B", "the red one", "<think>A or C</think><answer>(C)</answer>", "A man walks"],
        blind_predictions=["The answer is B", "A. a dog", "cannot say", "A"],
        references=["B", "the red one", "2", "B"],
        options=[["A. cat", "B. dog"], ["a dog", "the red one"], ["one", "two", "three"], ["yes", "no"]],
        **QUICK,
    )
    assert result["visual_gains"] == [0.0, 1.0, 1.0, 0.0]
    assert result["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_each_row_is_scored_by_its_own_type() -> None:
    result = measure_gap(
        predictions=["B", "1,200", "a red stop sign", "it is 9"],
        blind_predictions=["A", "12", "a sign", "no idea"],
        references=["B", "1200", "a red stop sign", "10"],
        num_options=[2, 0, 0, 0],
        problem_types=["multiple_choice", "numerical", "ocr", "regression"],
        **QUICK,
    )
    assert result["visual_gains"] == pytest.approx([1.0, 1.0, 0.5, 0.9])
    assert result["chance"] == pytest.approx(0.5 / 4)


def test_without_options_rows_are_choices_with_unknown_chance() -> None:
    result = measure_gap(["C"], ["A"], ["C"], **QUICK)
    assert (result["gap"], result["chance"], result["num_without_chance"]) == (1.0, None, 1)


def test_options_decide_the_type_where_none_is_given() -> None:
    by_list = measure_gap(["A", "red"], ["B", "a"], ["A", "red"], options=[["x", "y"], []], **QUICK)
    by_number = measure_gap(["A", "red"], ["B", "a"], ["A", "red"], num_options=[2, 0], **QUICK)
    assert by_list == by_number
    assert by_list["chance"] == 0.25


def test_whole_numbers_are_positions_where_the_options_are_not_given() -> None:
    counted = measure_gap(["0", "1", "3"], ["1", "1", "4"], ["0", "1", "2"], num_options=4, **QUICK)
    assert counted["visual_gains"] == [1.0, 0.0, 0.0]
    assert measure_gap(["2"], ["0"], ["2"], **QUICK)["gap"] == 1.0
    # With their texts given, a number is what it says.
    assert measure_gap(["2"], ["1"], ["C"], options=[["1", "3", "2"]], **QUICK)["gap"] == 1.0
    assert measure_gap(["2"], ["1"], ["2"], num_options=0, problem_types="numerical", **QUICK)["gap"] == 1.0


def test_columns_may_be_arrays() -> None:
    columns: dict[str, Any] = {"predictions": ["A", "B"], "blind_predictions": ["A", "A"], "references": ["A", "B"]}
    more: dict[str, Any] = {"groups": ["x", "y"], "clusters": [1, 2], "ids": ["a", "b"], "blind_ids": ["a", "b"]}
    arrays = {name: np.array(column) for name, column in (columns | more).items()}
    assert measure_gap(**arrays, num_options=np.int64(4), **QUICK) == measure_gap(
        **columns, **more, num_options=4, **QUICK
    )


def test_options_with_the_same_text_are_one_answer() -> None:
    result = measure_gap(["B"], ["C"], ["A"], options=[["red", "Red.", "blue", "green"]], **QUICK)
    assert (result["visual_accuracy"], result["chance"]) == (1.0, 1 / 3)


def test_one_option_is_no_choice() -> None:
    result = measure_gap(["A", "A"], ["A", "B"], ["A", "A"], num_options=[1, 4], **QUICK)
    assert (result["num_without_chance"], result["chance"], result["visual_accuracy"]) == (1, 0.25, 1.0)


def test_missing_answers_are_wrong_and_counted_in_each_run() -> None:
    result = measure_gap(
        ["A", UNANSWERED, "A", UNANSWERED], ["A", "A", UNANSWERED, UNANSWERED], ["A"] * 4, num_options=4, **QUICK
    )
    assert result["visual_gains"] == [0.0, -1.0, 1.0, 0.0]
    counted = {key: count for key, count in result.items() if key.endswith("unanswered")}
    assert counted == {"num_unanswered": 3, "num_visual_unanswered": 2, "num_blind_unanswered": 2}


def test_bad_references_are_left_out_with_reasons() -> None:
    result = measure_gap(
        predictions=["A", "A", "A", "3", "A"],
        blind_predictions=["B", "A", "A", "3", "A"],
        references=["A", UNANSWERED, "E", "many", "A"],
        num_options=[4, 4, 4, 0, 0],
        problem_types=["multiple_choice", "multiple_choice", "multiple_choice", "numerical", "multiple_choice"],
        groups=["x", "x", "y", "y", "y"],
        **QUICK,
    )
    assert (result["num_examples"], result["num_unscored"], result["gap"]) == (5, 4, 1.0)
    assert result["unscored_reasons"] == {
        "no_gold": 1, "gold_not_among_options": 1, "unreadable_reference": 1, "no_options": 1,
    }  # fmt: skip
    assert result["visual_gains"] == [1.0, None, None, None, None]
    assert result["groups"]["x"]["unscored_reasons"] == {"no_gold": 1}
    assert (result["groups"]["y"]["num_unscored"], result["groups"]["y"]["gap"]) == (3, None)


def test_groups_hold_the_same_figures_and_clusters_within_them() -> None:
    columns: dict[str, Any] = {
        "predictions": list("ABCDABCD"), "blind_predictions": list("AAAAAAAA"), "references": list("ABCAABDD"),
        "num_options": 4, "clusters": [1, 1, 2, 2, 3, 3, 4, 4],
    }  # fmt: skip
    result = measure_gap(**columns, groups=["x", "y"] * 4, **QUICK)
    assert list(result["groups"]) == ["x", "y"]
    picked = {name: column[::2] if name != "num_options" else column for name, column in columns.items()}
    alone = measure_gap(**picked, **QUICK)
    assert result["groups"]["x"] == {key: alone[key] for key in alone if key not in ("groups", "visual_gains")}


def test_views_and_base_model_go_along() -> None:
    result = measure_gap(
        ["A", "B"], ["A", "A"], ["A", "B"], num_options=2, base_predictions=["B", "A"],
        views={"single_frame": ["A", UNANSWERED]}, **QUICK,
    )  # fmt: skip
    assert (result["multimodal_gain"], result["multimodal_leakage"]) == (0.5, 0.5)
    assert (result["views"]["single_frame"]["accuracy"], result["views"]["single_frame"]["gap"]) == (0.5, 0.5)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12),
    order=st.permutations(range(4)),
    data=st.data(),
)
def test_relabelling_options_and_reordering_rows_change_nothing(
    rows: list[tuple[int, int, int]], order: list[int], data: st.DataObject
) -> None:
    options = ["a dog", "the red one", "nothing", "two"]

    def measure(shown: list[str], rows: list[tuple[int, int, int]]) -> dict[str, Any]:
        visual, blind, gold = (["ABCD"[shown.index(options[choice])] for choice in picks]
                               for picks in zip(*rows, strict=True))  # fmt: skip
        return measure_gap(visual, blind, gold, options=[shown] * len(rows), **QUICK)

    plain = measure(options, rows)
    assert measure([options[k] for k in order], rows) == plain
    shuffled = measure(options, data.draw(st.permutations(rows)))
    assert sorted(shuffled.pop("visual_gains")) == sorted(plain.pop("visual_gains"))
    assert shuffled == plain


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"blind_predictions": ["A"]},
            "blind_predictions has 1 rows and predictions has 3: rows 1, 2 stand alone; pass one of each per row, missing or not",
        ),
        (
            {"groups": ["x"] * 4},
            "groups has 4 rows and predictions has 3: row 3 stands alone; pass one of each per row, missing or not",
        ),
        ({"views": {"single_frame": ["A"]}}, "view single_frame has 1 rows and predictions has 3: rows 1, 2"),
        ({"base_predictions": ["A"]}, "base_predictions has 1 rows and predictions has 3"),
        (
            {"blind_predictions": ["A", None, None]},
            "blind_predictions must be text; pass UNANSWERED where there is none; got None in rows 1, 2",
        ),
        (
            {"references": ["A", 1, "B"]},
            "references must be text; pass UNANSWERED where there is none; got 1 in row 1",
        ),
        (
            {"clusters": ["v", "w", None]},
            "clusters must have a value in every row; leave clusters out otherwise; got None in row 2",
        ),
        (
            {"options": [["x"], ["y"], ["z"]]},
            "got options and num_options; pass options alone, which say their number",
        ),
        (
            {"num_options": [4, 27, -1]},
            "num_options must be whole and in 0 to 26; give 0 to open-ended questions; got 27 in rows 1, 2",
        ),
        ({"num_options": 4.5}, "num_options must be whole and in 0 to 26; give 0 to open-ended questions; got 4.5 in"),
        ({"num_options": ["4", "4", "4"]}, "num_options must be whole and in 0 to 26"),
        (
            {"num_options": None, "options": ["red", "blue", "red"]},
            "options must be a list of texts in every row; give an empty one to open-ended questions; got 'red' in rows "
            "0, 1, 2",
        ),
        (
            {"problem_types": ["ocr", "bbox", "ocr"]},
            "problem_types allows multiple_choice, numerical, ocr, free_form, regression; got 'bbox' in row 1",
        ),
        ({"ids": ["a", "b", "a"]}, "ids must be unique; got 'a' in rows 0, 2; keep one row of each"),
        (
            {"ids": ["a", "b", "c"], "blind_ids": ["a", "c", "b"]},
            "blind_ids must equal ids; got 'c' for 'b' in rows 1, 2; bring both runs into one order",
        ),
        ({"blind_ids": ["a", "b", "c"]}, "got blind_ids without ids; pass both, so that they can be compared"),
        ({"num_resamples": 0}, "num_resamples = 0 is too few; pass at least 1"),
    ],
)
def test_refuses_rows_that_do_not_belong_together(changed: dict[str, Any], message: str) -> None:
    columns: dict[str, Any] = {name: ["A"] * 3 for name in ("predictions", "blind_predictions", "references")}
    with pytest.raises(ValueError, match=re.escape(message)):
        measure_gap(**({"num_options": 4} | columns | changed))


def test_many_repeated_ids_are_counted() -> None:
    with pytest.raises(ValueError, match=re.escape("'a' in rows 0, 1 (2 ids are repeated); keep one row of each")):
        measure_gap(["A"] * 4, ["A"] * 4, ["A"] * 4, ids=["a", "a", "b", "b"])
