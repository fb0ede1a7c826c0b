"""What a task preference model is made of: the wrapped model, its tasks and their tokens, the heads and loss weights.

Nothing is built here; `modeling.py` does that.
"""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

TASKS = ("moment", "box", "mask")
"""The tasks that have a head; dialogue has none."""


class TaskPreferenceConfig(PreTrainedConfig):
    """Settings of a `TaskPreferenceModel`; `TaskPreferenceModel.from_vlm` fills them.

    Args:
        vlm_config (`PreTrainedConfig` or `dict`): of the wrapped vision-language model.
        sam_config (`PreTrainedConfig` or `dict`, *optional*): of the frozen SAM that draws masks; without it masks are
            drawn by a light convolutional head on the model's own features.
        tasks (`list[str]`): which of `TASKS` have a head.
        trigger_token_ids (`dict[str, int]`): of each task, the id of the token that starts an answer by its head.
        task_token_ids (`dict[str, int]`): of each task, the id of the token behind it, whose state the head reads.
        moment_head (`dict`, *optional*): keyword arguments of `TemporalHead`.
        box_head (`dict`, *optional*): keyword arguments of `RegionHead`.
        mask_head (`dict`, *optional*): keyword arguments of `ConvMaskHead`; none with a SAM.
        mask_loss (`str`, *optional*, defaults to `"bce"`): what masks are trained with: `"bce"` or `"focal"` on
            pixels, or, with a SAM, `"prompts"`, the published distillation of its prompts of boxes.
        moment_feature_width (`int`, *optional*): of precomputed features that the temporal head reads instead of the
            model's own.
        loss_weights (`dict[str, float]`, *optional*): of loss terms by name, where they differ from `losses.WEIGHTS`.
        vlm_generation (`dict`, *optional*): generation settings of the wrapped model.
        lora (`dict`, *optional*): rank and so on, where the language model has a LoRA; `add_lora` sets it.

    Raises:
        `ValueError`: for an unknown task, one without its tokens, a mask loss that there is not, or settings of a mask
            head beside a SAM.

    Example:
        >>> config = TaskPreferenceConfig(tasks=["box"], trigger_token_ids={"box": 9}, task_token_ids={"box": 10})
        >>> config.tasks, config.vlm_config.model_type
        (['box'], 'qwen2_5_vl')
    """

    model_type = "task_preference"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "vlm_config": SubConfigSpec(config_class=AutoConfig, model_type="qwen2_5_vl"),
        "sam_config": SubConfigSpec(config_class=AutoConfig, model_type="sam2", optional=True),
    }

    vlm_config: PreTrainedConfig | dict[str, Any] | None = None
    sam_config: PreTrainedConfig | dict[str, Any] | None = None
    tasks: list[str] | tuple[str, ...] = ()
    trigger_token_ids: dict[str, int] | None = None
    task_token_ids: dict[str, int] | None = None
    moment_head: dict[str, Any] | None = None
    box_head: dict[str, Any] | None = None
    mask_head: dict[str, Any] | None = None
    mask_loss: str = "bce"
    moment_feature_width: int | None = None
    loss_weights: dict[str, float] | None = None
    vlm_generation: dict[str, Any] | None = None
    lora: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.tasks = list(self.tasks)
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise ValueError(f"tasks = {self.tasks} has {unknown[0]!r}; pass some of {', '.join(TASKS)}")
        for name in ("trigger_token_ids", "task_token_ids"):
            ids = getattr(self, name) or {}
            if missing := [task for task in self.tasks if task not in ids]:
                raise ValueError(f"{name} = {ids} lacks {missing[0]!r}; pass what tokens.add_task_tokens returns")
        if self.sam_config is not None and self.mask_head:
            raise ValueError(
                f"mask_head = {self.mask_head} is of the convolutional head, and a SAM draws the masks; leave out one "
                "of the two"
            )
        allowed = ("bce", "focal") if self.sam_config is None else ("bce", "focal", "prompts")
        if self.mask_loss not in allowed:
            raise ValueError(
                f"mask_loss = {self.mask_loss!r} is not there for this mask head; pass one of {', '.join(allowed)} "
                "('prompts' needs a SAM)"
            )
