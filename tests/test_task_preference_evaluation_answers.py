from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="task preference runs on torch; pip install 'vidground-hf[models]'")

from tests.task_preference_models import load_vlm, make_fresh_model  # noqa: E402
from tests.task_preference_rows import make_collator, make_model, make_task_rows  # noqa: E402
from tests.test_task_preference_evaluation import make_talk, say  # noqa: E402
from tests.test_task_preference_sam import SIZE, make_processor, make_sam, make_video_model  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf.media import FrameBudget  # noqa: E402
from vidground_hf.task_preference.collating import TaskPreferenceCollator  # noqa: E402
from vidground_hf.task_preference.evaluation import answer_rows, score_answers, score_routing  # noqa: E402
from vidground_hf.task_preference.mask_video import MaskFollower  # noqa: E402


def test_answers_do_not_depend_on_how_a_checkpoint_samples() -> None:
    model, processor = make_model("internvl")
    collator, rows = make_collator(processor), make_task_rows()[3:5]
    plain = answer_rows(model, collator, rows, max_new_tokens=12)
    settings = model.vlm.generation_config
    settings.do_sample, settings.temperature, settings.repetition_penalty = True, 50.0, 30.0
    again = answer_rows(model, collator, rows, max_new_tokens=12)
    assert [one.text for one in again] == [one.text for one in plain]
    other = answer_rows(model, collator, rows, max_new_tokens=12, repetition_penalty=30.0)
    assert [one.text for one in other] != [one.text for one in plain]


def call_masks(model: Any) -> Any:
    """Has every answer call the mask head again and again."""
    from transformers import LogitsProcessor

    class Call(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            trigger = model.config.trigger_token_ids["mask"]
            called = torch.where(torch.arange(scores.shape[1]) == trigger, 0.0, float("-inf"))
            return torch.where(input_ids[:, -1:] == trigger, scores, called)

    return Call()


def test_heads_do_not_answer_where_labels_are_text() -> None:

    model, processor = make_fresh_model("internvl", sam=make_sam())
    rows = [row for row in make_task_rows() if row.task == "mask"][:1]
    collator = make_collator(processor, answers="text")  # without pixels for the SAM, which are not needed
    (found,) = answer_rows(model, collator, rows, max_new_tokens=4, logits_processor=[call_masks(model)])
    assert found.tasks == ("mask", "mask")
    assert found.masks is None
    with pytest.raises(
        ValueError, match=re.escape("pass sam_pixel_values (collate_prompts of a collator with sam_pr")
    ):
        answer_rows(model, make_collator(processor), rows, max_new_tokens=4)


def test_answers_that_were_cut_off_are_counted() -> None:
    model, processor = make_model("internvl")
    answers = answer_rows(model, make_collator(processor, answers="text"), make_task_rows()[:3], max_new_tokens=2)
    cut = [not answer.is_finished for answer in answers]
    assert any(cut)
    assert score_answers(make_task_rows()[:3], answers)["routing"]["num_unfinished"] == sum(cut)
    assert score_routing([make_talk("a")], [say("red")])["num_unfinished"] == 0


def test_a_model_is_asked_every_row_in_order() -> None:
    model, processor = make_model("internvl")
    rows = make_task_rows()
    model.train()
    answers = answer_rows(model, make_collator(processor, wording="held_out"), rows, batch_size=4, max_new_tokens=3)
    assert model.training
    assert len(answers) == len(rows)
    alone = answer_rows(model, make_collator(processor, wording="held_out"), rows[5:6], max_new_tokens=3)
    assert alone[0].text == answers[5].text
    scores = score_answers(rows, answers)
    assert set(scores) == {"routing", "moments", "reasoning", "boxes", "masks", "dialogue"}
    assert scores["routing"]["num_tasks"] == 8
    written = answer_rows(model, make_collator(processor, answers="text"), rows[:2], max_new_tokens=3)
    assert len(written) == 2
    with pytest.raises(ValueError, match=re.escape("got 11 rows and 2 answers; pass one answer for each row")):
        score_answers(rows, written)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_blind_model_sees_the_same_whatever_is_shown(family: str) -> None:
    from transformers import Sam2ImageProcessor

    _, processor = load_vlm(family)
    sam = Sam2ImageProcessor(size={"height": 64, "width": 64}, mask_size={"height": 16, "width": 16})
    first, second = (
        replace(row, features=np.full((3, 2), value, np.float32))
        for row, value in zip((make_task_rows()[3], make_task_rows()[8]), (1.0, 2.0), strict=True)
    )
    for is_blind in (False, True):
        collator = TaskPreferenceCollator(
            processor, budget=FrameBudget(num_frames=2), answers="text", sam_processor=sam, is_blind=is_blind
        )
        one, other = (collator.collate_prompts([row]) for row in (first, second))
        assert torch.equal(one["input_ids"], other["input_ids"])
        pixels = [key for key in one if "pixel_values" in key]
        assert len(pixels) == 2
        assert all(torch.equal(one[key], other[key]) == is_blind for key in pixels)
        assert torch.equal(one["features"].grid, other["features"].grid) == is_blind
        assert torch.equal(one["features"].times_seconds, other["features"].times_seconds)


def test_followed_masks_are_scored_in_every_frame() -> None:
    from transformers import Sam2ImageProcessor

    model, processor = make_fresh_model("internvl", sam=make_sam())
    with torch.no_grad():  # the object is seen everywhere
        model.heads["mask"].sam.mask_decoder.pred_obj_score_head.proj_out.bias += 200
    sam = Sam2ImageProcessor(size={"height": SIZE, "width": SIZE}, mask_size={"height": 16, "width": 16})
    rows = [row for row in make_task_rows() if row.task == "mask"]
    collator = make_collator(processor, sam_processor=sam)
    follower, call = MaskFollower(make_video_model(), make_processor()), call_masks(model)
    for given, num_frames in ((None, 1), (follower, 4)):
        answers = answer_rows(model, collator, rows, max_new_tokens=2, logits_processor=[call], mask_follower=given)
        assert [one.masks.shape[1] for one in answers if one.masks is not None] == [num_frames] * 2
        assert score_answers(rows, answers)["masks"]["num_missing"] == 0
