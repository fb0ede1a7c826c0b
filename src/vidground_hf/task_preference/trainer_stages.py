"""The three stages of training as settings: what moves, at which rate, on which tasks.

Numbers are those of the paper (arXiv 2412.19326, table of training settings) unless marked as ours. Where its text
says otherwise than its table, the table is followed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from vidground_hf.task_preference.trainer_parts import PARTS


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
        `ValueError`: for no rates, rates that are not above 0, and parts that there are not.

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
        if unknown := [part for part in self.rates if part not in PARTS]:
            raise ValueError(f"the rates of stage {self.name!r} have {unknown[0]!r}; name some of {', '.join(PARTS)}")


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


def choose_stage(stage: int | TrainingStage, parts: Collection[str]) -> TrainingStage:
    """The stage of a number, without the parts that a model lacks; one's own stage as it is.

    Args:
        stage (`int` or `TrainingStage`): one of `STAGES`, or one's own.
        parts (`Collection[str]`): that the model has: a box head alone, say, or no token rows apart without a LoRA.

    Raises:
        `ValueError`: for another number.

    Example:
        >>> choose_stage(1, ["language", "vision"]).rates
        {'language': 2e-05}
    """
    if isinstance(stage, TrainingStage):
        return stage
    if stage not in STAGES:
        raise ValueError(f"{stage = } is not known; pass one of {', '.join(map(str, STAGES))}, or a TrainingStage")
    known = STAGES[stage]
    return replace(known, rates={part: rate for part, rate in known.rates.items() if part in parts})
