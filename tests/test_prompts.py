"""What each view shows of a row, and how it is worded."""

from __future__ import annotations

import re
from typing import Any

import pytest

from vidground_hf.media import FrameBudget
from vidground_hf.prompts import INSTRUCTIONS, Wording, find_missing, make_prompt
from vidground_hf.schema import BLIND_VIEWS, LADDER_VIEWS, VIEWS, Example, View

ROW = Example(
    id="7",
    question="Why does {option} smile?",
    problem_type="multiple_choice",
    options=("rain", "{letter}"),
    answer_index=0,
    video="clips/a.mp4",
    media_root="/media",
    subtitles="So glad.",
    start_seconds=2.0,
    end_seconds=5.0,
)


def test_the_ladder_has_every_view_but_the_control_from_the_cheapest_on() -> None:
    assert LADDER_VIEWS == ("options_only", "text", "subtitles", "single_frame", "shuffled_frames", "video")
    assert set(VIEWS) - set(LADDER_VIEWS) == {"wrong_video"}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_shows_what_its_name_says_and_nothing_else(view: View) -> None:
    prompt = make_prompt(ROW, view, budget=FrameBudget(num_frames=4), shuffle_seed=3)
    assert (prompt.question is None) == (view == "options_only")
    assert (prompt.subtitles is None) == (view != "subtitles")
    assert (prompt.frames is None) == (view in BLIND_VIEWS)
    if prompt.frames is not None:
        assert prompt.frames.source == "/media/clips/a.mp4"
        assert (prompt.frames.start_seconds, prompt.frames.end_seconds) == (2.0, 5.0)
        assert prompt.frames.budget == FrameBudget(num_frames=4)
        assert prompt.frames.pick == ((0, 1) if view == "single_frame" else None)
        assert prompt.frames.shuffle_seed == (3 if view == "shuffled_frames" else None)


def test_views_with_and_without_pixels_ask_in_the_same_words() -> None:
    assert make_prompt(ROW, "video").text == make_prompt(ROW, "text").text == make_prompt(ROW, "single_frame").text


def test_subtitles_may_stand_beside_frames_but_not_beside_text_alone() -> None:
    assert make_prompt(ROW, "video", with_subtitles=True).text.startswith("Subtitles of the video:\nSo glad.\n")
    assert make_prompt(ROW, "text", with_subtitles=True).subtitles is None


def test_an_address_does_not_start_from_the_media_root() -> None:
    row = Example(id="1", question="?", problem_type="free_form", video="hf://datasets/a/b/c.mp4", media_root="/media")
    frames = make_prompt(row, "video").frames
    assert frames is not None
    assert frames.source == "hf://datasets/a/b/c.mp4"


def test_words_of_a_row_are_no_templates_and_empty_parts_leave_no_line() -> None:
    wording = Wording(
        head="", question="Q: {question}", option="({letter}) {option}", instructions={**INSTRUCTIONS, "free_form": ""}
    )
    assert make_prompt(ROW, wording=wording).text.split("\n")[:3] == [
        "Q: Why does {option} smile?",
        "(A) rain",
        "(B) {letter}",
    ]
    row = Example(id="1", question="Why?", problem_type="free_form")
    assert make_prompt(row, wording=wording).text == "Q: Why?"


@pytest.mark.parametrize(
    ("fields", "view", "missing"),
    [
        ({"video": None}, "video", "video"),
        ({"video": ""}, "single_frame", "video"),
        ({"subtitles": None}, "subtitles", "subtitles"),
        ({"video": None}, "text", None),
    ],
)
def test_a_row_that_lacks_what_a_view_shows_is_named(fields: dict[str, Any], view: View, missing: str | None) -> None:
    row = Example(**{"id": "7", "question": "?", "problem_type": "free_form", "video": "a.mp4", **fields})
    assert find_missing(row, view) == missing
    if missing is not None:
        message = f"view = {view!r} asks for {missing}, and row '7' has none; use view='text'"
        with pytest.raises(ValueError, match=re.escape(message)):
            make_prompt(row, view)


def test_an_unknown_view_is_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape("view = 'audio' is unknown; allowed are options_only, text")):
        make_prompt(ROW, "audio")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_frames": 4, "fps": 1.0}, "num_frames = 4 and fps = 1.0 are both given; pass one of them"),
        ({"max_frames": 4}, "max_frames = 4 goes with fps; pass num_frames = 4"),
        ({"num_frames": 0}, "num_frames = 0 is out of range; it is at least 1"),
        ({"fps": 0.0}, "fps = 0.0 is out of range; it is above 0"),
        ({"size": (0, 4)}, "size = (0, 4) is out of range; pass (height, width) or the most pixels of a frame"),
        ({"size": 0}, "size = 0 is out of range"),
    ],
)
def test_a_budget_out_of_range_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FrameBudget(**settings)
