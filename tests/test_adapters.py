from __future__ import annotations

import re
from typing import Any

import pytest

from vidground_hf.adapters import ADAPTERS, find_adapter
from vidground_hf.benchmark_layouts import BENCHMARK_ADAPTERS
from vidground_hf.schema import Example

# One row of each layout, in our own words.
ROWS: dict[str, dict[str, Any]] = {
    "nextqa": {"video": 7, "frame_count": 9, "width": 1, "height": 1, "question": "why does the cat jump", "answer": 4,
               "qid": 2, "type": "CW", "a0": "rain", "a1": "sun", "a2": "snow", "a3": "wind", "a4": "food"},
    "nextqa_oe": {"video": 7, "frame_count": 9, "width": 1, "height": 1, "question": "what is red", "answer": "ball",
                  "qid": 3, "type": "DO"},
    "mlvu": {"video": "a.mp4", "duration": 60.0, "question": "What falls?", "candidates": ["a cup", "a hat"],
             "answer": "a hat", "question_type": "plotQA"},
    "social_iq": {"qid": "v_q1", "q": "Is she glad?", "vid_name": "v", "ts": "0-60", "a0": "Yes.", "a1": "No.",
                  "a2": "Perhaps.", "a3": "Never.", "answer_idx": 2},
    "video_r1": {"problem_id": 5, "problem": "Which way?", "data_type": "video", "problem_type": "multiple choice",
                 "options": ["A. left", "B. right"], "solution": "<answer>B</answer>", "path": "./x/1.mp4",
                 "data_source": "STAR"},
    "easy_video_r1": {"problem": "How many?", "answer": "3", "videos": ["y/2.mp4"], "problem_type": "numerical",
                      "data_type": "video"},
}  # fmt: skip
EXPECTED = {
    "nextqa": ("7_2", "food", "7", "CW"),
    "nextqa_oe": ("7_3", "ball", "7", "DO"),
    "mlvu": ("plotQA_a.mp4_What falls?", "a hat", "a.mp4", "plotQA"),
    "social_iq": ("v_q1", "Perhaps.", "v", None),
    "video_r1": ("5", "right", "./x/1.mp4", "multiple choice"),
    "easy_video_r1": ("y/2.mp4_How many?", "3", "y/2.mp4", "numerical"),
}


def test_every_layout_has_a_row_here() -> None:
    assert set(ROWS) == set(EXPECTED) == set(ADAPTERS) - set(BENCHMARK_ADAPTERS)  # theirs are beside them


@pytest.mark.parametrize("name", ROWS)
def test_layouts_are_found_by_their_columns(name: str) -> None:
    adapter = find_adapter(list(ROWS[name]))
    assert adapter.name == name
    example = adapter.convert({column: ROWS[name][column] for column in adapter.columns})
    assert (example.id, example.answer, example.video, example.category) == EXPECTED[name]
    assert example.defect is None


def test_nextgqa_reads_text_answers_and_spans() -> None:
    row = {**ROWS["nextqa"], "video_id": 8, "answer": "snow", "evidence_spans": [[1.0, 2.5]]}
    del row["video"]
    example = find_adapter(list(row)).convert(row)
    assert (example.answer_index, example.video, example.evidence_spans) == (2, "8", ((1.0, 2.5),))


def test_video_r1_keeps_its_source() -> None:
    assert find_adapter(list(ROWS["video_r1"])).convert(ROWS["video_r1"]).source == "STAR"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "q?", "options": ["x", "y"], "answer": "B"}, ("y", None)),
        ({"question": "q?", "choices": ["x", "y"], "label": 0}, ("x", None)),
        ({"problem": "q?", "A": "x", "B": "y", "C": None, "answer": "B"}, ("y", None)),
        ({"question": "q?", "option_a": "x", "option_b": "y", "answer": "y"}, ("y", None)),
        ({"question": "q?", "a0": "x", "a1": "y", "answer_idx": 1, "video_path": ["v.mp4"]}, ("y", "v.mp4")),
        ({"question": "q?", "answer": "free text", "video_id": "v"}, ("free text", "v")),
    ],
)
def test_the_generic_layout_reads_usual_names(row: dict[str, Any], expected: tuple[str, str | None]) -> None:
    adapter = find_adapter(list(row))
    example = adapter.convert(row)
    assert adapter.name == "generic"
    assert (example.answer, example.video, example.defect) == (*expected, None)


def test_an_option_column_that_is_empty_in_the_middle_keeps_its_letter() -> None:
    row = {"question": "q?", "A": "x", "B": None, "C": "z", "D": None, "answer": "C"}
    example: Example = find_adapter(list(row)).convert(row)
    assert (example.options, example.answer_index) == (("x", "", "z"), 2)


def test_a_mapping_names_columns_and_reads_no_other() -> None:
    adapter = find_adapter(
        ["frage", "x", "y", "gold", "clip", "note"],
        mapping={"question": "frage", "options": "x, y", "answer": "gold", "video": "clip"},
    )
    assert adapter.columns == ("frage", "x", "y", "gold", "clip")
    example = adapter.convert({"frage": "q?", "x": "left", "y": "right", "gold": 1, "clip": "c.mp4"})
    assert (example.question, example.options, example.answer, example.video) == (
        "q?",
        ("left", "right"),
        "right",
        "c.mp4",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "nope"}, "unknown adapter 'nope'; allowed are nextqa, nextqa_oe, mlvu, social_iq, video_r1, "),
        (
            {"name": "mlvu"},
            "adapter 'mlvu' needs the columns video, duration, answer, question_type; found question, x.",
        ),
        (
            {"name": "mlvu", "mapping": {"question": "x"}},
            "a column mapping goes with the generic adapter, got adapter 'mlvu'",
        ),
        ({"mapping": {"quest": "x"}}, "unknown mapping key 'quest'; allowed are question, options, answer"),
        ({"mapping": {"answer": "gold"}}, "no column 'gold'; found question, x"),
        ({}, "no known layout has these columns: question, x. Say which column is which with --map question=COLUMN"),
    ],
)
def test_errors_name_what_was_found_and_what_to_pass(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        find_adapter(["question", "x"], **arguments)


def test_a_long_list_of_columns_is_cut() -> None:
    with pytest.raises(ValueError, match=re.escape("c18, c19 and 5 more. Say")):
        find_adapter([f"c{k}" for k in range(25)])
