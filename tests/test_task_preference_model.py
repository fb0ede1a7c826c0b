from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="task preference needs torch; pip install 'vidground-hf[models]'")

from tests.task_preference_models import (  # noqa: E402
    Request,
    load_vlm,
    make_batch,
    make_fresh_model,
    make_model,
)
from tests.test_task_preference_sam import SIZE, make_sam  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf.task_preference.features import stack_features  # noqa: E402
from vidground_hf.task_preference.grading import grade_text, pick_graded_masks  # noqa: E402
from vidground_hf.task_preference.losses import WEIGHTS, grade_boxes, grade_masks, grade_spans  # noqa: E402
from vidground_hf.task_preference.targets import Targets  # noqa: E402

MOMENT, BOX, MASK = (f"<|{task}|><|{task}_state|>" for task in ("moment", "box", "mask"))
MIXED = [
    Request("When?", seed=1, answer=MOMENT),
    Request("Where is the thing that was to be seen?", seed=2, answer=f"There: {BOX} as I said"),
    Request("What is it?", None, answer="A ball"),
    Request("Mark it.", seed=3, answer=MASK),
    Request("And when?", seed=4, answer=MOMENT),
]


def make_targets(num_frames: int = 4) -> Targets:
    """Of `MIXED`."""
    picture = torch.zeros(num_frames, 28, 42, dtype=torch.bool)
    picture[1:, :14, :21] = True
    return Targets(
        moment_rows=torch.tensor([0, 4]),
        spans=[torch.tensor([[0.1, 0.4]]), torch.tensor([[0.0, 0.2], [0.5, 1.0]])],
        saliency=[None, torch.tensor([0.0, 4.0, 2.0])],
        saliency_seconds=[None, torch.tensor([1.0, 3.0, 5.0])],
        box_rows=torch.tensor([1]),
        boxes=torch.tensor([[0.1, 0.2, 0.6, 0.9]]),
        mask_rows=torch.tensor([3]),
        masks=[picture],
        mask_seconds=[torch.tensor([0.75, 2.25, 3.75, 5.25])],
    )


def make_training_batch(processor: Any, requests: list[Request] = MIXED) -> dict[str, Any]:
    batch, media = make_batch(processor, requests)
    labels = torch.full_like(batch["input_ids"], -100)
    labels[:, -3:] = batch["input_ids"][:, -3:]
    return batch | {"media": media, "labels": labels}


@pytest.mark.parametrize("family", FAMILIES)
def test_wrapping_leaves_a_model_as_it_is(family: str) -> None:
    vlm, _ = load_vlm(family)
    model, processor = make_model(family)
    for request in (MIXED[2], Request("x", seed=3)):
        batch, media = make_batch(processor, [request])
        with torch.no_grad():
            before, after = vlm(**batch).logits, model(**batch, media=media).logits
        assert torch.equal(after[..., : before.shape[-1]], before)
    names = list(model.state_dict())
    assert len(names) == len(set(names)) == len(list(model.vlm.state_dict())) + len(list(model.heads.state_dict()))


def test_the_attention_of_a_model_is_kept() -> None:
    from vidground_hf.task_preference.modeling import TaskPreferenceModel

    vlm, processor = load_vlm("qwen3_vl")
    vlm.set_attn_implementation("eager")
    model = TaskPreferenceModel.from_vlm(vlm, processor)
    assert model.vlm.config.get_text_config()._attn_implementation == "eager"
    assert model.config.vlm_config is vlm.config


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_of_their_own_targets(family: str) -> None:
    model, processor = make_model(family)
    batch = make_training_batch(processor)
    seen: list[int] = []
    tower = model.vlm.get_encoder(modality="video")
    hook = tower.register_forward_hook(lambda *details: seen.append(1))
    with torch.no_grad():
        output = model(**batch, targets=make_targets())
    hook.remove()
    assert len(seen) == 1
    losses = output.losses
    assert output.loss.item() == pytest.approx(
        sum({"dialogue": 1.0, **WEIGHTS}[name] * float(losses[name]) for name in losses)
    )
    assert losses["dialogue"].item() == pytest.approx(grade_text(output.logits, batch["labels"]).item())
    assert losses["box_l1"].item() == pytest.approx(grade_boxes(output.box, make_targets().boxes)["box_l1"].item())
    spans = grade_spans(output.moment, make_targets().spans)
    assert losses["moment_span"].item() == pytest.approx(spans["moment_span"].item())
    assert set(losses) == {"dialogue", *WEIGHTS} - {"mask_focal", "prompt_l1"}
    assert all(loss > 0 for loss in losses.values())
    assert {task: rows.tolist() for task, rows in output.rows.items()} == {"moment": [0, 4], "box": [1], "mask": [3]}


def test_the_dialogue_loss_is_the_model_s_own() -> None:
    model, processor = make_model("qwen2_5_vl")
    batch = make_training_batch(
        processor, [Request("a", seed=1, answer="one two"), Request("b", None, answer="three")]
    )
    media = batch.pop("media")
    with torch.no_grad():
        own = model.vlm(**batch).loss
        ours = model(**batch, media=media)
    assert ours.loss.item() == pytest.approx(own.item(), rel=1e-5)
    assert (ours.moment, ours.box, ours.mask) == (None, None, None)
    assert grade_text(torch.ones(1, 2, 3), torch.full((1, 2), -100)).item() == 0


def test_with_labels_alone_the_heads_rest() -> None:
    model, processor = make_model("internvl")
    batch = make_training_batch(processor)
    with torch.no_grad():
        output = model(**{key: value for key, value in batch.items() if key != "media"})
    assert set(output.losses) == {"dialogue"}
    assert output.moment is None
    assert output.states["box"].shape == (1, 32)


def test_weights_of_losses_may_be_changed() -> None:
    model, processor = make_fresh_model("internvl", loss_weights={"box_l1": 7.0, "dialogue": 0.0}, tasks=["box"])
    batch = make_training_batch(processor, [Request("Where?", seed=1, answer=BOX)])
    boxes = Targets(box_rows=torch.tensor([0]), boxes=torch.tensor([[0.1, 0.2, 0.6, 0.9]]))
    output = model(**batch, targets=boxes)
    wanted = 7 * output.losses["box_l1"] + WEIGHTS["box_giou"] * output.losses["box_giou"] + output.losses["box_iou"]
    assert output.loss.item() == pytest.approx(wanted.item())
    assert set(model.heads) == {"box"}
    assert set(output.states) == {"box"}


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_teach_the_vision_tower_too(family: str) -> None:
    model, processor = make_fresh_model(family)
    batch = make_training_batch(processor, MIXED[1:2])
    del batch["labels"]
    targets = Targets(box_rows=torch.tensor([0]), boxes=torch.tensor([[0.1, 0.2, 0.6, 0.9]]))
    with torch.no_grad():  # the state is the same, so what changes the tower's gradients is what the head sees
        model.heads["box"].gate.film.weight.zero_()
    model(**batch, targets=targets).loss.backward()
    tower = model.vlm.get_encoder(modality="video")
    assert sum(float(weight.grad.abs().sum()) for weight in tower.parameters() if weight.grad is not None) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_every_process_has_gradients_of_the_same_parameters(family: str) -> None:
    """Whatever the tasks of its rows; those of heads without a row are zero."""
    wanted: dict[str, set[str]] = {}
    for name, requests, targets in (
        ("mixed", MIXED, make_targets()),
        ("words", [Request("What is it?", None, answer="A red ball")], Targets()),
    ):
        model, processor = make_fresh_model(family)
        model.train()
        model(**make_training_batch(processor, requests), targets=targets).loss.backward()
        wanted[name] = {key for key, weight in model.named_parameters() if weight.grad is not None}
        heads = {key: float(weight.grad.abs().sum()) for key, weight in model.heads.named_parameters()}
        assert len(heads) == len(list(model.heads.parameters()))
        assert any(heads.values()) == (name == "mixed")
    # Layers of a tower that its model never uses have none in a batch with pixels.
    assert wanted["mixed"] <= wanted["words"]
    unused = wanted["words"] - wanted["mixed"]
    assert all("vision_tower" in key for key in unused)
    assert wanted["words"] == {key for key, _ in model.named_parameters()}


def test_activation_checkpointing_changes_nothing() -> None:
    found = []
    for is_checkpointed in (False, True):
        model, processor = make_fresh_model("qwen2_5_vl")
        model.train()
        if is_checkpointed:
            model.activation_checkpointing_enable()
            assert model.vlm.is_activation_checkpointing
        output = model(**make_training_batch(processor), targets=make_targets())
        output.loss.backward()
        weight = model.vlm.get_decoder().layers[0].self_attn.q_proj.weight
        found.append((output.loss.item(), weight.grad))
    assert found[0][0] == pytest.approx(found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_the_trainer_divides_by_its_accumulation_steps() -> None:
    assert make_model("internvl")[0].accepts_loss_kwargs is False


def test_what_heads_lack_is_named() -> None:
    model, processor = make_model("internvl")
    batch = make_training_batch(processor)
    media = batch.pop("media")
    with pytest.raises(ValueError, match=re.escape("rows [0, 4] ask for a moment, and there is nothing to look at")):
        model(**batch, targets=make_targets())
    with pytest.raises(ValueError, match=re.escape("rows [4] ask for a moment and show no video or image; pass")):
        model(**batch, targets=make_targets(), media=[*media[:4], None])
    wrong = Targets(box_rows=torch.tensor([2]), boxes=torch.zeros(1, 4))
    message = "targets name rows [] for 'moment', and its task token is in rows [0, 4]; give one target for each task"
    with pytest.raises(ValueError, match=re.escape(message)):
        model(**batch, targets=wrong, media=media)


def test_moments_may_be_taught_on_other_features() -> None:
    model, processor = make_fresh_model("internvl", moment_feature_width=5, tasks=["moment"])
    batch = make_training_batch(processor, MIXED[:1])
    targets = Targets(
        moment_rows=torch.tensor([0]), spans=[torch.tensor([[0.1, 0.4]])], saliency=[None], saliency_seconds=[None]
    )
    del batch["media"]
    with pytest.raises(ValueError, match=re.escape("rows [0] ask for a moment, and there is nothing to look at")):
        model(**batch, targets=targets)
    features = stack_features([torch.ones(6, 1, 1, 5)], [torch.arange(6.0)], [6.0])
    output = model(**batch, targets=targets, features=features)
    assert output.moment.saliency.shape == (1, 6)
    assert "saliency_mismatched" not in output.losses  # there is no other request


def make_sam_batch(processor: Any) -> dict[str, Any]:
    pixels = torch.randn(len(MIXED), 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return make_training_batch(processor) | {"sam_pixel_values": pixels, "targets": make_targets()}


def show_object_at_once(targets: Targets) -> None:
    """In the first frame, which a SAM is shown."""
    targets.masks[0][0, 7:21, 14:35] = True


def test_a_sam_draws_and_stays_frozen() -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam(), mask_loss="focal")
    batch = make_sam_batch(processor)
    show_object_at_once(batch["targets"])
    output = model.train()(**batch)
    assert output.mask.logits.shape == (1, 1, SIZE // 4, SIZE // 4)
    assert set(output.losses) == {"dialogue", *WEIGHTS} - {"mask_bce", "prompt_l1"}
    output.loss.backward()
    assert model.heads["mask"].adapter[1].weight.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in model.heads["mask"].sam.parameters())
    with pytest.raises(ValueError, match=re.escape("rows [3] ask for masks of a SAM; pass sam_pixel_values")):
        model(**{key: value for key, value in batch.items() if key != "sam_pixel_values"})
    with pytest.raises(ValueError, match=re.escape("sam_pixel_values has 1 rows and the batch 5; pass one for each")):
        model(**batch | {"sam_pixel_values": batch["sam_pixel_values"][3:4]})


def test_prompts_of_a_sam_are_distilled_from_the_box_of_the_mask() -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam(), mask_loss="prompts")
    batch = make_sam_batch(processor)
    show_object_at_once(batch["targets"])
    output = model(**batch)
    head = model.heads["mask"]
    wanted = head.embed_boxes(torch.tensor([[14 / 42, 7 / 28, 35 / 42, 21 / 28]]))
    found = (head.embed_states(output.states["mask"]) - wanted).abs().mean()
    assert output.losses["prompt_l1"].item() == pytest.approx(found.item(), rel=1e-5)
    assert not {"mask_bce", "mask_focal"} & set(output.losses)


def label_masks(targets: Targets, *seconds: float) -> Targets:
    """The object is to be seen at the first of these times."""
    picture = torch.zeros(len(seconds), 28, 42, dtype=torch.bool)
    picture[0, 7:21, 14:35] = True
    return replace(targets, masks=[picture], mask_seconds=[torch.tensor(seconds)])


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
@pytest.mark.parametrize("mask_loss", ["bce", "prompts"])
@pytest.mark.parametrize("late", [2.25, 5.25])
def test_a_sam_is_not_taught_the_masks_of_later_frames(family: str, mask_loss: str, late: float) -> None:
    model, processor = make_fresh_model(family, sam=make_sam(), mask_loss=mask_loss)
    batch = make_sam_batch(processor)
    batch["targets"] = label_masks(batch["targets"], late)  # the first frame is at 0.75 s
    output = model(**batch)
    terms = {name: loss.item() for name, loss in output.losses.items() if name.startswith(("mask", "prompt"))}
    assert terms
    assert not any(terms.values())
    output.loss.backward()
    assert not any(weight.grad.any() for weight in model.heads["mask"].adapter.parameters())


@pytest.mark.parametrize(("mask_loss", "taught"), [("bce", {"mask_object"}), ("prompts", set())])
def test_a_frame_without_the_object_teaches_a_sam_at_most_that_it_is_not_there(
    mask_loss: str, taught: set[str]
) -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam(), mask_loss=mask_loss)
    batch = make_sam_batch(processor)  # the object comes with the second frame, and the first is shown
    output = model(**batch)
    terms = {name: loss for name, loss in output.losses.items() if name.startswith(("mask", "prompt"))}
    assert {name for name, loss in terms.items() if loss.item() > 0} == taught
    torch.stack(list(terms.values())).sum().backward()
    weights = model.heads["mask"].adapter.parameters()
    assert any(weight.grad.any() for weight in weights) == bool(taught)


@pytest.mark.parametrize("family", ["internvl", "qwen2_5_vl"])
def test_a_sam_is_taught_the_mask_of_the_frame_it_sees(family: str) -> None:
    model, processor = make_fresh_model(family, sam=make_sam())
    batch = make_sam_batch(processor)
    # The middle of the first two frames, which are one patch of Qwen, is nearer to the second label.
    batch["targets"] = label_masks(batch["targets"], 0.6, 2.25)
    output = model(**batch)
    small = torch.nn.functional.adaptive_avg_pool2d(batch["targets"].masks[0][None, :1].float(), SIZE // 4)
    shown = torch.ones(1, 1, dtype=torch.bool)
    wanted = grade_masks(output.mask, small, shown, shown)
    assert wanted["mask_bce"] > 0
    for name, term in wanted.items():
        assert output.losses[name].item() == pytest.approx(term.item())


def test_times_of_a_sam_s_frame_must_be_known() -> None:
    model, processor = make_fresh_model("internvl", sam=make_sam(), tasks=["mask"])
    batch = make_training_batch(processor, MIXED[3:4]) | {"sam_pixel_values": torch.zeros(1, 3, SIZE, SIZE)}
    targets = make_targets()
    targets = Targets(mask_rows=torch.tensor([0]), masks=targets.masks, mask_seconds=targets.mask_seconds)
    for media in (None, [None]):
        with pytest.raises(ValueError, match=re.escape("rows [0] have targets and nothing tells when their frames")):
            model(**batch | {"media": media}, targets=targets)
    with pytest.raises(ValueError, match=re.escape("rows [0] have masks and nothing tells when their frames are")):
        pick_graded_masks(targets, [None], "bce")
