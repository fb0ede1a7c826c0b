from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.examples import build_example, name_problem_type
from vidground_hf.options import clean_cell, find_gold, parse_options, strip_prefixes

COLOURS = ["red", "blue", "green"]


@pytest.mark.parametrize(
    ("answer", "options", "expected"),
    [
        (1, COLOURS, 1),
        (2.0, COLOURS, 2),
        ("1", COLOURS, 1),
        ("B", COLOURS, 1),
        ("b", COLOURS, 1),
        ("(B)", COLOURS, 1),
        ("B.", COLOURS, 1),
        ("B. blue", COLOURS, 1),
        ("B. green", COLOURS, None),
        ("blue", COLOURS, 1),
        (" Blue. ", COLOURS, 1),
        ("<answer>C</answer>", COLOURS, 2),
        ("<answer>green</answer>", COLOURS, 2),
        ("D", COLOURS, None),
        (3, COLOURS, None),
        (-1, COLOURS, None),
        ("purple", COLOURS, None),
        (True, COLOURS, None),
        (None, COLOURS, None),
        (float("nan"), COLOURS, None),
        ("", COLOURS, None),
        ("", ["red", ""], 1),
        ("3", ["2", "3", "4", "5"], 1),
        (3, [2, 3, 4, 5], 1),
        (3, ["2", "3", "4", "5"], 3),
        ("B", ["C", "B", "A"], 1),
        ("A", ["C", "B", "A"], 2),
        ("twice", ["twice", "once", "twice"], 0),
    ],
)
def test_find_gold_reads_every_way_to_write_an_answer(answer: Any, options: list[Any], expected: int | None) -> None:
    assert find_gold(answer, options, [str(option) for option in options]) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("['a', \"it's b\"]", ["a", "it's b"]),
        ({"B": "b", "A": "a", "C": None}, ["a", "b"]),
        (None, []),
        (float("nan"), []),
        ("  ", []),
        ("a, b", None),
        ("__import__('os')", None),
        ("[" * 100_000, None),
    ],
)
def test_parse_options_reads_lists_and_runs_nothing(raw: Any, expected: list[str] | None) -> None:
    assert parse_options(raw) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["A. red", "B. blue"], ["red", "blue"]),
        (["(A) red", "(B) blue"], ["red", "blue"]),
        (["A: red", "B) blue"], ["red", "blue"]),
        (["A. red", "blue"], ["A. red", "blue"]),
        (["B. red", "A. blue"], ["B. red", "A. blue"]),
        (["A.", "B. blue"], ["", "blue"]),
        (["", "B. blue"], ["", "blue"]),
        ([], []),
    ],
)
def test_strip_prefixes_wants_the_letter_of_the_position(options: list[str], expected: list[str]) -> None:
    assert strip_prefixes(options) == expected


@pytest.mark.parametrize(
    ("value", "has_options", "expected"),
    [
        ("multiple choice", True, "multiple_choice"),
        ("multiple_choice", True, "multiple_choice"),
        ("free-form", False, "free_form"),
        ("OCR", False, "ocr"),
        ("numerical", False, "numerical"),
        ("regression", False, "regression"),
        ("temporal grounding", False, None),
        (None, True, "multiple_choice"),
        ("", False, "free_form"),
    ],
)
def test_name_problem_type(value: Any, has_options: bool, expected: str | None) -> None:
    assert name_problem_type(value, has_options) == expected


@pytest.mark.parametrize(
    ("cells", "defect", "flags"),
    [
        ({"options": COLOURS, "answer": "A"}, None, ()),
        ({"options": COLOURS, "answer": "purple"}, "gold_not_among_options", ()),
        ({"options": COLOURS}, "no_gold", ()),
        ({"options": "red or blue", "answer": "red"}, "unreadable_options", ()),
        ({"options": [], "answer": "B", "problem_type": "multiple choice"}, "no_options", ()),
        ({"options": [str(k) for k in range(27)], "answer": "5"}, "too_many_options", ()),
        ({"options": ["red", "red"], "answer": "red"}, None, ("duplicate_options", "gold_twice")),
        ({"options": ["red", "blue", "Blue."], "answer": "red"}, None, ("duplicate_options",)),
        ({"options": ["red", ""], "answer": "red"}, None, ("empty_option",)),
        ({"answer": "yes"}, None, ()),
        ({"answer": ""}, "no_gold", ()),
        ({"answer": "[1, 2]", "problem_type": "bbox"}, "unknown_problem_type", ()),
    ],
)
def test_dirty_rows_get_a_stated_reason(cells: dict[str, Any], defect: str | None, flags: tuple[str, ...]) -> None:
    example = build_example(row_id="1", question="Which?", **cells)
    assert (example.defect, example.flags) == (defect, flags)


def test_gold_of_a_tagged_open_answer_is_what_is_inside_the_tags() -> None:
    example = build_example(row_id=1, question="How many?", answer="<answer>3</answer>", problem_type="numerical")
    assert (example.answer, example.answer_index, example.options) == ("3", None, ())


def test_an_empty_gold_option_is_still_the_gold() -> None:
    example = build_example(row_id=1, question="Where?", options=["here", ""], answer="")
    assert (example.answer, example.answer_index, example.defect) == ("", 1, None)


def test_rows_of_one_video_share_a_group_unless_one_is_named() -> None:
    assert build_example(row_id=1, question="?", answer="a", video="v.mp4").group == "v.mp4"
    assert build_example(row_id=1, question="?", answer="a", video="v.mp4", group="g").group == "g"


cell = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["A", "B", "(C)", "<answer>"]),
)


@given(
    question=cell,
    options=st.one_of(cell, st.lists(cell, max_size=15), st.dictionaries(st.sampled_from("ABCD"), cell)),
    answer=cell,
    problem_type=st.one_of(st.none(), st.sampled_from(["multiple choice", "OCR", "regression", "nonsense"])),
)
def test_no_row_raises_and_a_judgeable_one_has_its_gold(
    question: Any, options: Any, answer: Any, problem_type: Any
) -> None:
    example = build_example(row_id=1, question=question, options=options, answer=answer, problem_type=problem_type)
    if example.defect is None and example.problem_type == "multiple_choice":
        assert example.answer_index is not None
        assert example.options[example.answer_index] == example.answer
    if example.defect is None and example.problem_type != "multiple_choice":
        assert example.answer


def test_clean_cell() -> None:
    assert [clean_cell(value) for value in (None, float("nan"), 2.0, 2.5, " x ", 0)] == [
        None,
        None,
        "2",
        "2.5",
        "x",
        "0",
    ]
