"""`TaskPreferenceTrainer`: a `transformers.Trainer` that trains a task preference model in stages.

Batches are made by `collating.py`, losses by the model; what is right of the answers is measured in `evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from vidground_hf.task_preference.collating import Answers, TaskPreferenceCollator
from vidground_hf.task_preference.configuration import TASKS
from vidground_hf.task_preference.grading import pick_graded_masks
from vidground_hf.task_preference.sampling import TaskBalancedSampler, read_shares
from vidground_hf.task_preference.task_rows import TaskRow
from vidground_hf.task_preference.trainer_parts import (
    HEADS,
    clip_parts,
    drop_gradients,
    find_parts,
    free_parts,
    make_groups,
)
from vidground_hf.task_preference.trainer_stages import TrainingStage, choose_stage

COUNTED = ("dialogue", "moment", "box", "mask")
"""What a step is counted in: labelled tokens for the words of all rows, rows for each task."""

_TASK_OF_PREFIX = {"saliency": "moment", "prompt": "mask"}


class TaskPreferenceTrainer(Trainer):
    """Trains a `TaskPreferenceModel` in one stage; train the same model with the next one after that.

    The loss of each task is divided by its own number in the whole step, over accumulated batches and processes: words
    by labelled tokens, heads by rows. So what a row weighs does not depend on how a step is cut into batches. (Terms
    are means over all spans or frames of a batch, so that this is exact where rows have equally many; and the
    mismatched saliency needs another row of the same batch.) A head without a row in a step is passed over by the
    optimizer. Each head's gradients are clipped apart.

    Logs have, beside those of `Trainer`, `loss_<term>` for each term (unweighted means since the last log),
    `grad_norm_<part>`, and `rate_<part>`.

    Args:
        model (`TaskPreferenceModel`): which parts of it move is set by the stage.
        args (`TrainingArguments`): `learning_rate` is not used, the stage has the rates; `remove_unused_columns` is
            turned off.
        stage (`int` or `TrainingStage`, *optional*, defaults to 2): one of `STAGES`, of which parts that the model
            lacks are left out, or one's own, all parts of which the model must have.
        train_dataset (`Sequence[TaskRow]` or `Dataset` of their columns, *optional*): rows of any tasks.
        eval_dataset: the same; evaluation gives the loss and its terms.
        processing_class (`ProcessorMixin`): of the model, with the task tokens.
        data_collator (`Callable`, *optional*): a `TaskPreferenceCollator` is made when left out; a model whose masks a
            SAM draws needs one with `sam_processor`.
        answers (`str`, *optional*, defaults to `"heads"`): `"text"` trains the same rows with their labels written
            out; the heads then stay as they are. Goes to the collator that is made here.
        num_samples (`int`, *optional*): drawn in an epoch; as many as there are rows when left out.
        settings: what else `Trainer` takes.

    Raises:
        `ValueError`: for an unknown stage, a stage with parts that the model lacks, `answers` beside a collator that
            says otherwise, a collator without the `sam_processor` or the `needs_object` that the model needs, rows
            of tasks that the model has no head for, and shares of tasks that have no rows.

    Example:
        >>> trainer = TaskPreferenceTrainer(  # doctest: +SKIP
        ...     model, TrainingArguments("out"), stage=2, train_dataset=rows, processing_class=processor
        ... )
        >>> trainer.train()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        *,
        stage: int | TrainingStage = 2,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any,
        data_collator: Any = None,
        answers: Answers = "heads",
        num_samples: int | None = None,
        **settings: Any,
    ) -> None:
        self.parts = find_parts(model)
        self.stage = choose_stage(stage, self.parts)
        if data_collator is None:
            data_collator = TaskPreferenceCollator(processing_class, answers=answers)
        needs_sam = self.stage.grades_heads and model.config.sam_config is not None
        _check_collator(data_collator, answers, needs_sam=needs_sam)
        if needs_sam and model.config.mask_loss == "prompts":
            _check_prompts(data_collator, answers)
        if train_dataset is not None:
            tasks = list_tasks(train_dataset)
            _check_tasks(tasks, model.config.tasks if answers == "heads" else TASKS)
            read_shares(tasks, self.stage.shares)
        free_parts(model, self.stage.rates)
        self.num_samples = num_samples
        self._sam_loss = model.config.mask_loss if model.config.sam_config is not None else None
        self._sampler: TaskBalancedSampler | None = None
        self._step_counts: Tensor | None = None
        self._terms: dict[str, dict[str, list[Tensor]]] = {"train": {}, "eval": {}}
        self._norms: dict[str, Tensor] = {}
        args.remove_unused_columns = False
        super().__init__(
            model,
            args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **settings,
        )
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the counts of the whole step
        self.add_callback(_StepKeeper(self))

    def _get_train_sampler(self, train_dataset: Any = None) -> TaskBalancedSampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        args = self.args
        self._sampler = TaskBalancedSampler(
            list_tasks(rows),
            shares=self.stage.shares,
            num_samples=self.num_samples,
            block_size=self._train_batch_size * args.gradient_accumulation_steps * args.world_size,
            seed=args.seed if args.data_seed is None else args.data_seed,
        )
        return self._sampler

    def create_optimizer(self, model: nn.Module | None = None) -> Any:
        """Makes the optimizer that the arguments name, with a rate for each part."""
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            decayed = frozenset(self.get_decay_parameter_names(model))
            groups = make_groups(self.parts, self.stage.rates, decayed, self.args.weight_decay)
            self.optimizer: Any = optimizer_class(groups, **settings)
        return self.optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Takes the batches of a step, and counts what is in all of them, on all processes."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        counts = sum((count_labels(batch, self._sam_loss) for batch in batches), torch.zeros(len(COUNTED)))
        self._step_counts = self.accelerator.reduce(counts.to(device), reduction="sum")
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The weighted sum of the terms, each divided by its own count in the step."""
        if not self.stage.grades_heads:
            inputs = {key: value for key, value in inputs.items() if key != "targets"}
        outputs = model(**inputs)
        loss, counts = outputs.loss, count_labels(inputs, self._sam_loss)
        kept = self._terms["train" if model.training else "eval"]
        for name, term in outputs.losses.items():
            place = COUNTED.index(name_task(name))
            count = counts[place].to(term.device)
            kept.setdefault(name, []).append(torch.stack([term.detach().float() * count, count]))
            if model.training and self._step_counts is not None:
                share = count * self.accelerator.num_processes / self._step_counts[place].clamp(min=1)
                loss = loss + (share - 1) * self.model.loss_weights[name] * term
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **settings: Any) -> Any:
        """Adds the terms of this loop's rows, and of no others', to its metrics."""
        self._terms["eval"].clear()
        output = super().evaluation_loop(dataloader, *args, metric_key_prefix=metric_key_prefix, **settings)
        output.metrics.update(self._take_terms("eval", f"{metric_key_prefix}_"))
        return output

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """The loss alone: answers are generated and measured by `evaluation.py`."""
        return super().prediction_step(model, inputs, True, ignore_keys)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the terms, norms and rates to what is logged."""
        if "loss" in logs:
            logs |= self._take_terms("train", "")
            logs |= {f"grad_norm_{name}": float(norm) for name, norm in self._norms.items()}
            logs |= {f"rate_{group['part']}": group["lr"] for group in self.optimizer.param_groups}
        super().log(logs, start_time)

    def _take_terms(self, kind: str, prefix: str) -> dict[str, float]:
        """The mean of each term over all processes since the last time."""
        mine = {name: torch.stack(parts).sum(0).tolist() for name, parts in self._terms[kind].items()}
        self._terms[kind].clear()
        totals: dict[str, list[float]] = {}
        for one in gather_object([mine]):
            for name, (total, count) in one.items():
                sums = totals.setdefault(name, [0.0, 0.0])
                sums[0], sums[1] = sums[0] + total, sums[1] + count
        return {f"{prefix}loss_{name}": total / count for name, (total, count) in sorted(totals.items()) if count}

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:  # these clip whole models by themselves
            return super()._clip_grad_norm(model)
        self.accelerator.unscale_gradients()
        self._norms = clip_parts(self.parts, self.args.max_grad_norm)
        return torch.stack([norm.float() for norm in self._norms.values()]).norm()

    def skip_unused_heads(self) -> None:
        """Takes away the gradients, zero, of heads that had no row in the step."""
        if self._step_counts is None:
            return
        unused = [task for task, count in zip(COUNTED, self._step_counts.tolist(), strict=True) if count == 0]
        drop_gradients(self.parts, [HEADS[task] for task in unused if task in HEADS])


class _StepKeeper(TrainerCallback):
    """Tells the sampler which epoch it is, where accelerate does not reach it, and the trainer that a step is due."""

    def __init__(self, trainer: TaskPreferenceTrainer) -> None:
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer._sampler is not None:
            self.trainer._sampler.set_epoch(int(state.epoch or 0))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.skip_unused_heads()


def _check_collator(collator: Any, answers: Answers, *, needs_sam: bool) -> None:
    if getattr(collator, "answers", answers) != answers:
        raise ValueError(f"answers = {answers!r} and the collator writes {collator.answers!r}; give both the same")
    if needs_sam and answers == "heads" and getattr(collator, "sam_processor", collator) is None:
        raise ValueError(
            "a SAM draws the masks of the model, and the collator prepares no pixels for it; pass data_collator="
            "TaskPreferenceCollator(processor, sam_processor=...) with the image processor of that SAM"
        )


def _check_prompts(collator: Any, answers: Answers) -> None:
    if answers == "heads" and not getattr(collator, "needs_object", True):
        raise ValueError(
            "mask_loss = 'prompts' learns from frames that show the object, and the collator draws any; pass "
            "data_collator=TaskPreferenceCollator(processor, sam_processor=..., needs_object=True)"
        )


def _check_tasks(tasks: Collection[str], known: Collection[str]) -> None:
    """Refuses rows that nothing answers, which would stop a training when their turn comes."""
    if unknown := sorted({str(task) for task in tasks} - {"dialogue", *known}):
        count = sum(str(task) in unknown for task in tasks)
        raise ValueError(
            f"{count} of {len(tasks)} rows ask for {', '.join(map(repr, unknown))}, and the model answers dialogue, "
            f"{', '.join(known)}; leave these rows out, or make the model with heads for them (tasks= of from_vlm)"
        )


def list_tasks(rows: Any) -> list[str]:
    """The task of each row, of a dataset or of a list of `TaskRow` or columns."""
    if hasattr(rows, "column_names"):
        return list(rows["task"])
    return [row.task if isinstance(row, TaskRow) else row["task"] for row in rows]


def count_labels(batch: Mapping[str, Any], sam_loss: str | None = None) -> Tensor:
    """What is in a batch, in the order of `COUNTED`: labelled tokens, then rows of each task that are graded.

    Args:
        batch (`Mapping[str, Any]`): of the collator.
        sam_loss (`str`, *optional*): what masks are trained with where a SAM draws them, which is graded on the frame
            it draws: a mask row without a label for that one does not count.
    """
    tokens = (batch["labels"][:, 1:] != -100).sum()
    targets: Any = batch.get("targets")
    counts = {} if targets is None else targets.counts
    if counts.get("mask") and sam_loss is not None:
        counts["mask"] = sum(mask is not None for mask in pick_graded_masks(targets, batch["media"], sam_loss))
    return torch.stack([tokens.cpu().float(), *(torch.tensor(float(counts.get(task, 0))) for task in HEADS)])


def name_task(term: str) -> str:
    """The entry of `COUNTED` that a term of the loss is divided by.

    Example:
        >>> name_task("saliency_rank"), name_task("box_l1"), name_task("dialogue")
        ('moment', 'box', 'dialogue')
    """
    prefix = term.split("_")[0]
    return _TASK_OF_PREFIX.get(prefix, prefix)
