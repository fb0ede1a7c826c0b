from __future__ import annotations

import inspect
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'vidground-hf[models]'")

from vidground_hf.stats.checks import UNANSWERED  # noqa: E402
from vidground_hf.task_preference.answers import TaskPreferenceAnswer  # noqa: E402
from vidground_hf.task_preference.evaluation import (  # noqa: E402
    answer_rows,
    measure_forgetting,
    score_answers,
    score_routing,
)
from vidground_hf.task_preference.evaluation_scores import is_right, read_answer  # noqa: E402
from vidground_hf.task_preference.row_masks import encode_mask  # noqa: E402
from vidground_hf.task_preference.row_text import read_written_labels, write_box, write_masks  # noqa: E402
from vidground_hf.task_preference.task_rows import TaskRow  # noqa: E402

NOTHING = TaskPreferenceAnswer(text="")


def make_moment(name: str, *spans: tuple[float, float], **settings: Any) -> TaskRow:
    return TaskRow(id=name, task="moment", question="a dog", video="v.mp4", spans=spans, **settings)


def answer_span(*spans: tuple[float, float], text: str = "") -> TaskPreferenceAnswer:
    scores = torch.linspace(1, 0.5, len(spans))
    return TaskPreferenceAnswer(text=text, tasks=("moment",), spans=torch.tensor(spans), scores=scores)


def make_talk(name: str, answer: str = "red", **settings: Any) -> TaskRow:
    return TaskRow(id=name, task="dialogue", question="Which?", answer=answer, **settings)


def say(text: str) -> TaskPreferenceAnswer:
    return TaskPreferenceAnswer(text=text)


def test_moments_are_scored_and_a_silent_row_is_wrong() -> None:
    rows = [make_moment("a", (0.0, 8.0)), make_moment("b", (3.0, 5.0), (20.0, 30.0)), make_moment("c", (0.0, 1.0))]
    found = score_answers(rows, [answer_span((0.0, 10.0)), answer_span((4.0, 6.0), (20.0, 30.0)), NOTHING])
    scores = found["moments"]
    assert scores["r1@0.7"] == pytest.approx(1 / 3)
    assert scores["miou"] == pytest.approx((0.8 + 1 / 3) / 3)
    assert (scores["num_missing"], scores["num_examples"]) == (1, 3)
    assert found["routing"]["accuracy"] == pytest.approx(2 / 3)
    assert set(found) == {"routing", "moments"}


def test_highlights_take_the_nearest_patch_of_each_clip() -> None:
    ratings = ((0.0, 0.0), (4.0, 4.0), (1.0, 1.0))
    row = make_moment("a", (2.0, 4.0), ratings=ratings, clip_seconds=2.0)
    answer = TaskPreferenceAnswer(
        text="",
        tasks=("moment",),
        spans=torch.tensor([[2.0, 4.0]]),
        scores=torch.ones(1),
        saliency=torch.tensor([0.1, 0.9]),
        times_seconds=torch.tensor([1.4, 2.6]),
    )
    scores = score_answers([row], [answer])["highlights"]
    assert scores["hit1@very_good"] == 1.0
    assert scores["map@very_good"] == 0.5  # the last clip has the same patch, and shares its rank
    assert scores["map"] == 1.0
    assert score_answers([row], [NOTHING])["highlights"]["num_missing"] == 1


def test_reasoning_needs_the_answer_and_the_place() -> None:
    settings = {"options": ("red", "blue"), "answer": "blue"}
    rows = [make_moment(name, (1.0, 6.0), **settings) for name in "abc"]
    scores = score_answers(
        rows,
        [answer_span((2.0, 4.0), text="B"), answer_span((2.0, 4.0), text="A"), answer_span((7.0, 9.0), text="blue")],
    )["reasoning"]
    assert scores["acc_qa"] == pytest.approx(2 / 3)
    assert scores["acc_gqa"] == pytest.approx(1 / 3)
    assert scores["iop@0.5"] == pytest.approx(2 / 3)


def test_boxes_are_scored_in_pixels() -> None:
    settings: dict[str, Any] = {
        "task": "box",
        "question": "the dog",
        "image": "a.png",
        "width_px": 10,
        "height_px": 10,
    }
    rows = [TaskRow(id=name, box=(0.0, 0.0, 4.0, 2.0), **settings) for name in "ab"]
    answer = TaskPreferenceAnswer(text="", tasks=("box",), boxes=torch.tensor([[0.0, 0.0, 4.0, 4.0]]))
    scores = score_answers(rows, [answer, NOTHING])["boxes"]
    assert (scores["acc@0.5"], scores["miou"], scores["num_missing"]) == (0.5, 0.25, 1)


def test_masks_of_every_annotated_frame_are_scored() -> None:
    left, both = (json.dumps({"size": [1, 2], "counts": counts}) for counts in ([0, 1, 1], [0, 2]))
    settings: dict[str, Any] = {"task": "mask", "question": "the dog", "video": "v.mp4"}
    row = TaskRow(id="k", masks=(both, left, None, None), mask_seconds=(0.0, 1.0, 2.0, 3.0), **settings)
    drawn = torch.tensor([[[[True, True]], [[False, False]]]])
    answer = TaskPreferenceAnswer(text="", tasks=("mask",), masks=drawn, mask_seconds=torch.tensor([0.4, 2.6]))
    scores = score_answers([row], [answer])["masks"]
    # Frames at 0 and 1 s have the first drawn mask, those at 2 and 3 s the second.
    assert scores["j"] == pytest.approx((1 + 0.5 + 1 + 1) / 4)
    assert scores["j_present"] == pytest.approx(0.75)
    assert (scores["num_empty_frames"], scores["num_never_present"]) == (2, 0)
    silent = score_answers([row], [NOTHING])["masks"]
    assert (silent["j"], silent["j_present"], silent["num_missing"]) == (0.0, 0.0, 1)


def test_tracks_are_scored_by_the_box_around_the_mask() -> None:
    masks = tuple(json.dumps(box) if box else None for box in ([0, 0, 4, 4], [2, 0, 6, 4], None, [4, 0, 8, 4]))
    row = TaskRow(
        id="t", task="mask", question="the dog", video="v.mp4", masks=masks, mask_seconds=(0.0, 1.0, 2.0, 3.0),
        width_px=10, height_px=6,
    )  # fmt: skip
    drawn = torch.zeros(1, 4, 6, 10, dtype=torch.bool)
    drawn[0, 0, 0:4, 0:4] = drawn[0, 1, 0:4, 2:6] = drawn[0, 3, 0:4, 4:6] = True
    answer = TaskPreferenceAnswer(text="", tasks=("mask",), masks=drawn, mask_seconds=torch.arange(4.0))
    found = score_answers([row], [answer])
    assert "masks" not in found
    assert found["tracks"]["ao"] == pytest.approx((1 + 0.5) / 2)
    assert found["tracks"]["num_frames"] == 2
    assert score_answers([row], [NOTHING])["tracks"]["ao"] == 0.0


def test_routing_counts_right_heads_and_false_triggers() -> None:
    rows = [make_moment("a", (0.0, 1.0)), make_moment("b", (0.0, 1.0)), make_talk("c"), make_talk("d"), make_talk("e")]
    answers = [
        TaskPreferenceAnswer(text="", tasks=("moment",)),
        TaskPreferenceAnswer(text="", tasks=("moment", "box")),
        TaskPreferenceAnswer(text="", tasks=("box",)),
        say("red"),
        say("blue"),
    ]
    found = score_routing(rows, answers)
    assert (found["accuracy"], found["accuracy_moment"], found["accuracy_box"]) == (0.5, 0.5, None)
    assert found["false_triggers"] == pytest.approx(1 / 3)
    assert found["called"] == {"moment": {"moment": 1, "several": 1}, "dialogue": {"box": 1, "none": 2}}
    assert score_routing([], [])["accuracy"] is None
    assert score_answers(rows, answers)["dialogue"] == {"accuracy": pytest.approx(1 / 3), "num_examples": 3}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("B", "red ball"),
        (" B. Red ball", "red ball"),
        ("The answer is B.", "red ball"),
        ("(A)", "blue ball"),
        ("RED BALL.", "red ball"),
        ("A red ball", "red ball"),  # an article, not a letter
        ("E", UNANSWERED),
        ("green", UNANSWERED),
        ("", UNANSWERED),
    ],
)
def test_options_are_read_from_what_is_said(text: str, meant: str) -> None:
    row = make_talk("a", "Red ball", options=("Blue ball", "Red ball"))
    assert read_answer(row, say(text)) == meant
    assert is_right(row, say(text)) == (meant == "red ball")


def test_options_that_are_letters_are_right_by_their_place_in_every_score() -> None:
    row = make_moment("a", (1.0, 6.0), options=("B", "A"), answer="A")
    scores = score_answers([row, row], [answer_span((2.0, 4.0), text=text) for text in ("A", "B")])["reasoning"]
    assert scores["acc_qa"] == 0.5
    assert [is_right(row, say(text)) for text in "AB"] == [False, True]


def test_free_answers_are_compared_as_text() -> None:
    assert is_right(make_talk("a", "A dog."), say(" a  dog"))
    assert not is_right(make_talk("a", "A dog."), say("a cat"))
    assert not is_right(make_moment("a", (0.0, 1.0)), say("a cat"))


def test_forgetting_pairs_the_rows() -> None:
    rows = [*(make_talk(str(k), video=f"{k}.mp4") for k in range(10)), make_moment("m", (0.0, 1.0))]
    before = [say("red")] * 8 + [say("blue")] * 2 + [NOTHING]
    after = [say("blue")] * 5 + [say("red")] * 4 + [say("blue")] + [NOTHING]
    found = measure_forgetting(rows, before, after)
    assert (found["accuracy_before"], found["accuracy_after"], found["change"]) == (0.8, 0.4, pytest.approx(-0.4))
    assert (found["num_forgotten"], found["num_learned"]) == (5, 1)
    assert found["p_value"] == pytest.approx(2 * (1 + 6) / 2**6)
    assert found["change_low"] <= -0.4 <= found["change_high"]
    assert (found["num_examples"], found["num_other_tasks"]) == (10, 1)
    with pytest.raises(ValueError, match=re.escape("none of 1 rows is dialogue")):
        measure_forgetting(rows[-1:], [NOTHING], [NOTHING])
    with pytest.raises(ValueError, match=re.escape("got 2 rows, 1 answers before and 2 after; pass one each")):
        measure_forgetting(rows[:2], [NOTHING], [NOTHING] * 2)


def test_forgetting_resamples_what_is_shown() -> None:
    before = [say("red")] * 6
    after = [say("red")] * 2 + [say("blue")] * 3 + [say("red")]

    def measure(shown: list[dict[str, Any]]) -> tuple[float, float]:
        found = measure_forgetting([make_talk(str(k), **one) for k, one in enumerate(shown)], before, after)
        return found["change_low"], found["change_high"]

    wanted = measure([{"video": name} for name in "aabbcc"])
    assert measure([{"image": name} for name in "aabbcc"]) == wanted
    # A picture is decoded anew for each row.
    assert measure([{"image": Image.new("RGB", (2, 2), (k // 2, 0, 0))} for k in range(6)]) == wanted
    assert measure([{}] * 6) != wanted


def test_written_labels_are_read_by_what_they_are() -> None:
    settings: dict[str, Any] = {"video": "v.mp4", "width_px": 8, "height_px": 4}
    row = TaskRow(id="b", task="box", question="the dog", box=(0.0, 0.0, 4.0, 4.0), **settings)
    box = read_written_labels(row, say(write_box([0.0, 0.5, 0.5, 1.0])))
    assert box.tasks == ("box",)
    assert box.boxes is not None
    assert box.boxes.tolist() == [[0.0, 2.0, 4.0, 4.0]]
    masks = np.zeros((2, 4, 8), dtype=bool)
    masks[1, 0:2, 4:8] = True
    drawn = read_written_labels(row, say(write_masks(masks, [0.0, 1.5])))
    assert drawn.tasks == ("mask",)
    assert drawn.masks is not None
    assert drawn.mask_seconds is not None
    assert torch.equal(drawn.masks[0], torch.from_numpy(masks))
    assert drawn.mask_seconds.tolist() == [0.0, 1.5]
    why = make_moment("w", (1.0, 2.5), options=("red", "blue"), answer="blue")
    moment = read_written_labels(why, say("1.0 to 2.5 seconds; 3.0 to 4.0 seconds. B"))
    assert (moment.tasks, moment.text) == (("moment",), "B")
    assert moment.spans is not None
    assert moment.spans.tolist() == [[1.0, 2.5], [3.0, 4.0]]
    assert read_written_labels(row, say("a dog")) == say("a dog")
    unknown = read_written_labels(make_talk("d"), say(write_box([0.0, 0.5, 0.5, 1.0])))
    assert (unknown.tasks, unknown.boxes) == (("box",), None)


@pytest.mark.parametrize(
    "text",
    [
        "The dog barks from 1.0 to 2.5 seconds, then sleeps",
        "1.0 to 2.5 seconds, or so",
        "I would say [0, 250, 500, 1000]",
        "[0, 250, 500, 1000]; [0, 250, 500, 1000]",
        "0.5 s: [0, 250, 500, 1000]; 1.5 s: [0, 2",
        "0.5 s: nonesuch",
        "none",
        "",
    ],
)
def test_a_label_is_the_whole_answer(text: str) -> None:
    row = make_moment("a", (1.0, 2.5), width_px=8, height_px=4)
    assert read_written_labels(row, say(text)) == say(text)


def test_dialogue_is_scored_on_all_that_was_written() -> None:
    row = make_talk("a", "2.0 to 4.0 seconds")
    found = read_written_labels(row, say("2.0 to 4.0 seconds"))
    assert (found.tasks, found.text) == (("moment",), "2.0 to 4.0 seconds")
    assert is_right(row, found)
    longer = read_written_labels(make_talk("b"), say("It takes 2.0 to 4.0 seconds. Then it stops."))
    assert longer == say("It takes 2.0 to 4.0 seconds. Then it stops.")


def test_a_perfect_text_scores_as_a_perfect_head() -> None:
    """Also in frames without the object, which are most of them."""
    box = np.zeros((4, 8), dtype=bool)
    box[0:2, 4:8] = True
    row = TaskRow(
        id="k", task="mask", question="the dog", video="v.mp4", width_px=8, height_px=4,
        masks=(encode_mask(box), None, None, None), mask_seconds=(0.5, 1.5, 2.5, 3.5),
    )  # fmt: skip
    frames = np.stack([box, *[np.zeros_like(box)] * 3])
    head = TaskPreferenceAnswer(
        text="", tasks=("mask",), masks=torch.from_numpy(frames)[None], mask_seconds=torch.tensor(row.mask_seconds)
    )
    text = read_written_labels(row, say(write_masks(frames, row.mask_seconds)))
    scores = score_answers([row], [text])
    assert scores["masks"]["j"] == 1.0
    assert scores == score_answers([row], [head])


def test_masks_of_16_frames_can_be_written_out() -> None:
    full = write_masks(np.ones((16, 4, 8), dtype=bool), [100.5 + second for second in range(16)])
    assert len(full) < inspect.signature(answer_rows).parameters["max_new_tokens"].default


def test_tokens_that_had_to_be_forced_are_counted() -> None:
    rows = [make_moment(name, (0.0, 1.0)) for name in "abc"]
    answers = [replace(answer_span((0.0, 1.0)), unforced=own) for own in ((True,), (False, True), ())]
    found = score_routing(rows, answers)
    assert found["unforced"] == pytest.approx(2 / 3)
    assert found["num_forced"] == 1
    assert score_routing(rows, [answer_span((0.0, 1.0))] * 3)["unforced"] is None
