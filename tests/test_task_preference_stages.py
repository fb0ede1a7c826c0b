"""What a stage moves, which stages and collators do not go with a model, and whose terms an evaluation gives."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'vidground-hf[models]'")

from tests.task_preference_rows import make_collator, make_model, make_task_rows  # noqa: E402
from tests.test_task_preference_sam import make_sam  # noqa: E402
from tests.test_task_preference_trainer import IDLE, copy_weights, make_arguments, make_trainer  # noqa: E402
from vidground_hf.task_preference.adapters_lora import add_lora  # noqa: E402
from vidground_hf.task_preference.modeling import TaskPreferenceModel  # noqa: E402
from vidground_hf.task_preference.trainer import TaskPreferenceTrainer  # noqa: E402
from vidground_hf.task_preference.trainer_parts import free_parts  # noqa: E402
from vidground_hf.task_preference.trainer_stages import STAGES, TrainingStage  # noqa: E402

# Vision tower and connector, by family.
SIDES = {
    "smolvlm": ("vlm.model.vision_model.", "vlm.model.connector."),
    "qwen2_5_vl": ("vlm.model.visual.",),
}
HEADS = {"moment_head": 1e-4, "box_head": 1e-4, "mask_head": 1e-4}
LORA_RATES = {
    1: {"language": 2e-5, "tokens": 1e-4},
    2: {"language": 2e-5, "tokens": 1e-4, **HEADS},
    3: dict.fromkeys(["language", "tokens", "vision", "connector", *HEADS], 2e-5),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("family", SIDES)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_with_a_lora_a_stage_moves_exactly_its_parameters(family: str, stage: int, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed; pip install 'vidground-hf[train]'")
    model, processor = make_model(family)
    add_lora(model, rank=2, dropout=0.0)
    before = copy_weights(model)
    wanted = {name for name in before if "lora_" in name or "trainable_tokens_delta" in name}
    assert len(wanted) == len(model.vlm.get_decoder().layers) * 7 * 2 + 2  # the embeddings are not tied
    if stage >= 2:
        wanted |= {name for name in before if name.startswith("heads.")}
    if stage == 3:
        wanted |= {name for name in before if name.startswith(SIDES[family])}
    # In its first step one of the two matrices of a LoRA has no gradient yet.
    trainer = make_trainer(tmp_path, model, processor, stage=stage, max_steps=2)
    trainer.train()
    moved = {name for name, weight in copy_weights(model).items() if not torch.equal(before[name], weight)}
    assert {name for name in moved if not name.endswith(IDLE)} == {name for name in wanted if not name.endswith(IDLE)}
    assert {group["part"]: group["lr"] for group in trainer.optimizer.param_groups} == LORA_RATES[stage]


def test_a_stage_by_its_number_leaves_out_what_the_model_lacks(tmp_path: Path) -> None:
    model, processor = make_model("internvl", tasks=["box"])
    trainer = TaskPreferenceTrainer(model, make_arguments(tmp_path), stage=2, processing_class=processor)
    assert trainer.stage.rates == {"language": 2e-5, "box_head": 1e-4}


def test_parts_that_there_are_not_are_named(tmp_path: Path) -> None:
    message = "the rates of stage 'mine' have 'box_haed'; name some of language, tokens, vision"
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainingStage(name="mine", rates={"box_haed": 1e-3, "language": 1e-5})
    model, processor = make_model("internvl", tasks=["box"])
    boxes = [row for row in make_task_rows() if row.task == "box"]
    for part in ("tokens", "mask_head"):
        message = f"the model has no part {part!r} to train; it has language, vision, connector, box_head ('tokens'"
        with pytest.raises(ValueError, match=re.escape(message)):
            make_trainer(
                tmp_path, model, processor, stage=TrainingStage(name="mine", rates={part: 1e-3}), train_dataset=boxes
            )
    model = TaskPreferenceModel(model.config, sam=None)
    with pytest.raises(ValueError, match=re.escape("the model has no part 'frozen' to train")):
        free_parts(model, ["frozen"])


def test_a_weight_of_no_term_is_named() -> None:
    message = "loss_weights = {'box_l': 7.0} has 'box_l'; pass some of dialogue, moment_span"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_model("internvl", loss_weights={"box_l": 7.0})


def test_a_model_with_a_sam_needs_a_collator_that_serves_it(tmp_path: Path) -> None:
    from tests.task_preference_models import make_fresh_model

    model, processor = make_fresh_model("internvl", sam=make_sam())
    arguments = make_arguments(tmp_path)
    lacking: list[dict[str, Any]] = [{}, {"data_collator": make_collator(processor)}]
    for settings in lacking:
        message = "pass data_collator=TaskPreferenceCollator(processor, sam_processor=...)"
        with pytest.raises(ValueError, match=re.escape(message)):
            TaskPreferenceTrainer(model, arguments, processing_class=processor, **settings)
    serving: list[dict[str, Any]] = [{"stage": 1}, {"answers": "text"}]
    serving.append({"data_collator": make_collator(processor, sam_processor=object())})
    for settings in serving:
        assert TaskPreferenceTrainer(model, arguments, processing_class=processor, **settings).parts


def test_an_evaluation_has_the_terms_of_its_own_rows(tmp_path: Path) -> None:
    rows = make_task_rows()
    talks, boxes = ([row for row in rows if row.task == task] for task in ("dialogue", "box"))
    model, processor = make_model("internvl")
    trainer = make_trainer(tmp_path, model, processor, eval_dataset=talks)

    def list_terms(metrics: dict[str, Any]) -> dict[str, float]:
        return {name: value for name, value in metrics.items() if "loss_" in name}

    wanted = list_terms(trainer.evaluate())
    assert set(wanted) == {"eval_loss_dialogue"}
    assert set(list_terms(trainer.predict(boxes).metrics)) == {
        "test_loss_dialogue",
        "test_loss_box_l1",
        "test_loss_box_giou",
        "test_loss_box_iou",
    }
    assert list_terms(trainer.evaluate()) == wanted
    assert set(list_terms(trainer.evaluate(boxes, metric_key_prefix="far"))) == {
        "far_loss_dialogue",
        "far_loss_box_l1",
        "far_loss_box_giou",
        "far_loss_box_iou",
    }
    assert list_terms(trainer.evaluate({"own": talks})) == {"eval_own_loss_dialogue": wanted["eval_loss_dialogue"]}
    assert "eval_own_loss_dialogue" in trainer.state.log_history[-1]
