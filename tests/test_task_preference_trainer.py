from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed; pip install 'vidground-hf[models]'")

from transformers import TrainingArguments  # noqa: E402

from tests.task_preference_rows import make_collator, make_model, make_task_rows  # noqa: E402
from tests.tiny_vlms import FAMILIES  # noqa: E402
from vidground_hf.task_preference.adapters_lora import add_lora  # noqa: E402
from vidground_hf.task_preference.trainer import (  # noqa: E402
    TaskPreferenceTrainer,
    name_task,
)
from vidground_hf.task_preference.trainer_parts import clip_parts, name_part  # noqa: E402
from vidground_hf.task_preference.trainer_stages import STAGES, TrainingStage  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
HEADS = {"moment_head", "box_head", "mask_head"}
MOVED = {1: {"language"}, 2: {"language", *HEADS}, 3: {"language", "vision", "connector", *HEADS}}
# Without a gradient whatever is trained: rankings do not feel it, or the model's own forward leaves it out.
IDLE = ("saliency_frames.bias", "post_layernorm.weight", "post_layernorm.bias")
# The mismatched saliency looks at other rows of a batch, so that it depends on how a step is cut.
ALONE = {"saliency_mismatched": 0.0}


def make_arguments(folder: Path, **settings: Any) -> TrainingArguments:
    defaults = {"max_steps": 1, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no"}
    fixed = {"report_to": [], "use_cpu": True, "disable_tqdm": True, "lr_scheduler_type": "constant"}
    return TrainingArguments(str(folder), **{**defaults, **fixed, "dataloader_pin_memory": False, **settings})


def make_trainer(folder: Path, model: Any, processor: Any, **settings: Any) -> TaskPreferenceTrainer:
    own: dict[str, Any] = {
        key: settings.pop(key) for key in ("stage", "answers", "train_dataset", "eval_dataset") if key in settings
    }
    collator = make_collator(processor, answers=own.get("answers", "heads"))
    own = {"train_dataset": make_task_rows(), "num_samples": 24, **own}
    return TaskPreferenceTrainer(
        model, make_arguments(folder, **settings), processing_class=processor, data_collator=collator, **own
    )


def copy_weights(model: Any) -> dict[str, Any]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def list_moved(trainer: TaskPreferenceTrainer, before: dict[str, Any]) -> dict[str, set[bool]]:
    return {
        part: {not torch.equal(before[name], weight) for name, weight in named if not name.endswith(IDLE)}
        for part, named in trainer.parts.items()
    }


@pytest.mark.parametrize("family", ["internvl", *(pytest.param(one, marks=pytest.mark.slow) for one in FAMILIES)])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_step_of_each_stage_moves_its_parts_and_no_others(family: str, tmp_path: Path) -> None:
    model, processor = make_model(family)
    for stage, moved in MOVED.items():
        before = copy_weights(model)
        trainer = make_trainer(tmp_path, model, processor, stage=stage)
        trainer.train()
        found = list_moved(trainer, before)
        assert {part for part, changes in found.items() if changes == {True}} == moved
        assert all(changes == {False} for part, changes in found.items() if part not in moved)


def test_every_term_rate_and_norm_is_logged(tmp_path: Path) -> None:
    model, processor = make_model("internvl")
    trainer = make_trainer(
        tmp_path, model, processor, stage=2, per_device_train_batch_size=8, eval_dataset=make_task_rows()
    )
    trainer.train()
    logs = trainer.state.log_history[0]
    terms = {"dialogue", "moment_span", "moment_giou", "moment_label", "saliency_margin", "saliency_rank"}
    terms |= {
        "saliency_mismatched",
        "box_l1",
        "box_giou",
        "box_iou",
        "mask_bce",
        "mask_dice",
        "mask_iou",
        "mask_object",
    }
    assert {name for name in logs if name.startswith("loss_")} == {f"loss_{term}" for term in terms}
    assert {name for name in logs if name.startswith("rate_")} == {f"rate_{part}" for part in MOVED[2]}
    assert {name for name in logs if name.startswith("grad_norm_")} == {"grad_norm_model"} | {
        f"grad_norm_{head}" for head in HEADS
    }
    from vidground_hf.task_preference.losses import WEIGHTS

    weighted = sum({"dialogue": 1.0, **WEIGHTS}[term] * logs[f"loss_{term}"] for term in terms)
    assert logs["loss"] == pytest.approx(weighted, rel=1e-4)
    found = trainer.evaluate()
    assert {name for name in found if name.startswith("eval_loss")} >= {"eval_loss"}
    evaluated = trainer.state.log_history[-1]
    assert {f"eval_loss_{term}" for term in terms} <= set(evaluated)


def train_once(folder: Path, **settings: Any) -> dict[str, Any]:
    model, processor = make_model("internvl", loss_weights=ALONE)
    trainer = make_trainer(folder, model, processor, optim="sgd", max_grad_norm=0.0, **settings)
    trainer.train()
    return copy_weights(model)


# Large, so that a step shows in float32.
LOUD = replace(STAGES[2], rates=dict.fromkeys(["language", *sorted(HEADS)], 0.1))


def test_a_step_does_not_depend_on_how_it_is_cut(tmp_path: Path) -> None:
    whole = train_once(tmp_path, stage=LOUD, per_device_train_batch_size=8)
    cut = train_once(tmp_path, stage=LOUD, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    model, _ = make_model("internvl")
    start = copy_weights(model)
    for name, weight in whole.items():
        assert torch.allclose(weight, cut[name], atol=2e-5 + 1e-3 * (weight - start[name]).abs().max().item()), name
    assert any(not torch.equal(weight, start[name]) for name, weight in whole.items())


def test_a_head_without_rows_is_passed_over(tmp_path: Path) -> None:
    model, processor = make_model("internvl")
    before = copy_weights(model)
    stage = replace(LOUD, rates=dict.fromkeys(LOUD.rates, 1e-4), shares={"box": 1.0, "dialogue": 1.0})
    trainer = make_trainer(tmp_path, model, processor, stage=stage, weight_decay=0.5, max_steps=2)
    trainer.train()
    found = list_moved(trainer, before)
    assert found["box_head"] == {True}
    assert found["moment_head"] == found["mask_head"] == {False}


def test_labels_written_out_leave_the_heads_alone(tmp_path: Path) -> None:
    model, processor = make_model("internvl")
    before = copy_weights(model)
    trainer = make_trainer(tmp_path, model, processor, stage=3, answers="text", weight_decay=0.5)
    trainer.train()
    found = list_moved(trainer, before)
    assert found["language"] == {True}
    assert all(found[head] == {False} for head in HEADS)
    assert [name for name in trainer.state.log_history[0] if name.startswith("loss_")] == ["loss_dialogue"]


@pytest.mark.parametrize("has_lora", [False, True])
def test_a_resumed_run_ends_as_an_unbroken_one(has_lora: bool, tmp_path: Path) -> None:
    if has_lora:
        pytest.importorskip("peft", reason="peft is not installed; pip install 'vidground-hf[train]'")

    def start() -> TaskPreferenceTrainer:
        model, processor = make_model("internvl")
        if has_lora:
            add_lora(model, rank=2, dropout=0.1)
        # Six steps of eight rows in epochs of three.
        return make_trainer(
            tmp_path, model, processor, stage=3, max_steps=6, gradient_accumulation_steps=2, save_strategy="steps",
            save_steps=4, lr_scheduler_type="cosine",
        )  # fmt: skip

    unbroken = start()
    unbroken.train()
    resumed = start()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed.state.global_step == 6
    wanted = copy_weights(unbroken.model)
    for name, weight in copy_weights(resumed.model).items():
        assert torch.equal(weight, wanted[name]), name


def test_norms_are_clipped_apart() -> None:
    small, large = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    other, idle = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    small.grad, large.grad, other.grad = torch.tensor([0.3, 0.4]), torch.tensor([30.0, 40.0]), torch.tensor([2.0])
    parts = {
        "language": [("a", small)],
        "box_head": [("b", large)],
        "mask_head": [("c", other)],
        "moment_head": [("d", idle)],
    }
    norms = clip_parts(parts, 1.0)
    assert {name: round(float(norm), 4) for name, norm in norms.items()} == {
        "model": 0.5,
        "box_head": 50.0,
        "mask_head": 2.0,
    }
    assert torch.allclose(small.grad, torch.tensor([0.3, 0.4]))
    assert torch.allclose(large.grad, torch.tensor([0.6, 0.8]), atol=1e-4)
    assert idle.grad is None


def test_parts_are_named() -> None:
    names = {
        "vlm.model.visual.patch_embed.proj.weight": "vision",
        "vlm.model.visual.deepstack_merger_list.0.norm.weight": "connector",
        "vlm.model.connector.modality_projection.proj.weight": "connector",
        "vlm.model.image_newline": "connector",
        "vlm.lm_head.weight": "language",
        "heads.mask.sam.prompt_encoder.weight": "frozen",
        "heads.mask.adapter.weight": "mask_head",
    }
    assert {name: name_part(name, has_lora=False) for name in names} == names
    assert name_part("vlm.lm_head.weight", has_lora=True) == "frozen"
    with pytest.raises(ValueError, match=re.escape("the parameter 'vlm.ears.weight' belongs to no known part")):
        name_part("vlm.ears.weight", has_lora=False)
    assert [name_task(term) for term in ("moment_span", "prompt_l1", "saliency_margin")] == [
        "moment",
        "mask",
        "moment",
    ]


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    model, processor = make_model("internvl")
    with pytest.raises(ValueError, match=re.escape("stage = 4 is not known; pass one of 1, 2, 3, or a TrainingStage")):
        make_trainer(tmp_path, model, processor, stage=4)
    with pytest.raises(
        ValueError, match=re.escape("the rates of stage 'mine' are {'language': 0}; give at least one")
    ):
        TrainingStage(name="mine", rates={"language": 0})
    with pytest.raises(ValueError, match=re.escape("answers = 'text' and the collator writes 'heads'")):
        TaskPreferenceTrainer(
            model,
            make_arguments(tmp_path),
            answers="text",
            data_collator=make_collator(processor),
            processing_class=processor,
        )


def test_the_gap_callback_asks_the_model_in_training(tmp_path: Path) -> None:
    from datasets import Dataset

    from vidground_hf.callbacks import BlindGapCallback

    model, processor = make_model("qwen2_5_vl")
    video = make_task_rows()[0].video
    options = ["red", "blue"]
    rows = [{"question": f"Which {k}?", "options": options, "answer": "red", "video": video} for k in range(3)]
    columns = {"question": "question", "options": "options", "answer": "answer", "video": "video"}
    trainer = make_trainer(tmp_path, model, processor, stage=2, eval_dataset=make_task_rows(), eval_strategy="steps")
    callback = BlindGapCallback(trainer, Dataset.from_list(rows), columns=columns, num_rows=3, num_workers=0)
    trainer.add_callback(callback)
    trainer.train()
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert logged["eval_gap_num_rows"] == 3
    assert 0 <= logged["eval_visual_accuracy"] <= 1


SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.test_task_preference_trainer import ALONE, LOUD, copy_weights, make_model, make_trainer
folder, size = Path(sys.argv[1]), int(sys.argv[2])
model, processor = make_model("internvl", loss_weights=ALONE)  # each process saves and loads one of its own
torch.distributed.init_process_group("gloo")
stage = replace(LOUD, shares={"box": 1.0, "moment": 1.0})
trainer = make_trainer(folder, model, processor, stage=stage, optim="sgd", max_grad_norm=0.0, max_steps=3,
    per_device_train_batch_size=size, ddp_backend="gloo")
trainer.train()
if trainer.args.process_index == 0:
    torch.save((copy_weights(model), trainer.state.log_history[0]), folder / f"by{size}.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Each has rows of one task only, and of one task none of them has any."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    assert run_processes(script, tmp_path, 2, 1) == [0]
    assert run_processes(script, tmp_path, 1, 2) == [0, 0]
    (alone, alone_log), (shared, shared_log) = (torch.load(tmp_path / f"by{size}.pt") for size in (2, 1))
    for name, weight in alone.items():
        # Steps of 0.1 along gradients of norm 500: rounding alone comes to 2e-4 here.
        assert torch.allclose(weight, shared[name], atol=1e-3), name
    for name in ("loss", "loss_dialogue", "loss_box_l1", "loss_moment_span"):
        assert alone_log[name] == pytest.approx(shared_log[name], rel=1e-4)


def run_processes(script: Path, folder: Path, size: int, num_processes: int) -> list[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_processes)}
    settings |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-W", "ignore", str(script), str(folder), str(size)]
    started = []
    for number in range(num_processes):
        own = {"RANK": str(number), "LOCAL_RANK": str(number)}
        started.append(subprocess.Popen(command, env=os.environ | settings | own))
    return [process.wait(timeout=300) for process in started]


def test_wrong_shares_are_told_before_training(tmp_path: Path) -> None:
    model, processor = make_model("internvl")
    stage = replace(STAGES[2], shares={"box": 1.0, "mask": 1.0})
    rows = [row for row in make_task_rows() if row.task == "box"]
    with pytest.raises(ValueError, match=re.escape("the share of 'mask' is 1.0; allowed are shares above 0 of tasks")):
        make_trainer(tmp_path, model, processor, stage=stage, train_dataset=rows)


def test_rows_that_no_head_answers_are_told_before_training(tmp_path: Path) -> None:
    model, processor = make_model("internvl", tasks=("box", "mask"))
    message = "4 of 11 rows ask for 'moment', and the model answers dialogue, box, mask; leave these rows out, or make"
    with pytest.raises(ValueError, match=re.escape(message)):
        make_trainer(tmp_path, model, processor)
    misspelt = [{"task": "dialog"}, {"task": None}]
    with pytest.raises(ValueError, match=re.escape("2 of 2 rows ask for 'None', 'dialog', and the model answers")):
        make_trainer(tmp_path, model, processor, train_dataset=misspelt)
    assert make_trainer(tmp_path, model, processor, answers="text").stage.name == "heads and tokens"


@pytest.mark.parametrize("kinds", [("state", "state"), ("vision", "features")])
def test_the_heads_of_the_controls_are_trained(kinds: tuple[str, str], tmp_path: Path) -> None:
    model, processor = make_model("internvl", boxes=kinds[0], moments=kinds[1])
    before = copy_weights(model)
    trainer = make_trainer(tmp_path, model, processor, stage=2, per_device_train_batch_size=8)
    trainer.train()
    moved = {name for name, weight in model.named_parameters() if not torch.equal(before[name], weight)}
    assert any(name.startswith("heads.box.") for name in moved)
    assert any(name.startswith("heads.moment.") for name in moved)
    terms = {name for name in trainer.state.log_history[0] if name.startswith("loss_")}
    assert {"loss_box_l1", "loss_moment_span", "loss_moment_label"} <= terms
    assert ("loss_saliency_rank" in terms) == (kinds[1] == "features")
    assert "loss_saliency_mismatched" not in terms
    assert ("loss_box_iou" in terms) == (kinds[0] == "vision")
