from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="task preference needs torch; pip install 'vidground-hf[models]'")

from transformers import LogitsProcessor  # noqa: E402

from tests.task_preference_models import Request, make_batch, make_fresh_model, make_model  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf.task_preference.answers import TaskPreferenceAnswer  # noqa: E402
from vidground_hf.task_preference.features import stack_features  # noqa: E402

MAX_NEW_TOKENS = 7
REQUESTS = [
    Request("When does the ball fall?", seed=1),
    Request("Where is the large red ball, of all the things that are to be seen?", seed=2),
    Request("Which is it?", seed=3),
    Request("What is a letter?", None),
    Request("Say a word.", seed=4),
    Request("When?", seed=5),
    Request("Where, and when?", seed=6),
    Request("Mark it.", seed=7),
]
# At which of its new tokens a row calls a head: at once, behind words, twice, never.
CALLS: list[dict[int, str]] = [
    {0: "moment"},
    {2: "box"},
    {1: "mask", 4: "box"},
    {},
    {},
    {3: "moment"},
    {0: "box", 3: "moment"},
    {2: "mask"},
]
TASKS_CALLED = [("moment",), ("box",), ("mask", "box"), (), (), ("moment",), ("box", "moment"), ("mask",)]


class Script(LogitsProcessor):
    """Has rows call heads at given places of what they write, and keeps them from ending."""

    def __init__(self, model: Any, calls: Sequence[Mapping[int, str]], prompt_length: int) -> None:
        self.triggers, self.calls, self.prompt_length = model.config.trigger_token_ids, calls, prompt_length
        self.ends = model.vlm.generation_config.eos_token_id

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = scores.clone()
        scores[:, self.ends] = float("-inf")
        step = input_ids.shape[1] - self.prompt_length
        for row, calls in enumerate(self.calls):
            for task, trigger in self.triggers.items():
                if step not in [place + 1 for place in calls]:
                    scores[row, trigger] = float("-inf")
                if calls.get(step) == task:
                    scores[row] = float("-inf")
                    scores[row, trigger] = 0.0
        return scores


def answer(
    model: Any, processor: Any, requests: Sequence[Request], calls: Sequence[Mapping[int, str]], **settings: Any
) -> list[TaskPreferenceAnswer]:
    batch, media = make_batch(processor, requests)
    script = Script(model, calls, batch["input_ids"].shape[1])
    settings = {"media": media, "max_new_tokens": MAX_NEW_TOKENS, "do_sample": False} | settings
    return model.generate(**batch, tokenizer=processor.tokenizer, logits_processor=[script], **settings)


class Spy:
    """Keeps the states that heads were given, and what was written."""

    def __init__(self, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        run_heads, generate = model.run_heads, model.vlm.generate

        def keep_states(states: Any, rows: Any, *rest: Any) -> Any:
            self.states, self.rows = states, rows
            return run_heads(states, rows, *rest)

        def keep_ids(**inputs: Any) -> Any:
            written = generate(**inputs)
            self.ids = written.sequences
            return written

        monkeypatch.setattr(model, "run_heads", keep_states)
        monkeypatch.setattr(model.vlm, "generate", keep_ids)


def extend(batch: dict[str, Any], ids: Any) -> dict[str, Any]:
    """The batch with new tokens behind its prompts."""
    num_new = ids.shape[1] - batch["input_ids"].shape[1]
    more = {"input_ids": ids}
    for key, filler in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if key in batch:
            more[key] = torch.nn.functional.pad(batch[key], (0, num_new), value=filler)
    return batch | more


def pad_right(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch that is padded on the left, padded on the right."""
    shifts = (batch["attention_mask"] == 0).sum(1).tolist()
    keys = [key for key in ("input_ids", "attention_mask", "mm_token_type_ids") if key in batch]
    rolled = {
        key: torch.stack([row.roll(-shift) for row, shift in zip(batch[key], shifts, strict=True)]) for key in keys
    }
    return batch | rolled


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_get_the_states_of_training(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = make_model(family)
    spy = Spy(model, monkeypatch)
    answers = answer(model, processor, REQUESTS, CALLS)
    assert [one.tasks for one in answers] == TASKS_CALLED
    states, rows = spy.states, spy.rows
    assert {task: own.tolist() for task, own in rows.items()} == {
        "moment": [0, 5, 6],
        "box": [1, 2, 6],
        "mask": [2, 7],
    }
    batch, media = make_batch(processor, REQUESTS)
    whole = extend(batch, spy.ids[:, : batch["input_ids"].shape[1] + MAX_NEW_TOKENS])
    for inputs in (whole, pad_right(whole)):
        with torch.no_grad():
            output = model(**inputs, media=media)
        for task, own in states.items():
            assert torch.equal(output.rows[task], rows[task])
            assert own.abs().max() > 1
            torch.testing.assert_close(output.states[task], own, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_answered_the_same_alone_and_among_others(family: str) -> None:
    model, processor = make_model(family)
    together = answer(model, processor, REQUESTS, CALLS)
    for request, calls, other in zip(REQUESTS, CALLS, together, strict=True):
        (alone,) = answer(model, processor, [request], [calls])
        assert (alone.text, alone.tasks) == (other.text, other.tasks)
        for name in (
            "spans", "scores", "saliency", "times_seconds", "boxes", "box_scores", "mask_scores", "mask_ious",
            "mask_seconds",
        ):  # fmt: skip
            mine, theirs = getattr(alone, name), getattr(other, name)
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)
        if alone.masks is not None:
            assert other.masks is not None
            assert alone.masks.shape == other.masks.shape
            assert (alone.masks != other.masks).float().mean() < 1e-3


def test_answers_are_in_seconds_and_pixels() -> None:
    model, processor = make_model("qwen2_5_vl")
    answers = answer(model, processor, REQUESTS, CALLS)
    moment = answers[0]
    assert moment.spans is not None
    assert moment.scores is not None
    assert moment.spans.shape == (10, 2)
    assert moment.scores.tolist() == sorted(moment.scores.tolist(), reverse=True)
    assert (moment.spans >= 0).all()
    assert (moment.spans <= 6.0).all()
    assert moment.spans.max() > 1
    assert moment.times_seconds is not None
    assert moment.times_seconds.tolist() == [1.5, 4.5]
    assert moment.saliency is not None
    assert len(moment.saliency) == 2
    assert (moment.boxes, moment.masks) == (None, None)
    both = answers[2]
    assert both.masks is not None
    assert both.boxes is not None
    assert both.masks.shape == (1, 2, 56, 84)
    assert both.masks.dtype == torch.bool
    assert both.boxes.shape == (1, 4)
    assert (both.boxes <= torch.tensor([84, 56, 84, 56])).all()
    assert both.boxes.max() > 2
    assert both.box_scores is not None
    assert both.box_scores.shape == (1,)
    assert both.mask_scores is not None
    assert both.mask_ious is not None
    assert both.mask_scores.shape == both.mask_ious.shape == (1, 2)
    for scores in (both.box_scores, both.mask_scores, both.mask_ious):
        assert ((scores > 0) & (scores < 1)).all()
    assert answers[3] == TaskPreferenceAnswer(text=answers[3].text, is_finished=False)
    assert "<|" not in "".join(one.text for one in answers)


def test_two_requests_of_one_kind_are_both_answered() -> None:
    model, processor = make_model("internvl")
    requests = REQUESTS[:3]
    calls = [{0: "box", 3: "box"}, {0: "moment", 3: "moment"}, {0: "mask", 3: "mask"}]
    boxes, moments, masks = answer(model, processor, requests, calls)
    assert boxes.tasks == ("box", "box")
    assert boxes.boxes is not None
    assert boxes.boxes.shape == (2, 4)
    assert not torch.equal(boxes.boxes[0], boxes.boxes[1])
    assert moments.spans is not None
    assert moments.scores is not None
    assert moments.spans.shape == (20, 2)
    assert moments.scores.tolist() == sorted(moments.scores.tolist(), reverse=True)
    assert masks.masks is not None
    assert masks.masks.shape == (2, 4, 56, 84)


def test_a_prompt_may_end_in_a_trigger() -> None:
    model, processor = make_model("llava_onevision")
    (found,) = answer(model, processor, [Request("Where?", answer="There: <|box|>")], [{}])
    assert found.tasks == ("box",)
    assert found.boxes is not None


def test_the_last_token_has_a_state_too() -> None:
    model, processor = make_model("smolvlm")
    (found,) = answer(model, processor, REQUESTS[:1], [{0: "moment"}], max_new_tokens=2)
    assert found.tasks == ("moment",)
    assert found.spans is not None
    (cut,) = answer(model, processor, REQUESTS[:1], [{1: "moment"}], max_new_tokens=2)
    assert cut.tasks == ()
    assert cut.spans is None


def test_a_head_that_cannot_look_says_nothing() -> None:
    model, processor = make_model("qwen3_vl")
    requests = [Request("Where?", None), Request("Where?", seed=1)]
    blind, seeing = answer(model, processor, requests, [{0: "box"}, {0: "box"}])
    assert (blind.tasks, blind.boxes) == (("box",), None)
    assert seeing.boxes is not None
    untold = answer(model, processor, requests, [{0: "box"}, {0: "mask"}], media=None)
    assert [one.tasks for one in untold] == [("box",), ("mask",)]
    assert all(one.boxes is None and one.masks is None for one in untold)


def test_images_are_asked_like_videos() -> None:
    for family in FAMILIES:
        model, processor = make_model(family)
        requests = [Request("Where?", "image", seed=1), Request("What does it show?", "image", seed=2)]
        box, mask = answer(model, processor, requests, [{0: "box"}, {1: "mask"}])
        assert box.boxes is not None
        assert box.boxes.shape == (1, 4)
        assert mask.masks is not None
        assert mask.masks.shape == (1, 1, 56, 84)
        assert mask.mask_seconds is not None
        assert mask.mask_seconds.tolist() == [0.0]


def test_an_image_has_no_moments() -> None:
    model, processor = make_model("internvl")
    (found,) = answer(model, processor, [Request("When?", "image", seed=1)], [{0: "moment"}])
    assert found.tasks == ("moment",)
    assert (found.spans, found.scores, found.saliency, found.times_seconds) == (None, None, None, None)


class End(LogitsProcessor):
    """Has rows end with a given one of their new tokens, and not before."""

    def __init__(self, end: int, places: Sequence[int | None], prompt_length: int) -> None:
        self.end, self.places, self.prompt_length = end, places, prompt_length

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        scores = scores.clone()
        step = input_ids.shape[1] - self.prompt_length
        for row, place in enumerate(self.places):
            scores[row, self.end] = float("inf") if step == place else float("-inf")
        return scores


@pytest.mark.parametrize("is_list", [False, True])
def test_an_answer_that_did_not_end_says_so(is_list: bool) -> None:
    model, processor = make_model("internvl")
    batch, media = make_batch(processor, REQUESTS[:4])
    end = model.vlm.generation_config.eos_token_id
    end = end[0] if isinstance(end, list) else end
    ended = End(end, [0, 2, 3, None], batch["input_ids"].shape[1])
    found = model.generate(
        **batch,
        media=media,
        tokenizer=processor.tokenizer,
        logits_processor=[ended],
        max_new_tokens=3,
        eos_token_id=[end] if is_list else end,
        do_sample=False,
    )
    assert [one.is_finished for one in found] == [True, True, True, False]  # the third is whole, and its end is not


def test_moments_may_be_found_in_other_features() -> None:
    model, processor = make_fresh_model("internvl", moment_feature_width=5)
    features = stack_features([torch.ones(6, 1, 1, 5)] * 2, [torch.arange(6.0)] * 2, [6.0, 6.0])
    calls: list[dict[int, str]] = [{0: "moment"}, {0: "box"}]
    moment, box = answer(model, processor, REQUESTS[:2], calls, features=features)
    assert moment.saliency is not None
    assert len(moment.saliency) == 6
    assert moment.times_seconds is not None
    assert moment.times_seconds.tolist() == [0, 1, 2, 3, 4, 5]
    assert box.boxes is not None
    (none,) = answer(model, processor, REQUESTS[:1], calls[:1])
    assert (none.tasks, none.spans) == (("moment",), None)


@pytest.mark.parametrize("name", ["num_beams", "num_return_sequences"])
def test_several_texts_for_a_row_are_refused(name: str) -> None:
    model, processor = make_model("internvl")
    message = f"{name} = 2 is not supported: heads read the states of one text; pass 1"
    with pytest.raises(ValueError, match=re.escape(message)):
        answer(model, processor, REQUESTS[:1], [{}], **{name: 2})


def test_beams_of_a_checkpoint_are_refused_too() -> None:
    model, processor = make_fresh_model("internvl")
    model.vlm.generation_config.num_beams = 3
    with pytest.raises(ValueError, match=re.escape("num_beams = 3 is not supported: heads read the states of one")):
        answer(model, processor, REQUESTS[:1], [{}])
    assert len(answer(model, processor, REQUESTS[:1], [{}], num_beams=1)) == 1


def test_a_batch_for_training_is_no_prompt() -> None:
    model, processor = make_model("internvl")
    batch, media = make_batch(processor, REQUESTS[:2])
    settings = {"media": media, "tokenizer": processor.tokenizer}
    with pytest.raises(ValueError, match=re.escape("labels are of a batch for training, whose texts hold their answ")):
        model.generate(**batch, **settings, labels=batch["input_ids"])
    assert not batch["attention_mask"].all()
    with pytest.raises(
        ValueError, match=re.escape("rows [0] are padded on the right, and would be written on behind")
    ):
        model.generate(**pad_right(batch), **settings)


@pytest.mark.parametrize("kind", ["vision", "state"])
def test_either_region_head_answers_and_only_one_says_how_sure_it_is(kind: str) -> None:
    model, processor = make_fresh_model("internvl", box_head={"kind": kind})
    assert model.config.box_head == {"kind": kind}
    (found,) = answer(model, processor, REQUESTS[:1], [{0: "box"}])
    assert found.boxes is not None
    assert found.boxes.shape == (1, 4)
    assert (found.box_scores is None) == (kind == "state")


@pytest.mark.parametrize("kind", ["state", "features"])
def test_the_controls_of_the_temporal_head_answer(kind: str) -> None:
    model, processor = make_fresh_model("internvl", moment_head={"kind": kind})
    (found,) = answer(model, processor, REQUESTS[:1], [{0: "moment"}])
    assert found.spans is not None
    assert found.scores is not None
    assert len(found.spans) == len(found.scores) == (1 if kind == "state" else 10)
    assert (found.saliency is None) == (found.times_seconds is None) == (kind == "state")


def test_what_was_forced_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = make_model("internvl")
    task_token = model.config.task_token_ids["box"]
    forward, steps = model.vlm.forward, []

    def favour(**inputs: Any) -> Any:
        output = forward(**inputs)
        steps.append(output)
        if len(steps) == 2:  # behind the trigger, the first row would go on with the task token, and the second not
            output.logits[:, -1, task_token] = torch.tensor([1e4, -1e4])
        return output

    monkeypatch.setattr(model.vlm, "forward", favour)
    found = answer(model, processor, REQUESTS[:2], [{0: "box"}, {0: "box"}])
    assert [one.tasks for one in found] == [("box",), ("box",)]
    assert [one.unforced for one in found] == [(True,), (False,)]
