"""A vision-language model with heads: the language model writes, and at its task tokens the heads find what it means.

Generation is in `generation.py`, losses in `grading.py`, LoRA in `adapters_lora.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import ModelOutput

from vidground_hf.task_preference.adapters_lora import ADAPTER_FOLDER, load_adapter, read_plain_state, save_adapter
from vidground_hf.task_preference.answers import TaskPreferenceAnswer
from vidground_hf.task_preference.configuration import TASKS, TaskPreferenceConfig
from vidground_hf.task_preference.features import VisionFeatures
from vidground_hf.task_preference.generation import write_answers
from vidground_hf.task_preference.grading import grade_heads, grade_text
from vidground_hf.task_preference.heads import (
    MaskOutput,
    TemporalOutput,
    check_columns,
    init_head_weights,
    make_heads,
    run_heads,
)
from vidground_hf.task_preference.losses import weigh_terms
from vidground_hf.task_preference.media_facts import MediaFacts
from vidground_hf.task_preference.targets import Targets
from vidground_hf.task_preference.tokens import add_task_tokens, find_states, fit_embeddings
from vidground_hf.task_preference.vision import lay_out, look

_HUB_SETTINGS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


@dataclass
class TaskPreferenceOutput(ModelOutput):
    """What `TaskPreferenceModel.forward` gives for B rows.

    Attributes:
        loss (`Tensor`, *optional*): the weighted sum of `losses`.
        losses (`dict[str, Tensor]`, *optional*): `"dialogue"` and the terms of `losses.py`, each a mean over its own
            targets.
        logits (`Tensor`): `float[B, T, V]`.
        states (`dict[str, Tensor]`): of each task, `float[N, C]`: the last hidden states at its N task tokens.
        rows (`dict[str, Tensor]`): of each task, `int64[N]`: the rows of the batch that they are in.
        moment (`TemporalOutput`, *optional*): of the N moment requests, as `box` and `mask` of theirs; `None` without.
        box (`Tensor`, *optional*): `float32[N, 4]`.
        box_iou_logits (`Tensor`, *optional*): `float32[N]`, of `RegionOutput`; `None` of a head that has none.
        mask (`MaskOutput`, *optional*).
    """

    loss: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    states: dict[str, Tensor] | None = None
    rows: dict[str, Tensor] | None = None
    moment: TemporalOutput | None = None
    box: Tensor | None = None
    box_iou_logits: Tensor | None = None
    mask: MaskOutput | None = None


class TaskPreferenceModel(PreTrainedModel):
    """Any vision-language model of `AutoModelForImageTextToText`, with heads for moments, boxes and masks.

    The vision tower runs once for a batch; the language model and the heads share what it gives.

    Args:
        config (`TaskPreferenceConfig`): the settings.
        vlm (`PreTrainedModel`, *optional*): the model to wrap; made from `config.vlm_config` when left out.
        sam (`PreTrainedModel`, *optional*): the frozen SAM; made from `config.sam_config`, if any, when left out.

    Example:
        >>> from transformers import AutoModelForImageTextToText, AutoProcessor
        >>> processor = AutoProcessor.from_pretrained("Qwen/Qwen2.5-VL-3B-Instruct")  # doctest: +SKIP
        >>> vlm = AutoModelForImageTextToText.from_pretrained("Qwen/Qwen2.5-VL-3B-Instruct")  # doctest: +SKIP
        >>> model = TaskPreferenceModel.from_vlm(vlm, processor)  # doctest: +SKIP
    """

    config_class = TaskPreferenceConfig
    config: TaskPreferenceConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "video", "text")
    # They are loaded from the adapter's own folder; here for a trainer that resumes.
    _keys_to_ignore_on_load_unexpected = (r"\.lora_", r"\.trainable_tokens_delta\.")
    # Every loss is divided by its own count; the trainer then divides by the accumulation steps.
    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, config: TaskPreferenceConfig, vlm: Any = None, sam: Any = None) -> None:
        super().__init__(config)
        self.vlm = vlm if vlm is not None else AutoModelForImageTextToText.from_config(config.vlm_config)
        config.vlm_config = self.vlm.config  # one object, so that neither goes out of date
        self.heads = make_heads(config, self.vlm.config.get_text_config().hidden_size, sam)
        self.loss_weights = weigh_terms(config.loss_weights or {})
        # Whatever the type of the rest: boxes and spans are computed in float32, and heads move by small steps.
        mask = "heads.mask.adapter" if config.sam_config is not None else "heads.mask"
        self._keep_in_fp32_modules_strict = ["heads.moment", "heads.box", mask]
        self.post_init()
        if vlm is None and config.vlm_generation is not None:
            self.vlm.generation_config = GenerationConfig.from_dict(config.vlm_generation)

    @classmethod
    def from_vlm(
        cls,
        vlm: Any,
        processor: Any,
        *,
        tasks: Sequence[str] = TASKS,
        sam: Any = None,
        moment_feature_width: int | None = None,
        moment_head: Mapping[str, Any] | None = None,
        box_head: Mapping[str, Any] | None = None,
        mask_head: Mapping[str, Any] | None = None,
        mask_loss: str = "bce",
        loss_weights: Mapping[str, float] | None = None,
    ) -> Self:
        """Wraps a model: adds the tokens of the tasks to it and to its processor, and heads with fresh weights.

        Args:
            vlm (`PreTrainedModel`): of `AutoModelForImageTextToText`; it becomes part of this one and is changed. One
                that has been wrapped before, saved in between or not, keeps what its token rows have learned.
            processor (`ProcessorMixin`): of the model; its tokenizer gets the new tokens. Save it beside the model.
            tasks (`Sequence[str]`, *optional*): some of `TASKS`; all when left out.
            sam (`Sam2Model`, `EdgeTamModel` or `Sam3TrackerModel`, *optional*): draws masks, frozen; without it a
                light convolutional head does.
            moment_feature_width (`int`, *optional*): of precomputed features that go to the temporal head instead of
                the model's own.
            moment_head (`Mapping`, *optional*): keyword arguments of `TemporalHead`.
            box_head (`Mapping`, *optional*): of `RegionHead`.
            mask_head (`Mapping`, *optional*): of `ConvMaskHead`.
            mask_loss (`str`, *optional*, defaults to `"bce"`): `"bce"` or `"focal"`, or, with a SAM, `"prompts"`: what
                the published code trains masks with.
            loss_weights (`Mapping[str, float]`, *optional*): of loss terms by name, where they differ from
                `losses.WEIGHTS`; `"dialogue"` is 1.

        Returns:
            `TaskPreferenceModel`: with the model's own weights and fresh heads.

        Raises:
            `ValueError`: for settings that do not fit.
        """
        tokens = add_task_tokens(processor.tokenizer, tasks)
        fit_embeddings(vlm, len(processor.tokenizer), [*tokens.triggers.values(), *tokens.states.values()])
        config = cls.config_class(
            vlm_config=vlm.config.to_dict(),  # a copy: making a config resets the attention of those in it
            sam_config=None if sam is None else sam.config.to_dict(),
            tasks=list(tasks),
            trigger_token_ids=tokens.triggers,
            task_token_ids=tokens.states,
            moment_feature_width=moment_feature_width,
            moment_head=dict(moment_head or {}),
            box_head=dict(box_head or {}),
            mask_head=dict(mask_head or {}),
            mask_loss=mask_loss,
            loss_weights=dict(loss_weights or {}),
        )
        return cls(config, vlm, sam)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        targets: Targets | None = None,
        media: Sequence[MediaFacts | None] | None = None,
        features: VisionFeatures | None = None,
        sam_pixel_values: Tensor | None = None,
        **inputs: Any,
    ) -> TaskPreferenceOutput:
        """Reads rows, and has the heads answer at their task tokens; with labels alone the heads rest.

        Args:
            input_ids (`Tensor`): `int64[B, T]`, padded on either side.
            attention_mask (`Tensor`, *optional*): `int64[B, T]`.
            labels (`Tensor`, *optional*): `int64[B, T]`, -100 where nothing is to be learned.
            targets (`Targets`, *optional*): one for each task token, row by row and in the order of the text.
            media (`Sequence[MediaFacts | None]`, *optional*): B; needed where there are task tokens.
            features (`VisionFeatures`, *optional*): B rows for the temporal head, where it reads precomputed ones.
            sam_pixel_values (`Tensor`, *optional*): `float[B, 3, S, S]`, by SAM's processor, of the image or the frame
                that `MediaFacts.sam_frame` names; needed where a SAM draws masks.
            inputs: all else that the model's processor gives.

        Returns:
            `TaskPreferenceOutput`: with a loss where there are labels or targets.

        Raises:
            `ValueError`: for task tokens without what their heads need, targets that do not go with them, or features
                or pixels of another number of rows.
        """
        check_columns(len(input_ids), features=features, sam_pixel_values=sam_pixel_values)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, **inputs}
        seen, rest = look(self.vlm, inputs)
        # By the rule that generation asks: with padding on the left, models on their own count it in.
        rest.setdefault("position_ids", self.vlm._prepare_position_ids_for_generation(input_ids, dict(rest)))
        written = self.vlm(**rest, use_cache=False, output_hidden_states=-1)
        places = find_states(input_ids, self.config.task_token_ids or {})
        states = {task: written.hidden_states[-1][place] for task, place in places.items()}
        rows = {task: place[0] for task, place in places.items()}
        vision, found = None, {}
        if media is not None and any(len(own) for own in rows.values()):
            vision = lay_out(self.config.vlm_config, inputs, seen, media)
        shown = self.choose_features(vision, features)
        if labels is None or targets is not None:
            found = self.run_heads(states, rows, shown, sam_pixel_values)
        output = TaskPreferenceOutput(logits=written.logits, states=states, rows=rows, **found)
        losses = {} if labels is None else {"dialogue": grade_text(written.logits, labels)}
        if targets is not None:
            losses |= grade_heads(self.heads, self.config.mask_loss, output, targets, shown, media or [])
        if losses:
            output.losses = losses
            output.loss = torch.stack([self.loss_weights[name] * value for name, value in losses.items()]).sum()
            if self.training:
                output.loss = output.loss + self._touch_unused(found, has_vision=bool(seen))
        return output

    def get_base_model(self) -> Any:
        """The language model with its vision tower: what answers where no task is asked for (`PreTrainedModel`)."""
        return self.vlm

    def choose_features(
        self, vision: VisionFeatures | None, features: VisionFeatures | None
    ) -> dict[str, VisionFeatures | None]:
        """What the head of each task looks at: the model's own features, or precomputed ones.

        Args:
            vision (`VisionFeatures`, *optional*): of the model's own tower.
            features (`VisionFeatures`, *optional*): precomputed; for the temporal head where it was made for them.
        """
        is_precomputed = self.config.moment_feature_width is not None
        return {"moment": features if is_precomputed else vision, "box": vision, "mask": vision}

    def run_heads(
        self,
        states: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        shown: Mapping[str, VisionFeatures | None],
        sam_pixel_values: Tensor | None = None,
    ) -> dict[str, Any]:
        """Has the heads answer.

        Args:
            states (`Mapping[str, Tensor]`): of each task, `float[N, C]`.
            rows (`Mapping[str, Tensor]`): of each task, `int64[N]`, whose media the state asks about.
            shown (`Mapping[str, VisionFeatures]`): of each task, B rows, as `choose_features` gives them.
            sam_pixel_values (`Tensor`, *optional*): `float[B, 3, S, S]`.

        Returns:
            `dict[str, Any]`: of each task that is asked for, what its head gives; of boxes also `box_iou_logits`.

        Raises:
            `ValueError`: where a head lacks what it needs.
        """
        return run_heads(self.heads, states, rows, shown, sam_pixel_values)

    def _touch_unused(self, found: Mapping[str, Any], *, has_vision: bool) -> Tensor:
        """Zero, with a gradient path to what this batch did not use.

        So every process of a distributed run has gradients of the same parameters, whichever tasks its rows are of.
        """
        unused = [weight for task, head in self.heads.items() if task not in found for weight in head.parameters()]
        if not has_vision:
            language = (self.vlm.get_decoder(), self.vlm.get_output_embeddings())
            known = {id(weight) for part in language for weight in part.parameters()}
            unused += [weight for weight in self.vlm.parameters() if id(weight) not in known]
        zeros = [0.0 * weight.flatten()[:1].float().sum() for weight in unused if weight.requires_grad]
        return torch.stack(zeros).sum() if zeros else torch.zeros((), device=self.device)

    @torch.no_grad()
    def generate(self, **inputs: Any) -> list[TaskPreferenceAnswer]:
        """Answers a batch of requests, whatever they ask for; see `generation.write_answers`."""
        return write_answers(self, **inputs)

    def get_input_embeddings(self) -> nn.Module:
        """Those of the wrapped model."""
        layer: nn.Module = self.vlm.get_input_embeddings()
        return layer

    def get_output_embeddings(self) -> nn.Module:
        """Those of the wrapped model."""
        layer: nn.Module = self.vlm.get_output_embeddings()
        return layer

    def save_pretrained(self, save_directory: str | os.PathLike[str], **settings: Any) -> None:
        """Saves everything: the wrapped model, its generation settings, the heads, and a LoRA in a folder of its own.

        The wrapped model keeps the names it has without a LoRA.

        Args:
            save_directory (`str` or `os.PathLike`): a folder; it is made where it is missing.
            settings: as `PreTrainedModel.save_pretrained` takes them.

        Raises:
            `ValueError`: for `push_to_hub=True` with a LoRA.
        """
        if settings.get("push_to_hub") and self.config.lora is not None:
            # transformers would upload what it writes itself, and the adapter is not among that.
            raise ValueError(
                "push_to_hub = True is not there for a model with a LoRA, whose adapter would stay behind; leave it "
                "out, and call model.push_to_hub(repo_id), which uploads everything"
            )
        self.config.vlm_generation = self.vlm.generation_config.to_dict()
        if self.config.lora is not None:
            if settings.get("is_main_process", True):
                save_adapter(self, Path(save_directory) / ADAPTER_FOLDER)
            settings["state_dict"] = read_plain_state(settings.get("state_dict") or self.state_dict())
        # With the names that the parameters have here, a trainer can resume from what is saved.
        super().save_pretrained(save_directory, **{"save_original_format": False, **settings})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **settings: Any) -> Any:
        """Loads what `save_pretrained` saved, a LoRA included.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`): a folder or a repository.
            args, settings: as `PreTrainedModel.from_pretrained` takes them.

        Returns:
            `TaskPreferenceModel`, set to `eval()`; with `output_loading_info=True` a tuple of it and the information.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **settings)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        for weight in model.heads.parameters():
            # A checkpoint's tensors lie in memory as the file has them, and on a CPU the last bit depends on that.
            weight.data = weight.data.clone()
        if model.config.sam_config is not None and "mask" in model.heads:
            model.heads["mask"].sam.requires_grad_(False)  # loading makes every parameter anew
        if model.config.lora is not None:
            hub = {name: settings[name] for name in _HUB_SETTINGS if settings.get(name) is not None}
            load_adapter(model, str(pretrained_model_name_or_path), subfolder=ADAPTER_FOLDER, **hub)
            model.eval()
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        init_head_weights(module)


AutoModel.register(TaskPreferenceConfig, TaskPreferenceModel)
