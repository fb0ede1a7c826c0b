from __future__ import annotations

import re
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="task preference needs torch; pip install 'vidground-hf[models]'")

from transformers import AutoModelForImageTextToText  # noqa: E402

from tests.task_preference_models import load_vlm  # noqa: E402
from tests.tiny_models import train_tokenizer  # noqa: E402
from vidground_hf.task_preference.configuration import TASKS, TaskPreferenceConfig  # noqa: E402
from vidground_hf.task_preference.media_facts import MediaFacts  # noqa: E402
from vidground_hf.task_preference.modeling import TaskPreferenceModel  # noqa: E402
from vidground_hf.task_preference.tokens import (  # noqa: E402
    TaskTokenProcessor,
    add_task_tokens,
    find_states,
    fit_embeddings,
    name_tokens,
)

IDS = {"trigger_token_ids": {"box": 9}, "task_token_ids": {"box": 10}}


def test_a_config_goes_through_json(tmp_path: Any) -> None:
    vlm, _ = load_vlm("internvl")
    config = TaskPreferenceConfig(vlm_config=vlm.config.to_dict(), tasks=["box"], box_head={"width": 32}, **IDS)
    config.save_pretrained(tmp_path)
    again = TaskPreferenceConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert again.vlm_config.model_type == "internvl"
    assert again.sam_config is None
    assert again.box_head == {"width": 32}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["boxes"]}, "tasks = ['boxes'] has 'boxes'; pass some of moment, box, mask"),
        ({"tasks": ["box"]}, "trigger_token_ids = {} lacks 'box'; pass what tokens.add_task_tokens returns"),
        (
            {"tasks": ["box"], "trigger_token_ids": {"box": 1}},
            "task_token_ids = {} lacks 'box'; pass what tokens.add_task_tokens returns",
        ),
        (
            {"tasks": ["box"], "mask_loss": "prompts", **IDS},
            "mask_loss = 'prompts' is not there for this mask head; pass one of bce, focal ('prompts' needs a SAM)",
        ),
        (
            {"tasks": ["box"], "sam_config": {"model_type": "sam2"}, "mask_head": {"width": 16}, **IDS},
            "mask_head = {'width': 16} is of the convolutional head, and a SAM draws the masks; leave out one",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TaskPreferenceConfig(**settings)


def test_a_config_with_a_sam_takes_prompts() -> None:
    from transformers import Sam2Config

    config = TaskPreferenceConfig(sam_config={"model_type": "sam2"}, mask_loss="prompts", tasks=["box"], **IDS)
    assert isinstance(config.sam_config, Sam2Config)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"times_seconds": ()}, "times_seconds = () with duration_seconds = 2.0 is out of range"),
        ({"times_seconds": (-1.0,)}, "times_seconds = (-1.0,) with duration_seconds = 2.0 is out of range"),
        ({"duration_seconds": -2.0}, "with duration_seconds = -2.0 is out of range"),
        ({"width": 0}, "height = 4 and width = 0 are out of range; pass the size in pixels, from 1 on"),
    ],
)
def test_facts_out_of_range_are_refused(facts: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"times_seconds": (0.5,), "duration_seconds": 2.0, "height": 4, "width": 6}
    assert not MediaFacts(**good).is_image
    assert MediaFacts(**good | {"duration_seconds": 0.0}).is_image
    with pytest.raises(ValueError, match=re.escape(message)):
        MediaFacts(**good | facts)


def test_tokens_are_added_once_and_stay_whole() -> None:
    tokenizer = train_tokenizer(None)
    num_before = len(tokenizer)
    tokens = add_task_tokens(tokenizer)
    assert add_task_tokens(tokenizer, ["mask"]).states == {"mask": tokens.states["mask"]}
    assert len(tokenizer) == num_before + 6
    assert sorted([*tokens.triggers.values(), *tokens.states.values()]) == list(range(num_before, num_before + 6))
    for task in TASKS:
        ids = tokenizer(f"it is{''.join(name_tokens(task))}here", add_special_tokens=False)["input_ids"]
        place = ids.index(tokens.triggers[task])
        assert ids[place + 1] == tokens.states[task]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "it ishere"


def test_a_task_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("task = 'chat' has no tokens; pass one of moment, box, mask")):
        name_tokens("chat")


@pytest.mark.parametrize("tied", [False, True])
def test_new_rows_start_near_the_mean_and_the_others_stay(tied: bool) -> None:
    vlm, processor = load_vlm("qwen3_vl", tied=tied)
    layers = [vlm.get_input_embeddings(), vlm.get_output_embeddings()]
    before = [layer.weight.detach().clone() for layer in layers]
    size = len(processor.tokenizer)
    fit_embeddings(vlm, size + 2, [size, size + 1])
    assert vlm.config.get_text_config().vocab_size == size + 2
    assert (layers[0].weight is vlm.get_output_embeddings().weight) == tied
    for old, layer in zip(before, (vlm.get_input_embeddings(), vlm.get_output_embeddings()), strict=True):
        new = layer.weight.detach()
        assert torch.equal(new[:size], old)
        spread = (new[size:] - old.mean(0)) / old.std(0)
        assert 0.005 < spread.std() < 0.05
        assert not torch.equal(new[size], new[size + 1])


@torch.no_grad()
def test_rows_that_were_started_keep_what_they_learned(tmp_path: Any) -> None:
    vlm, processor = load_vlm("internvl")
    boxes = add_task_tokens(processor.tokenizer, ["box"])  # before the model has them, as for a collator
    ids = [boxes.triggers["box"], boxes.states["box"]]
    TaskPreferenceModel.from_vlm(vlm, processor, tasks=["box"])
    weight = vlm.get_input_embeddings().weight
    middle, width = weight[: ids[0]].mean(0), 0.1 * float(weight[: ids[0]].std(0).max())
    assert torch.allclose(weight[ids], middle, atol=width)
    weight[ids] = 7.0
    vlm.save_pretrained(tmp_path)
    for trained in (vlm, AutoModelForImageTextToText.from_pretrained(tmp_path)):
        TaskPreferenceModel.from_vlm(trained, processor, tasks=["box", "mask"])
        masks = add_task_tokens(processor.tokenizer, ["mask"])
        rows = trained.get_input_embeddings().weight
        assert (rows[ids] == 7).all()
        assert torch.allclose(rows[[masks.triggers["mask"], masks.states["mask"]]], middle, atol=width)


def test_spare_rows_are_used_and_the_vocabulary_keeps_its_size() -> None:
    vlm, _ = load_vlm("smolvlm")
    weight = vlm.get_input_embeddings().weight
    before = weight.detach().clone()
    fit_embeddings(vlm, len(weight) - 1, [7, 9])
    assert vlm.get_input_embeddings().weight.shape == before.shape
    changed = (weight != before).any(1).nonzero()[:, 0].tolist()
    assert changed == [7, 9]
    others = torch.cat([before[:7], before[8:9], before[10:]])
    assert torch.allclose(weight[7], others.mean(0), atol=0.1 * float(others.std(0).max()))


def test_task_tokens_follow_their_triggers_and_nothing_else() -> None:
    forced = TaskTokenProcessor({"moment": 0, "box": 2}, {"moment": 1, "box": 3})
    scores = torch.tensor([[5.0, 1.0, 4.0, 1.0, 2.0]]).expand(3, -1)
    out = forced(torch.tensor([[4, 0], [0, 2], [0, 4]]), scores)
    off = float("-inf")
    assert out.tolist() == [[off, 0.0, off, off, off], [off, off, off, 0.0, off], [5.0, off, 4.0, off, 2.0]]
    assert scores.isfinite().all()


def test_states_are_found_row_by_row() -> None:
    places = find_states(torch.tensor([[1, 8, 7], [7, 1, 7]]), {"box": 7, "mask": 8, "moment": 9})
    assert {task: torch.stack(place).tolist() for task, place in places.items()} == {
        "box": [[0, 1, 1], [2, 0, 2]],
        "mask": [[0], [1]],
        "moment": [[], []],
    }
