"""What completions earn: by each row's own problem type, and only by looking where that is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.rewards import (
    LookReward,
    accuracy_reward,
    cut_thinking,
    format_reward,
    length_reward,
    temporal_iou_reward,
)

CHOICES = {"solution": "B", "problem_type": "multiple_choice", "options": ["red", "blue", "green", "pink"]}


def repeat(row: dict[str, Any], count: int) -> dict[str, list[Any]]:
    return {name: [value] * count for name, value in row.items()}


@pytest.mark.parametrize(
    ("row", "completion", "expected"),
    [
        (CHOICES, "<think>A or B</think><answer>B</answer>", 1.0),
        (CHOICES, "<think>A or B</think><answer>A</answer>", 0.0),
        (CHOICES, "<think>The answer is B", 0.0),
        (CHOICES, "it is B</think>A", 0.0),
        (CHOICES, [{"role": "assistant", "content": "blue"}], 1.0),
        (CHOICES, [{"role": "assistant", "content": [{"type": "text", "text": "(B)"}]}], 1.0),
        (CHOICES | {"solution": "blue"}, "B", 1.0),
        (CHOICES | {"solution": "<answer>B</answer>"}, "B", 1.0),
        (CHOICES | {"options": ["B", "A"], "solution": "A"}, "B", 1.0),
        (CHOICES | {"options": ["blue", "Blue.", "red"], "solution": "A"}, "B", 1.0),
        (CHOICES | {"solution": "yellow"}, "B", None),
        (CHOICES | {"options": []}, "B", None),
        (CHOICES | {"problem_type": "box"}, "B", None),
        ({"solution": "1,200", "problem_type": "numerical", "options": None}, "about 1200", 1.0),
        ({"solution": "many", "problem_type": "numerical", "options": None}, "1200", None),
        ({"solution": "EXIT NOW", "problem_type": "ocr", "options": None}, "EXIT", 0.5),
        ({"solution": "10", "problem_type": "regression", "options": None}, "<answer>8</answer>", 0.8),
        ({"solution": "a red car", "problem_type": "free_form", "options": None}, "a red car", 1.0),
    ],
)
def test_accuracy_goes_by_the_rows_own_type(row: dict[str, Any], completion: Any, expected: float | None) -> None:
    found = accuracy_reward([completion, completion], **repeat(row, 2))
    assert found == [expected, expected] if expected is None else found == pytest.approx([expected] * 2)


def test_rows_of_several_types_go_together() -> None:
    rows = [CHOICES, {"solution": "3", "problem_type": "numerical", "options": []}]
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in CHOICES}
    assert accuracy_reward(["B", "3"], **columns, trainer_state=None, log_extra=print) == [1.0, 1.0]


def test_open_rows_need_no_options() -> None:
    assert accuracy_reward(["3"], ["3"], ["numerical"]) == [1.0]


@given(st.text(), st.text())
def test_what_is_thought_aloud_is_no_answer(thought: str, answer: str) -> None:
    assert cut_thinking(f"<think>{thought}</think>{answer}") == answer.rpartition("</think>")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>a\nb</think>\n<answer>B</answer>", 1.0),
        (" <think></think><answer></answer>\n", 1.0),
        ("<think>a</think><answer>B</answer> so B", 0.0),
        ("first <think>a</think><answer>B</answer>", 0.0),
        ("<answer>B</answer><think>a</think>", 0.0),
        ("<think>a</think><answer>B</answer><answer>A</answer>", 0.0),
        ("<think>a <answer>B</answer></think><answer>A</answer>", 0.0),
        ("<think>a</think><answer>B", 0.0),
        ("B", 0.0),
    ],
)
def test_format_takes_each_tag_once(text: str, expected: float) -> None:
    assert format_reward([text], solution=["B"]) == [expected]


def test_length_is_rewarded_where_the_answer_is_right() -> None:
    lengths = [319, 320, 512, 513, 400, 400]
    texts = ["B", "B", "B", "B", "A", "B"]
    columns = repeat(CHOICES, 6)
    columns["solution"] = ["B"] * 5 + ["yellow"]
    found = length_reward(texts, completion_ids=[[0] * length for length in lengths], **columns)
    assert found == [0.0, 0.2, 0.2, 0.0, 0.0, None]


def test_length_counts_an_answer_as_right_above_a_tenth() -> None:
    row = repeat({"solution": "10", "problem_type": "regression"}, 2)
    assert length_reward(["1", "2"], completion_ids=[[0] * 400] * 2, **row) == [0.0, 0.2]


@pytest.mark.parametrize(
    ("text", "spans", "expected"),
    [
        ("<answer>[5, 10]</answer>", [[0.0, 10.0]], 0.5),
        ("<think>1 to 2</think><answer>from 5.0s to 10 s</answer>", [[0.0, 10.0]], 0.5),
        ("0-4", [[8.0, 12.0], [0.0, 4.0]], 1.0),
        ("10 to 5", [[0.0, 10.0]], 0.0),
        ("5", [[0.0, 10.0]], 0.0),
        ("1, 2 and 3", [[0.0, 10.0]], 0.0),
        ("nowhere", [[0.0, 10.0]], 0.0),
        ("0 to 1", [], None),
        ("0 to 1", None, None),
    ],
)
def test_temporal_iou_takes_the_nearest_window(text: str, spans: Any, expected: float | None) -> None:
    assert temporal_iou_reward([text], evidence_spans=[spans]) == [expected]


class Policy:
    """Has `sample_completions`, and says blind what it is told by row id."""

    def __init__(self, says: dict[str, Sequence[str]]) -> None:
        self.says = says
        self.asked: list[tuple[list[dict[str, Any]], str, int]] = []

    def sample_completions(self, rows: list[dict[str, Any]], *, view: str, num_generations: int) -> list[list[str]]:
        self.asked.append((rows, view, num_generations))
        return [list(self.says[row["id"]])[:num_generations] for row in rows]


def reward_looks(policy: Policy, completions: list[str], ids: list[str], **settings: Any) -> Any:
    pytest.importorskip("accelerate", reason="gathers over processes; pip install 'vidground-hf[models]'")
    look = LookReward(**settings)
    look.attach(policy)
    logged: dict[str, float] = {}
    prompts = [
        [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": f"ask {one}"}]}] for one in ids
    ]
    columns = repeat(CHOICES, len(ids)) | {"video": [f"{one}.mp4" for one in ids]}
    found = look(
        completions, id=ids, prompts=prompts, completion_ids=[[0]] * len(ids), trainer_state=object(),
        log_extra=print, log_metric=logged.__setitem__, **columns,
    )  # fmt: skip
    return found, logged


def test_an_answer_known_blind_earns_nothing_by_looking() -> None:
    policy = Policy({"known": "BBBB", "guessed": "ABCD", "seen": "AAAA"})
    ids = ["known", "known", "guessed", "guessed", "seen", "seen"]
    found, logged = reward_looks(policy, ["B", "A"] * 3, ids)
    assert found == [0.0, 0.0, 0.75, 0.0, 1.0, 0.0]
    assert logged == {"look_share_of_generations": 2.0, "look_blind_accuracy": pytest.approx((1 + 0.25 + 0) / 3)}
    ((rows, view, num_generations),) = policy.asked
    assert [row["id"] for row in rows] == ["known", "guessed", "seen"]
    assert (view, num_generations) == ("text", 4)
    assert rows[0] == {
        "id": "known", "prompt": [{"role": "user", "content": "ask known"}], "video": "known.mp4", **CHOICES,
    }  # fmt: skip


def test_rows_without_a_right_answer_are_not_asked() -> None:
    policy = Policy({"one": "BB", "two": "AB"})
    found, logged = reward_looks(policy, ["A", "A", "B", "C"], ["one", "one", "two", "two"], num_generations=2)
    assert found == [0.0, 0.0, 0.5, 0.0]
    assert [[row["id"] for row in rows] for rows, _, _ in policy.asked] == [["two"]]
    assert logged["look_share_of_generations"] == 0.5
    found, logged = reward_looks(Policy({}), ["A", "A"], ["one", "one"])
    assert found == [0.0, 0.0]
    assert logged == {"look_share_of_generations": 0.0}


def test_with_another_clip_all_rows_are_asked() -> None:
    policy = Policy({"one": "BB", "two": "AA"})
    found, _ = reward_looks(policy, ["A", "B"], ["one", "two"], num_generations=2, view="wrong_video")
    assert found == [0.0, 1.0]
    ((rows, view, _),) = policy.asked
    assert ([row["video"] for row in rows], view) == (["one.mp4", "two.mp4"], "wrong_video")


def test_what_cannot_be_scored_or_seen_is_not_asked() -> None:
    pytest.importorskip("accelerate", reason="gathers over processes; pip install 'vidground-hf[models]'")
    look = LookReward()
    look.attach(Policy({}))
    columns: dict[str, Any] = repeat(CHOICES, 2) | {"solution": ["yellow", "B"], "video": ["1.mp4", None]}
    assert look(["B", "B"], id=["1", "2"], prompts=["?", "?"], **columns) == [None, 1.0]


def test_settings_of_the_look_reward_are_checked() -> None:
    with pytest.raises(ValueError, match=re.escape("num_generations = 0 is out of range; it is at least 1")):
        LookReward(num_generations=0)
    with pytest.raises(ValueError, match="view = 'video' is not allowed; allowed are 'text' and 'wrong_video'"):
        LookReward(view="video")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="str cannot be asked without the video; look_reward goes with VideoGRPOT"):
        LookReward().attach("trainer")
    with pytest.raises(RuntimeError, match=re.escape("call its attach(trainer) before trainer.train()")):
        LookReward()(["A"], id=["1"], prompts=["?"])
    assert LookReward().__name__ == "look_reward"
