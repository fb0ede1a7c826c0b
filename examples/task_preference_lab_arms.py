"""The arms of the task preference lab: which rows are learned from, how and in which stages, by the library's trainer.

Scoring is in `task_preference_lab_scores.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from task_preference_lab_scores import LabCollator
from transformers import AutoModelForImageTextToText, AutoProcessor, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from vidground_hf.task_preference.collating import Answers
from vidground_hf.task_preference.losses import WEIGHTS
from vidground_hf.task_preference.modeling import TaskPreferenceModel
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.task_preference.trainer import TaskPreferenceTrainer
from vidground_hf.task_preference.trainer_stages import TrainingStage

ROWS_PER_STEP = 32
KEPT_STEPS = 100  # after so many steps of a stage its state is kept, to go on from
HEADS_SHARE = 0.1  # of the heads' losses beside that of words, or words are learned late; heads go their own pace
HEAD_SETTINGS: dict[str, Any] = {
    "mask_head": {"width": 64, "upsampling": 8},  # 2 pixels of a clip to one of a mask
    "loss_weights": {name: HEADS_SHARE * weight for name, weight in WEIGHTS.items()},
}

# A model made from nothing takes higher rates than the paper's; found by trying.
_HEADS = ("moment_head", "box_head", "mask_head")
STAGES: dict[int, TrainingStage] = {
    # Heads are held and graded: without them task states soon say no more than that a task is asked for.
    1: TrainingStage(name="task assignment", rates={"language": 2e-3}),
    2: TrainingStage(name="heads and tokens", rates={"language": 1e-3, **dict.fromkeys(_HEADS, 1e-3)}),
    3: TrainingStage(
        name="all together",
        rates={"language": 5e-4, "vision": 1e-4, "connector": 1e-4, **dict.fromkeys(_HEADS, 1e-3)},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What an arm trains on.

    Attributes:
        tasks (`tuple[str, ...]`): of its rows, in equal shares.
        answers (`str`): `"heads"` or `"text"`.
        num_rows (`int`): of a step.
        steps_factor (`int`): how many times the steps of the others.
        heads (`Mapping`): settings of the heads that differ.
        shares (`Mapping[int, Mapping[str, float]]`): of the tasks in stages where they differ.
    """

    tasks: tuple[str, ...]
    answers: Answers = "heads"
    num_rows: int = ROWS_PER_STEP
    steps_factor: int = 1
    heads: Mapping[str, Any] = field(default_factory=dict)
    shares: Mapping[int, Mapping[str, float]] = field(default_factory=dict)

    @property
    def has_heads(self) -> bool:
        """Whether it trains them."""
        return self.answers == "heads" and len(self.tasks) > 1


ALL_TASKS = ("dialogue", "moment", "box", "mask")
ARMS: dict[str, Arm] = {  # the longest first, so that no process is left alone with one in the end
    "heads": Arm(tasks=ALL_TASKS),
    "text, twice as long": Arm(tasks=ALL_TASKS, answers="text", steps_factor=2),
    "text": Arm(tasks=ALL_TASKS, answers="text"),
    "dialogue, equal dialogue": Arm(tasks=("dialogue",), num_rows=ROWS_PER_STEP // len(ALL_TASKS)),
    "dialogue, equal steps": Arm(tasks=("dialogue",)),
    "state box": Arm(tasks=ALL_TASKS, heads={"box_head": {"kind": "state"}}),
    "no dialogue in stage 2": Arm(tasks=ALL_TASKS, shares={2: dict.fromkeys(ALL_TASKS[1:], 1.0)}),
}
STANDARD_ARMS = tuple(ARMS)[:5]


def load_base(folder: Path) -> tuple[Any, Any]:
    """The warmed-up model and its processor."""
    return AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def make_fresh(vlm: Any, processor: Any, seed: int, heads: Mapping[str, Any] | None = None) -> Any:
    """The model with fresh tokens and heads."""
    torch.manual_seed(seed)
    end = processor.tokenizer.eos_token_id
    vlm.generation_config.eos_token_id, vlm.generation_config.pad_token_id = end, processor.tokenizer.pad_token_id
    return TaskPreferenceModel.from_vlm(vlm, processor, **{**HEAD_SETTINGS, **(heads or {})})


def train_stage(
    arm: Arm, number: int, before: Path, output: Path, rows: Sequence[TaskRow], *, num_steps: int, seed: int
) -> None:
    """Trains one stage of an arm, unless that has been done; one that was cut off goes on.

    Args:
        arm (`Arm`): what is learned.
        number (`int`): of the stage.
        before (`Path`): folder of the model that the arm starts from for stage 1, of the stage before for others.
        output (`Path`): gets the model, the processor and `log.json`, the trainer's figures.
        rows (`Sequence[TaskRow]`): of all tasks.
        num_steps (`int`), seed (`int`): of the stage.
    """
    if (output / "log.json").exists():
        return
    model, processor = load_trained(before)
    stage = STAGES[number]
    if number in arm.shares:
        stage = replace(stage, shares=arm.shares[number])
    kept = output / "kept"
    trainer = TaskPreferenceTrainer(
        model,
        make_arguments(kept, num_steps=num_steps, num_rows=arm.num_rows, seed=seed + number),
        stage=stage,
        train_dataset=[row for row in rows if row.task in arm.tasks],
        processing_class=processor,
        data_collator=LabCollator(processor, arm.answers),
        answers=arm.answers,
    )
    trainer.remove_callback(PrinterCallback)  # stdout is for the tables
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(kept)) if kept.exists() else None)
    model.save_pretrained(output)
    processor.save_pretrained(output)
    shutil.rmtree(kept, ignore_errors=True)
    (output / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1), encoding="utf-8")


def load_trained(folder: Path) -> tuple[Any, Any]:
    """A model that a stage saved, and its processor."""
    return TaskPreferenceModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def make_arguments(output: Path, *, num_steps: int, num_rows: int, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(output),
        max_steps=num_steps,
        per_device_train_batch_size=num_rows,
        lr_scheduler_type="cosine",
        warmup_steps=min(20, num_steps // 4),
        weight_decay=0.0,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        logging_steps=10,
        save_steps=KEPT_STEPS,
        save_total_limit=1,
        seed=seed,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
