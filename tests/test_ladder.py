"""The least evidence that answers a question: labels, rules, splits, the report, and the command."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from tests.models import SimulatedModel, draw
from vidground_hf.answerers import TextBiasProbe
from vidground_hf.answerers.base import Answer, ConstantAnswerer
from vidground_hf.judging import AnswerError
from vidground_hf.ladder import Ladder, RightInEveryOrder, label_rows
from vidground_hf.ladder_checks import measure_kept, measure_wrong_videos
from vidground_hf.ladder_curation import climb
from vidground_hf.ladder_report import compare_needs
from vidground_hf.media import FrameBudget
from vidground_hf.prompts import Prompt
from vidground_hf.schema import LADDER_VIEWS, LETTERS, Example

NEEDED = ("options", "text", "subtitles", "one_frame", "unordered_frames", "video", "unanswered")


@dataclass
class SeeingModel(SimulatedModel):
    """Answers a question from the view on that it needs, and guesses afresh below it.

    Attributes:
        needs (`Mapping[str, str]`): by row id.
        gold (`Mapping[str, str]`): the answer to each row, in the words of the option.
        takes_frames (`bool`): whether it may be shown pixels.
        states_probabilities (`bool`): whether it says how sure it is: 0.97 where it knows, 0.4 where it guesses.
    """

    needs: Mapping[str, str] = field(default_factory=dict)
    gold: Mapping[str, str] = field(default_factory=dict)
    takes_frames: bool = True
    states_probabilities: bool = False

    def _answer(self, prompt: Prompt) -> Answer:
        need = self.needs[prompt.example_id]
        level = 1 if prompt.view == "wrong_video" else LADDER_VIEWS.index(prompt.view)
        knows = level >= NEEDED.index(need)
        guess = int(draw(self.name, prompt.view, prompt.text, prompt.trial_index) * len(prompt.options))
        choice = prompt.options.index(self.gold[prompt.example_id]) if knows else guess
        num_frames = None if prompt.frames is None else 1 if prompt.view == "single_frame" else 4
        logprobs = None
        if self.states_probabilities:
            own = 0.97 if knows else 0.4
            rest = (1 - own) / (len(prompt.options) - 1)
            logprobs = tuple(math.log(own if k == choice else rest) for k in range(len(prompt.options)))
        return Answer(text=LETTERS[choice], option_logprobs=logprobs, num_frames=num_frames)


def make_rows(
    number: int = 70, *, num_options: int = 4, with_subtitles: bool = True, needs: tuple[str, ...] = NEEDED
) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{index}",
            "video": f"clip_{index // 2}.mp4",
            "question": f"question {index}",
            "options": [f"thing {index}-{k}" for k in range(num_options)],
            "answer": LETTERS[int(draw("gold", index) * num_options)],
            "subtitles": f"words {index}" if with_subtitles else None,
            "category": ("count", "order")[index % 2],
            "planted": needs[index % len(needs)],
        }
        for index in range(number)
    ]


def make_model(rows: list[dict[str, Any]], **settings: Any) -> SeeingModel:
    gold = {row["id"]: row["options"][LETTERS.index(row["answer"])] for row in rows}
    return SeeingModel({}, needs={row["id"]: row["planted"] for row in rows}, gold=gold, **settings)


def make_examples(rows: list[dict[str, Any]], **fields: Any) -> list[Example]:
    return [
        Example(
            id=row["id"],
            question=row["question"],
            problem_type="multiple_choice",
            options=tuple(row["options"]),
            answer_index=LETTERS.index(row["answer"]),
            video=row["video"],
            subtitles=row["subtitles"],
            **fields,
        )  # fmt: skip
        for row in rows
    ]


def make_keys(examples: list[Example]) -> list[bytes]:
    return [str(index).encode() for index in range(len(examples))]


def test_circular_gives_every_question_its_planted_label() -> None:
    rows = make_rows(70)
    done = climb(Dataset.from_list(rows), make_model(rows, name="luckless"), rule="circular")
    assert list(done.rows["needs"]) == [row["planted"] for row in rows]
    assert list(done.rows["needs_reason"]) == [None] * 70
    blind = {"options", "text", "subtitles"}
    assert list(done.rows["is_visually_grounded"]) == [row["planted"] not in blind for row in rows]
    assert done.report["needs"] == dict.fromkeys(NEEDED, 10)
    assert done.report["num_undecided"] == 0
    assert [rung["num_rows"] for rung in done.report["rungs"]] == [70, 60, 50, 40, 30, 20]
    assert [rung["num_answered"] for rung in done.report["rungs"]] == [10] * 6
    assert done.report["groups"]["category"]["count"]["needs"] == dict.fromkeys(NEEDED, 5)


def test_calibrated_gives_nearly_every_question_its_planted_label() -> None:
    rows = make_rows(700)
    done = climb(Dataset.from_list(rows), make_model(rows, states_probabilities=True), num_control_rows=0)
    right = sum(need == row["planted"] for need, row in zip(done.rows["needs"], rows, strict=True))
    too_low = sum(
        NEEDED.index(need) < NEEDED.index(row["planted"]) for need, row in zip(done.rows["needs"], rows, strict=True)
    )
    assert (right, too_low) == (690, 10)


def test_a_row_is_asked_no_further_than_the_view_that_answers_it() -> None:
    rows = make_rows(70)
    model = make_model(rows, name="luckless")
    label_rows(Ladder(answerer=model, rule="circular"), make_examples(rows), make_keys(make_examples(rows)))
    for row in rows:
        views = [prompt.view for prompt in model.asked if prompt.example_id == row["id"]]
        highest = min(NEEDED.index(row["planted"]), 5)
        assert set(views) == set(LADDER_VIEWS[: highest + 1])
        assert views == sorted(views, key=LADDER_VIEWS.index)
        if row["planted"] != "unanswered":
            assert views.count(LADDER_VIEWS[highest]) == 4
