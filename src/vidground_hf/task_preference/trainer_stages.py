"""The three stages of training as settings: what moves, at which rate, on which tasks.

Numbers are those of the paper (arXiv 2412.19326, table of training settings) unless marked as ours. Where its text
says otherwise than its table, the table is followed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStage:
    """What one stage trains.

    `dataclasses.replace` makes one with other settings.

    Args:
        name (`str`): for logs.
        rates (`Mapping[str, float]`): learning rate of each part that moves, by the names of `trainer_parts.PARTS`;
            all others are held.
        grades_heads (`bool`, *optional*, defaults to `True`): whether the heads are graded; without, the stage teaches
            which head to call.
        shares (`Mapping[str, float]`, *optional*): of the tasks in every step; equal where left out.

    Raises:
        `ValueError`: for no rates, and rates that are not above 0.

    Example:
        >>> from dataclasses import replace
        >>> replace(STAGES[2], rates={**STAGES[2].rates, "box_head": 1e-3}).rates["box_head"]
        0.001
    """

    name: str
    rates: Mapping[str, float]
    grades_heads: bool = True
    shares: Mapping[str, float] | None = field(default=None)

    def __post_init__(self) -> None:
        if not self.rates or min(self.rates.values()) <= 0:
            raise ValueError(
                f"the rates of stage {self.name!r} are {dict(self.rates)}; give at least one part a rate above 0, and "
                "leave out parts that are held"
            )


STAGES: dict[int, TrainingStage] = {
    1: TrainingStage(
        name="task assignment",
        # The paper trains the LoRA alone, which there covers the output rows of the triggers. Here these rows are
        # trained as such, from near the mean of all others: the rate of stage 2, our guess.
        rates={"language": 2e-5, "tokens": 1e-4},
        grades_heads=False,
    ),
    2: TrainingStage(
        name="heads and tokens",
        # The paper's table: heads and region and mask tokens 1e-4, the temporal token 2e-4. Our tokens are rows of one
        # table and have one rate. Its text has 2e-5 for region and mask. It trains each task on its own and without
        # dialogue; ours may be mixed, with dialogue in it, for without chat is soon lost (our own trial).
        rates={"language": 2e-5, "tokens": 1e-4, "moment_head": 1e-4, "box_head": 1e-4, "mask_head": 1e-4},
    ),
    3: TrainingStage(
        name="all together",
        rates={
            "language": 2e-5,
            "tokens": 2e-5,
            "vision": 2e-5,
            "connector": 2e-5,
            "moment_head": 2e-5,
            "box_head": 2e-5,
            "mask_head": 2e-5,
        },
    ),
}
"""The paper's stages, by number."""

PAPER_ARGUMENTS: dict[int, dict[str, Any]] = {
    # Batches over all devices; the text gives 128 for stage 3. Epochs of stage 2 are 25 for the temporal head, 3 for
    # masks and 1 for boxes, and of stage 3 are 1 without dialogue and 3 with.
    1: {"num_train_epochs": 1, "total_batch_size": 128},
    2: {"num_train_epochs": 25, "total_batch_size": 64},
    3: {"num_train_epochs": 3, "total_batch_size": 256},
}
"""What the paper's stages differ in besides, with `COMMON_ARGUMENTS`; kept for whoever repeats it."""

COMMON_ARGUMENTS: dict[str, Any] = {
    "optim": "adamw_torch",
    "lr_scheduler_type": "cosine",
    "weight_decay": 0.02,
    "warmup_steps": 0.2,
    "bf16": True,
    # Of the published run's saved settings; the paper does not say.
    "max_grad_norm": 1.0,
    "adam_epsilon": 1e-5,
}
"""Arguments of `TrainingArguments` for all stages; `warmup_steps` below 1 is a share of them."""
