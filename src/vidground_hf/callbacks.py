"""`GapCardCallback`: a Trainer writes the card of the model it has trained, with how much that model looks.

Measures nothing itself and pushes nothing; `model_cards.py` words the card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vidground_hf.eval_results import GapReports
from vidground_hf.model_cards import render_model_card

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError("a callback needs transformers: pip install 'vidground-hf[models]'") from error

from vidground_hf.callbacks_gap import BlindGapCallback as BlindGapCallback
from vidground_hf.callbacks_refresh import RefreshGrounding as RefreshGrounding

# What a reader needs to train the same again: settings of every Trainer, then those of TRL's.
_SETTINGS = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "world_size",
    "bf16",
    "fp16",
    "seed",
    "loss_type",
    "beta",
    "num_generations",
    "max_completion_length",
)


def read_recipe(args: Any, state: Any) -> dict[str, Any]:
    """Reads how a model was trained.

    Args:
        args (`transformers.TrainingArguments`): settings; names that they do not have are left out.
        state (`transformers.TrainerState`): how far training went.

    Returns:
        `dict`: names and values; nothing of it names a folder, an account or a token.

    Example:
        >>> from transformers import TrainerState, TrainingArguments
        >>> args = TrainingArguments("out", learning_rate=1e-6, use_cpu=True)
        >>> recipe = read_recipe(args, TrainerState(global_step=2))
        >>> recipe["steps"], recipe["learning_rate"], recipe["lr_scheduler_type"]
        (2, 1e-06, 'linear')
    """
    settings = {name: getattr(args, name, None) for name in _SETTINGS}
    reached = {"steps": state.global_step, "epochs": None if state.epoch is None else round(state.epoch, 2)}
    # Of an enum such as the scheduler's, only the value is a word for readers.
    named = {name: getattr(value, "value", value) for name, value in (reached | settings).items()}
    return {name: value for name, value in named.items() if value is not None}


class GapCardCallback(TrainerCallback):
    """Writes `README.md` into the output folder when training ends: recipe, training data, and the blind-visual gap.

    `measure` gets the model in evaluation mode, in every process, because a sharded model answers only when all of
    them ask; one process writes. What it raises ends the run with that error, so save the model in it first if it may
    fail. `Trainer.push_to_hub` writes a card of its own over this one; push with `push_model_card`, which takes
    `gap_reports`, afterwards.

    Args:
        measure (`Callable[[model], Mapping[str, Mapping]]`): gives, by benchmark, what `measure_gap` returns.
        base_model (`str`): what training starts from, an id on the Hub.
        training_report (`dict`, *optional*): the `report.json` of the curated training data.

    Attributes:
        gap_reports (`Mapping[str, Mapping]`): what was measured; empty before the end.

    Example:
        >>> from vidground_hf import measure_gap
        >>> def measure(model):
        ...     return {"user/bench": measure_gap(["A", "B"], ["A", "C"], ["A", "B"], num_options=4)}
        >>> callback = GapCardCallback(measure, base_model="user/base")  # Trainer(..., callbacks=[callback])
    """

    def __init__(
        self,
        measure: Callable[[Any], GapReports],
        *,
        base_model: str,
        training_report: Mapping[str, Any] | None = None,
    ) -> None:
        self.measure = measure
        self.base_model = base_model
        self.training_report = training_report
        self.gap_reports: GapReports = {}

    def on_train_end(self, args: Any, state: Any, control: Any, *, model: Any, **kwargs: Any) -> None:
        """Measures, and writes the card in the main process."""
        was_training = model.training
        model.eval()
        try:
            self.gap_reports = self.measure(model)
        finally:
            model.train(was_training)
        if state.is_world_process_zero:
            card = render_model_card(
                args.hub_model_id or Path(args.output_dir).absolute().name,
                self.gap_reports,
                base_model=self.base_model,
                training_report=self.training_report,
                recipe=read_recipe(args, state),
            )
            folder = Path(args.output_dir)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "README.md").write_text(card, encoding="utf-8")
